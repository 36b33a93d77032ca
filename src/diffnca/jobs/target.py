"""The file of a large image: where it is made, whether it is there, and whether it is the one asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffnca.canvas.region import Canvas
from diffnca.formats.ome_zarr import OmeZarrWriter, read_pixels
from diffnca.formats.png import read_png_text, write_png
from diffnca.formats.stores import is_remote, remove
from diffnca.jobs.making import progress_bar
from diffnca.tiles.states import noted

if TYPE_CHECKING:
    from diffnca.formats.ome_tiff import Compression

LARGEST_PNG_PX = 178_956_970  # Pillow reads no larger one

IMPLIED = {"diffnca:engine": "auto", "diffnca:compression": "jpeg"}
"""What an image was made with that says nothing of it."""


@dataclass(frozen=True)
class Target:
    """The file that is asked for, and where it is made.

    Attributes:
        out: its path; an OME-Zarr image may also have an address of fsspec.
    """

    out: str

    @property
    def is_zarr(self) -> bool:
        """Whether the pixels are made right there."""
        return self.out.endswith(".ome.zarr")

    @property
    def is_tiff(self) -> bool:
        """Whether it is a TIFF file."""
        return self.out.endswith((".tif", ".tiff"))

    @property
    def is_png(self) -> bool:
        """Whether it is a PNG file."""
        return self.out.lower().endswith(".png")

    @property
    def work(self) -> str:
        """Where all else is kept until it is finished."""
        return f"{self.out}.work"

    @property
    def image(self) -> str:
        """Where the pixels are kept until it is finished."""
        return self.out if self.is_zarr else f"{self.work}/image.ome.zarr"

    def check(self, canvas: Canvas) -> None:
        """Refuse a file that cannot be written.

        Raises:
            ValueError: its folder does not exist, or it holds too many pixels.
        """
        if not is_remote(self.out) and not Path(self.out).resolve().parent.is_dir():
            raise ValueError(
                f"{self.out}: the folder {Path(self.out).parent} does not exist; create it first"
            )
        if is_remote(self.out) and not self.is_zarr:
            raise ValueError(f"{self.out}: must end in .ome.zarr, only such images can be made at an address")
        if self.is_tiff:
            import diffnca.formats.ome_tiff  # noqa: F401  what is missing is told before the work
        if self.is_png and canvas.whole.area > LARGEST_PNG_PX:
            raise ValueError(
                f"{self.out}: {canvas.height}x{canvas.width} px are too many for a PNG file; "
                "end its name in .ome.zarr or .ome.tif"
            )

    def text(self) -> Mapping[str, str] | None:
        """Return what the finished file says of itself; `None` if there is none."""
        if self.is_zarr:
            return OmeZarrWriter(self.out).read_text() if OmeZarrWriter(self.out).is_finished else None
        if not Path(self.out).exists():
            return None
        if self.is_png:
            return read_png_text(Path(self.out))
        from diffnca.formats.ome_tiff import read_ome_tiff_text

        return read_ome_tiff_text(Path(self.out))

    def is_finished(self, facts: Mapping[str, str]) -> bool:
        """Return whether the file is there.

        Raises:
            ValueError: it is there, or was begun, and is of another image.
        """
        finished = self.text()
        if finished is not None:  # the rest may have been removed in part
            check_same(self.out, finished, facts)
            return True
        if OmeZarrWriter(self.image).is_foreign:
            raise ValueError(f"{self.image}: holds something else; give another --out")
        for there in (noted(f"{self.work}/states"), OmeZarrWriter(self.image).read_text()):
            if there is not None:
                check_same(self.out, there, facts)
        return False

    def finish(self, writer: OmeZarrWriter, facts: Mapping[str, str], compression: Compression) -> None:
        """Make the file of the pixels, and remove what was needed for that."""
        with progress_bar("levels") as progress:
            writer.close(progress)
        if self.is_png:
            write_png(Path(self.out), read_pixels(self.image), facts)
        elif not self.is_zarr:
            from diffnca.formats.ome_tiff import write_ome_tiff

            with progress_bar("file") as progress:
                write_ome_tiff(self.image, Path(self.out), compression, progress)
        remove(self.work)


def check_same(out: str, there: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """Refuse to go on with another image.

    Raises:
        ValueError: what is there was made with another model, size, seed, sampler or number of steps, or
            otherwise.
    """
    for key in dict.fromkeys((*facts, *there)):
        has, asked = (str(side.get(key, IMPLIED.get(key, "none"))) for side in (there, facts))
        if key.startswith("diffnca:") and key != "diffnca:model" and has != asked:
            raise ValueError(
                f"{out}: holds an image of {key.removeprefix('diffnca:')} {has}, this command says {asked}; "
                f"give another --out, or delete it (and {out}.work)"
            )
