"""Use a seamless tile as a material of Blender, and render it on a ground and a ball.

    diffnca sample aerial --height 256 --width 256 --seamless both --out tile.png
    python examples/blender_material.py tile.png meadow.jpg

With Blender instead of the package `bpy`: `blender --background --python FILE -- tile.png meadow.jpg`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import bpy

RELIEF = 0.25
"""How far bright places stand out, as the distance of the node Bump."""


def material_of(tile: Path, tiles_per_unit: float, metres_high: float = RELIEF) -> Any:
    """Return a material that repeats the tile in all directions; bright places stand out."""
    material = bpy.data.materials.new(tile.stem)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    surface = nodes["Principled BSDF"]
    surface.inputs["Roughness"].default_value = 0.9
    where, scale = nodes.new("ShaderNodeTexCoord"), nodes.new("ShaderNodeMapping")
    scale.inputs["Scale"].default_value = [tiles_per_unit] * 3
    picture, relief = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeBump")
    picture.image = bpy.data.images.load(str(tile.resolve()))
    picture.projection, picture.projection_blend = "BOX", 0.3  # from six sides, as a ball has no flat map
    relief.inputs["Distance"].default_value = metres_high
    links.new(where.outputs["Object"], scale.inputs["Vector"])
    links.new(scale.outputs["Vector"], picture.inputs["Vector"])
    links.new(picture.outputs["Color"], surface.inputs["Base Color"])
    links.new(picture.outputs["Color"], relief.inputs["Height"])
    links.new(relief.outputs["Normal"], surface.inputs["Normal"])
    return material


def build(tile: Path) -> Any:
    """Fill an empty scene with a ground and a ball of this material, the sun and a camera."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene, material = bpy.context.scene, material_of(tile, 0.5)
    bpy.ops.mesh.primitive_plane_add(size=24)
    bpy.context.object.data.materials.append(material)
    bpy.ops.mesh.primitive_uv_sphere_add(segments=96, ring_count=48, radius=1.2, location=(0, 0, 1.2))
    bpy.ops.object.shade_smooth()
    bpy.context.object.data.materials.append(material)
    bpy.ops.object.light_add(type="SUN", rotation=(0.7, 0.2, 0.6))
    bpy.context.object.data.energy, bpy.context.object.data.angle = 4.0, 0.05
    bpy.ops.object.camera_add(location=(0, -8.5, 3.4), rotation=(1.28, 0, 0))
    scene.camera = bpy.context.object
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.45, 0.6, 0.9, 1)
    return scene


def render(scene: Any, out: Path, width: int, height: int, samples: int) -> None:
    """Write what the camera sees, computed by the processor."""
    scene.render.engine, scene.cycles.device = "CYCLES", "CPU"
    scene.cycles.samples, scene.cycles.use_denoising = samples, True
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.image_settings.file_format = "JPEG" if out.suffix in (".jpg", ".jpeg") else "PNG"
    scene.render.filepath = str(out.resolve())
    bpy.ops.render.render(write_still=True)


def main() -> None:
    """Read the arguments, also those after the `--` of Blender, and render."""
    given = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tile", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--samples", type=int, default=32, help="rays through each pixel")
    asked = parser.parse_args(given)
    render(build(asked.tile), asked.out, asked.width, asked.height, asked.samples)


if __name__ == "__main__":
    main()
