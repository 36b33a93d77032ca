"""Every writer takes the regions of a canvas in any order, and makes one image of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.canvas.region import Canvas
from diffnca.files import LOCK, PARTIAL
from diffnca.formats.ome_zarr import OmeZarrWriter, read_pixels
from diffnca.formats.png import read_png_text, write_png

TEXT = {"diffnca:seed": "7", "Software": "diffnca"}
SIDE = 16


def pixels_of(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


class Suite:
    """What holds for every writer."""

    def writer(self, folder: Path) -> Any:
        raise NotImplementedError

    def read(self, folder: Path) -> np.ndarray:
        raise NotImplementedError

    def text(self, folder: Path) -> dict[str, str] | None:
        raise NotImplementedError

    def make(self, folder: Path, pixels: np.ndarray) -> None:
        """Write all tiles backwards, and two of them again."""
        writer, canvas = self.writer(folder), Canvas(*pixels.shape[:2])
        writer.open(canvas, pixels.shape[2], TEXT)
        tiles = list(canvas.whole.tiles(SIDE, 2 * SIDE))
        for tile in [*reversed(tiles), *tiles[:2]]:
            writer.write(tile, pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width])
        writer.close()

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (33, 16)])
    def test_pixels_come_back_whatever_the_order_of_the_regions(
        self, tmp_path: Path, height: int, width: int, channels: int
    ) -> None:
        pixels = pixels_of(height, width, channels)
        self.make(tmp_path, pixels)
        assert np.array_equal(self.read(tmp_path).reshape(pixels.shape), pixels)

    def test_the_text_comes_back(self, tmp_path: Path) -> None:
        self.make(tmp_path, pixels_of(5, 7, 3))
        assert self.text(tmp_path) == TEXT

    def test_nothing_but_the_image_is_left(self, tmp_path: Path) -> None:
        self.make(tmp_path, pixels_of(5, 7, 3))
        assert len(list(tmp_path.iterdir())) == 1
        assert not any(path.name.endswith((PARTIAL, LOCK, ".partial")) for path in tmp_path.rglob("*"))

    def test_a_missing_folder_is_refused_before_any_pixel(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="does not exist; create it first"):
            self.writer(tmp_path / "missing").open(Canvas(2, 2), 3, TEXT)


class TestPng(Suite):
    def make(self, folder: Path, pixels: np.ndarray) -> None:
        write_png(folder / "x.png", pixels, TEXT)

    def test_a_missing_folder_is_refused_before_any_pixel(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="does not exist; create it first"):
            self.make(tmp_path / "missing", pixels_of(2, 2, 3))

    def read(self, folder: Path) -> np.ndarray:
        return np.asarray(Image.open(folder / "x.png"))

    def text(self, folder: Path) -> dict[str, str]:
        return read_png_text(folder / "x.png")


class TestOmeZarr(Suite):
    def writer(self, folder: Path) -> OmeZarrWriter:
        return OmeZarrWriter(str(folder / "x.ome.zarr"), None, SIDE, 8)

    def read(self, folder: Path) -> np.ndarray:
        return read_pixels(str(folder / "x.ome.zarr"))

    def text(self, folder: Path) -> dict[str, str] | None:
        return self.writer(folder).read_text()
