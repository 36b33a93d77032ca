"""PNG files: pixels and metadata come back, and nothing half-written is left."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.canvas.region import Canvas
from diffnca.formats.png import PngWriter, contact_sheet, read_png_text, write_png


def random_pixels(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back(tmp_path: Path, channels: int) -> None:
    pixels = random_pixels(5, 7, channels)
    write_png(tmp_path / "x.png", pixels, {})
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")).reshape(pixels.shape), pixels)


def test_metadata_come_back(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", random_pixels(2, 2, 3), {"diffnca:seed": "7"})
    assert Image.open(tmp_path / "x.png").text["diffnca:seed"] == "7"


def test_metadata_of_a_large_picture_are_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    write_png(tmp_path / "x.png", random_pixels(40, 40, 3), {"diffnca:seed": "7"})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above, and refuses twice as many
    assert read_png_text(tmp_path / "x.png") == {"diffnca:seed": "7"}
    assert not recwarn.list


def test_regions_may_come_in_any_order_and_twice(tmp_path: Path) -> None:
    canvas, pixels = Canvas(9, 11), random_pixels(9, 11, 3)
    writer = PngWriter(tmp_path / "x.png")
    writer.open(canvas, 3, {})
    tiles = list(canvas.whole.tiles(4, 5))
    for tile in [*reversed(tiles), tiles[0]]:
        writer.write(tile, pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width])
    writer.close()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), pixels)


def test_only_the_finished_file_is_left(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", random_pixels(2, 2, 3), {})
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.png"):
        PngWriter(tmp_path / "x.jpg")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; create it first"):
        PngWriter(tmp_path / "missing" / "x.png")


def test_a_contact_sheet_is_as_square_as_can_be() -> None:
    sheet = contact_sheet(np.zeros((5, 4, 6, 3), np.uint8), gap_px=2)
    assert sheet.shape == (2 * 4 + 2, 3 * 6 + 4, 3)
