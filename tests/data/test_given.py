"""Given images are read exactly, masks too, and what cannot be edited is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from diffnca.canvas.pixels import to_uint8
from diffnca.data.given import companion_of, images_in, read_image, read_mask


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def saved(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_pixels_come_through_a_model_and_back_as_they_are(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    given = read_image(saved(tmp_path / "a.png", every), 3)
    assert np.array_equal(to_uint8(given.image)[0], every)


def test_an_image_of_one_pixel_is_an_image(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path / "a.png", pixels(1, 1, 3)), 3).image.shape == (1, 3, 1, 1)


def test_gray_becomes_colour_for_a_colour_model(tmp_path: Path) -> None:
    gray = pixels(4, 5)
    given = read_image(saved(tmp_path / "a.png", gray), 3)
    assert np.array_equal(given.pixels, gray[..., None].repeat(3, -1))


def test_colours_that_are_gray_become_gray_for_a_gray_model(tmp_path: Path) -> None:
    gray = pixels(4, 5)
    given = read_image(saved(tmp_path / "a.png", gray[..., None].repeat(3, -1)), 1)
    assert np.array_equal(given.pixels[..., 0], gray)


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    array, exif = pixels(4, 6, 3), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    given = read_image(saved(tmp_path / "a.png", array, exif=exif), 3)
    assert np.array_equal(given.pixels, np.rot90(array, -1))


def test_what_is_not_opaque_is_a_hole(tmp_path: Path) -> None:
    array = pixels(4, 5, 4)
    array[..., 3] = 255
    array[1, 2, 3], array[3, 3, 3] = 0, 249
    given = read_image(saved(tmp_path / "a.png", array), 3)
    assert given.holes is not None
    assert given.holes.nonzero().tolist() == [[1, 2], [3, 3]]
    assert np.array_equal(given.pixels, array[..., :3])


@pytest.mark.parametrize("alpha", [250, 254, 255])
def test_a_nearly_opaque_image_has_no_holes(tmp_path: Path, alpha: int) -> None:
    array = pixels(4, 5, 4)
    array[..., 3] = alpha
    assert read_image(saved(tmp_path / "a.png", array), 3).holes is None


def test_masks_are_true_where_they_are_white(tmp_path: Path) -> None:
    array = np.array([[0, 127], [128, 255]], np.uint8)
    assert torch.equal(
        read_mask(saved(tmp_path / "m.png", array)), torch.tensor([[False, False], [True, True]])
    )


def test_masks_are_false_where_they_are_transparent(tmp_path: Path) -> None:
    array = np.full((1, 3, 4), 255, np.uint8)
    array[0, :, 3] = 0, 127, 255
    assert read_mask(saved(tmp_path / "m.png", array)).tolist() == [[False, False, True]]


def deep(path: Path, channels: int) -> Path:
    """Write a PNG, PPM or TIFF image of 16 bits."""
    array = np.random.default_rng(0).integers(1 << 16, size=(4, 5, channels), dtype=np.uint16)
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(array))
    elif path.suffix == ".ppm":
        path.write_bytes(b"P6 5 4 65535\n" + array.astype(">u2").tobytes())
    else:
        tifffile.imwrite(path, array, photometric="rgb")
    return path


@pytest.mark.parametrize(
    ("name", "channels"), [("a.png", 2), ("a.png", 3), ("a.png", 4), ("a.tif", 3), ("a.ppm", 3)]
)
def test_16_bit_samples_are_read_with_8_bits_and_a_note(
    tmp_path: Path, name: str, channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    read_image(deep(tmp_path / name, channels), 3)
    assert caplog.messages == [f"{tmp_path / name}: of 16-bit samples 8 bits are kept"]


def test_a_16_bit_mask_is_white_from_half_on(tmp_path: Path) -> None:
    array = np.array([[0, 32_000, 33_000, 65_535]], np.uint16)
    assert read_mask(saved(tmp_path / "m.png", array)).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_tiff_images_of_8_bits_and_less_are_read(tmp_path: Path, mode: str) -> None:
    Image.fromarray(pixels(4, 5, 3)).convert(mode).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", 3).pixels.shape == (4, 5, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif", "a.mpo"])
def test_of_several_pictures_in_a_file_the_first_is_read_with_a_note(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (200, 50)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    given = read_image(tmp_path / name, 3)
    assert np.abs(given.pixels.astype(int) - 200).max() <= 2
    assert len(caplog.messages) == 1 and "the first is read" in caplog.messages[0]


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.tif", lambda path: saved(path, pixels(4, 5).astype(np.float32)), "32-bit floating-point samples"),
        ("a.png", lambda path: path.write_text("no image"), "unreadable"),
        ("b.png", lambda path: None, "no such file"),
        ("a.png", lambda path: path.mkdir(), "is no regular file"),
        ("a.png", lambda path: path.symlink_to("nothing"), "is a link to nothing"),
    ],
)
@pytest.mark.parametrize("read", [lambda path: read_image(path, 3), read_mask], ids=["image", "mask"])
def test_what_cannot_be_edited_is_refused_by_name(
    tmp_path: Path, name: str, make: Callable[[Path], object], message: str, read: Callable[[Path], object]
) -> None:
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message) as refusal:
        read(tmp_path / name)
    assert str(refusal.value).count(str(tmp_path / name)) == 1


def test_colour_is_refused_for_a_gray_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="convert it to gray"):
        read_image(saved(tmp_path / "a.png", pixels(4, 5, 3)), 1)


def test_images_of_a_folder_come_by_name_and_other_files_are_left(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in images_in(tmp_path)] == ["a.jpg", "b.png"]


def test_folders_and_hidden_files_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "._a.png").touch()
    (tmp_path / "x.png").mkdir()
    assert images_in(tmp_path) == [tmp_path / "a.png"]


def test_a_picture_of_a_kind_that_is_not_read_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.heic").touch()
    assert images_in(tmp_path) == [tmp_path / "a.png"]
    assert caplog.messages == ["left out b.heic: .heic is not read; save it as PNG or TIFF"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image"):
        images_in(tmp_path)


def test_masks_of_a_folder_go_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.png").touch()
    (tmp_path / "A.PNG").touch()
    assert companion_of(Path("images/b.jpg"), tmp_path, "mask") == tmp_path / "b.png"
    assert companion_of(Path("images/A.PNG"), tmp_path, "mask") == tmp_path / "A.PNG"
    assert companion_of(Path("images/c.jpg"), tmp_path / "b.png", "mask") == tmp_path / "b.png"
    with pytest.raises(ValueError, match=r"no mask for c\.jpg"):
        companion_of(Path("images/c.jpg"), tmp_path, "mask")


def test_masks_go_by_name_in_any_form_of_unicode(tmp_path: Path) -> None:
    decomposed = tmp_path / "Ba\u0308ume.png"
    decomposed.touch()
    assert companion_of(Path("images/B\u00e4ume.png"), tmp_path, "mask") == decomposed
