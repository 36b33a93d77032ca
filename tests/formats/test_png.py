"""PNG files: pixels and metadata come back, and nothing half-written is left."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.formats.png import contact_sheet, read_png_text, side_by_side, write_png


def random_pixels(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_metadata_of_a_large_picture_are_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    write_png(tmp_path / "x.png", random_pixels(40, 40, 3), {"diffnca:seed": "7"})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above, and refuses twice as many
    assert read_png_text(tmp_path / "x.png") == {"diffnca:seed": "7"}
    assert not recwarn.list


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7, 0.99])
def test_a_cut_file_is_not_taken_for_finished(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.png"
    write_png(path, random_pixels(40, 40, 3), {"diffnca:seed": "7"})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"x\.png: is there, and damaged \([^\n]*\); delete it"):
        read_png_text(path)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_png(path, random_pixels(40, 40, 3), {"diffnca:seed": "7"})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.png: is there, and damaged"):
        read_png_text(path)


def test_gray_images_are_shown_next_to_colours() -> None:
    gray, blue = np.full((1, 4, 4, 1), 7, np.uint8), np.full((1, 4, 4, 3), (0, 0, 9), np.uint8)
    sheet = side_by_side(gray, blue)
    assert (sheet[0, 0].tolist(), sheet[0, -1].tolist()) == ([7, 7, 7], [0, 0, 9])


def test_a_contact_sheet_is_as_square_as_can_be() -> None:
    sheet = contact_sheet(np.zeros((5, 4, 6, 3), np.uint8), gap_px=2)
    assert sheet.shape == (2 * 4 + 2, 3 * 6 + 4, 3)
