"""What `diffnca sample` makes can be looked at."""

from pathlib import Path

import numpy as np
import pytest

from diffnca.canvas.region import Canvas
from diffnca.formats.ome_tiff import write_ome_tiff
from diffnca.formats.ome_zarr import OmeZarrWriter
from diffnca.view.pyramids import open_image

PIXELS = np.random.default_rng(0).integers(0, 256, (600, 500, 3), dtype=np.uint8)


def begun(folder: Path) -> OmeZarrWriter:
    writer = OmeZarrWriter(str(folder / "x.ome.zarr"), 0.5, 512, 256)
    writer.open(Canvas(600, 500), 3, {"diffnca:seed": "7"})
    for tile in Canvas(600, 500).whole.tiles(512, 512):
        writer.write(tile, PIXELS[tile.top : tile.top + tile.height])
    return writer


@pytest.mark.parametrize("name", ["x.ome.zarr", "x.ome.tif"])
def test_pixels_size_and_provenance_are_shown(tmp_path: Path, name: str) -> None:
    begun(tmp_path).close()
    if name.endswith("tif"):
        write_ome_tiff(str(tmp_path / "x.ome.zarr"), tmp_path / name, "deflate")
    image = open_image(tmp_path / name)
    assert image.sizes[0] == (600, 500) and len(image.sizes) == 3
    assert image.microns_per_px == pytest.approx(0.5)
    assert "seed: 7" in image.provenance
    assert np.array_equal(image.tile(0, 1, 1), PIXELS[256:512, 256:500])


@pytest.mark.parametrize(("colours", "classes"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_the_classes_of_a_map_are_not_shown_as_colours(tmp_path: Path, colours: int, classes: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, colours + classes), dtype=np.uint8)
    writer = OmeZarrWriter(str(tmp_path / "x.ome.zarr"), None, 64, 64, ("stroma", "gland")[:classes])
    writer.open(Canvas(40, 50), colours + classes, {})
    writer.write(Canvas(40, 50).whole, pixels)
    writer.close()
    assert np.array_equal(open_image(writer.url).tile(0, 0, 0), pixels[..., :colours])


def test_an_image_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(ValueError, match="is not finished; the command that makes it goes on with it"):
        open_image(tmp_path / "x.ome.zarr")
