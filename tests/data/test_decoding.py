"""One image file: every kind of sample, and every kind of damage."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from diffnca.data import decoding
from diffnca.data.decoding import Pixels
from diffnca.data.refusals import UnusableImageError

CANOPY = sorted((Path(__file__).parent / "canopy").glob("*.jpg"))
GRAY = np.arange(24 * 40, dtype=np.uint8).reshape(24, 40)
COLOUR = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def decode(content: bytes, channels: int, reduce: int = 1) -> Pixels:
    return decoding.decode(content, channels=channels, reduce=reduce).pixels


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of(header: bytes, rows: bytes, *further: bytes) -> bytes:
    """Return a PNG file with further chunks, which are names and contents in turn."""
    chunks = (b"IHDR", header, *further, b"IDAT", zlib.compress(rows), b"IEND", b"")
    written = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in zip(chunks[::2], chunks[1::2], strict=True)
    ]
    return b"".join([b"\x89PNG\r\n\x1a\n", *written])


def png_that_claims(width: int, height: int) -> bytes:
    return png_of(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"")


def deep_png_with_a_clear_colour(samples: list[int] | list[list[int]], *clear: int) -> bytes:
    """Return a row of 16-bit gray or RGB, of which one colour is transparent."""
    row = np.array(samples, dtype=">u2")
    header = struct.pack(">IIBBBBB", len(row), 1, 16, 0 if row.ndim == 1 else 2, 0, 0, 0)
    return png_of(header, b"\0" + row.tobytes(), b"tRNS", struct.pack(f">{len(clear)}H", *clear))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_rgb_is_read_unchanged(kind: str) -> None:
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(COLOUR), kind), channels=3), COLOUR)


def test_gray_becomes_three_equal_channels() -> None:
    image = decode(encoded(Image.fromarray(GRAY)), channels=3)
    np.testing.assert_array_equal(image, np.repeat(GRAY[..., None], 3, axis=2))


def test_gray_stays_one_channel_if_one_is_wanted() -> None:
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(GRAY)), channels=1), GRAY[..., None])


def test_colour_becomes_its_luma_if_one_channel_is_wanted() -> None:
    image = decode(encoded(Image.fromarray(COLOUR)), channels=1)[..., 0]
    assert np.abs(image - COLOUR @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_gray_of_16_bit_is_scaled_by_65535(kind: str) -> None:
    deep = np.array([[0, 128, 129, 32896, 65535]], dtype=np.uint16)
    assert decode(encoded(Image.fromarray(deep), kind), channels=1).ravel().tolist() == [0, 0, 1, 128, 255]


def test_big_endian_16_bit_tiff_reads_like_little_endian() -> None:
    deep = np.arange(0, 65536, 1024, dtype=">u2").reshape(8, 8)
    samples = deep.tobytes()
    tags = [
        (256, 8),
        (257, 8),
        (258, 16),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 8),
        (279, len(samples)),
    ]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack(">H", len(tags)) + entries + struct.pack(">I", 0)
    tiff = b"MM\x00*" + struct.pack(">I", 8 + len(samples)) + samples + directory
    np.testing.assert_array_equal(
        decode(tiff, channels=1)[..., 0], (deep.astype(float) / 257 + 0.5).astype(np.uint8)
    )


@pytest.mark.parametrize("samples", [GRAY, GRAY.astype(np.uint16) * 257], ids=["8 bit", "16 bit"])
def test_a_tiff_whose_white_is_zero_reads_as_it_looks(samples: np.ndarray) -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, np.iinfo(samples.dtype).max - samples, photometric="miniswhite")
    np.testing.assert_array_equal(decode(file.getvalue(), channels=1)[..., 0], GRAY)


def test_rgb_of_16_bit_keeps_the_upper_8_bits() -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, COLOUR.astype(np.uint16) * 256 + 77, photometric="rgb")
    np.testing.assert_array_equal(decode(file.getvalue(), channels=3), COLOUR)


def test_transparent_pixels_are_laid_over_white() -> None:
    image = Image.fromarray(np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], dtype=np.uint8))
    assert decode(encoded(image), channels=3).tolist() == [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]


def test_gray_with_alpha_is_laid_over_white() -> None:
    image = Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8), "LA")
    assert decode(encoded(image), channels=1).ravel().tolist() == [10, 255]


def test_palette_is_looked_up() -> None:
    image = Image.fromarray(GRAY % 2, "P")
    image.putpalette([1, 2, 3, 200, 100, 50])
    assert decode(encoded(image), channels=3)[0, :2].tolist() == [[1, 2, 3], [200, 100, 50]]


def test_the_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.fromarray(GRAY % 2, "P")
    image.putpalette([1, 2, 3, 200, 100, 50])
    assert decode(encoded(image, transparency=0), channels=3)[0, :2].tolist() == [
        [255, 255, 255],
        [200, 100, 50],
    ]


@pytest.mark.parametrize(
    ("clear", "gray"), [(300, [0, 255, 39, 117, 255, 0]), (0, [255, 1, 39, 117, 255, 0])]
)
def test_the_transparent_gray_of_16_bits_is_that_of_its_16_bits(clear: int, gray: list[int]) -> None:
    content = deep_png_with_a_clear_colour([0, 300, 10_000, 30_000, 65_535, 44], clear)
    assert decode(content, channels=1).ravel().tolist() == gray


@pytest.mark.parametrize(
    ("clear", "is_clear"),
    [((300, 1, 2), [True, False, False]), ((301, 1, 2), [False, True, False]), ((44, 1, 2), [False] * 3)],
)
def test_the_transparent_colour_of_16_bits_is_that_of_its_16_bits(
    clear: tuple[int, int, int], is_clear: list[bool]
) -> None:
    content = deep_png_with_a_clear_colour([[300, 1, 2], [301, 1, 2], [1, 0, 0]], *clear)
    pixels = decode(content, channels=3)
    assert (pixels == 255).all(axis=2).ravel().tolist() == is_clear


def test_black_and_white_is_0_and_255() -> None:
    image = Image.fromarray((GRAY % 2 * 255).astype(np.uint8)).convert("1")
    assert decode(encoded(image), channels=1)[0, :2].ravel().tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    image = decode(encoded(ink, kind), channels=3)
    assert np.abs(image.astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_32_bit_are_refused_with_the_reason(mode: str) -> None:
    image = Image.fromarray(GRAY).convert(mode)
    with pytest.raises(UnusableImageError, match="32-bit"):
        decode(encoded(image, "TIFF"), channels=1)


@pytest.mark.parametrize("samples", [COLOUR, GRAY.astype(np.uint16) * 257], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize(
    ("orientation", "turns", "mirrored"), [(1, 0, 0), (2, 0, 1), (3, 2, 0), (6, 3, 0), (8, 1, 0)]
)
def test_exif_orientation_is_honoured(
    samples: np.ndarray, orientation: int, turns: int, mirrored: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = COLOUR if samples.ndim == 3 else GRAY[..., None]
    expected = expected[:, ::-1] if mirrored else np.rot90(expected, turns)
    image = decode(encoded(Image.fromarray(samples), exif=exif), channels=expected.shape[2])
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_the_orientation_of_a_file_that_pillow_cannot_read_is_honoured(orientation: int, turns: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    planes, file = np.moveaxis(COLOUR, -1, 0).astype(np.uint16) * 257, io.BytesIO()
    tags = [(0x0112, "H", 1, orientation, True)]
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate", extratags=tags)
    np.testing.assert_array_equal(decode(file.getvalue(), channels=3), np.rot90(COLOUR, turns))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    whole = encoded(Image.fromarray(np.tile(COLOUR, (8, 8, 1))), kind)
    with pytest.raises(UnusableImageError, match="unreadable"):
        decode(whole[: len(whole) // 2], channels=3)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "signature"])
def test_a_file_that_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(UnusableImageError, match="unreadable: cannot identify image file$"):
        decode(content, channels=3)


@pytest.mark.parametrize("side", [13_378, 100_000])
def test_a_gigantic_image_is_refused_before_it_is_unpacked(side: int) -> None:
    with pytest.raises(UnusableImageError, match="178,956,970 pixels"):
        decode(png_that_claims(side, side), channels=3)


def seeds_of_damage() -> dict[str, bytes]:
    """Return a small file of each kind."""
    exif, kinds = Image.Exif(), {}
    exif[0x0112], exif[0x010F] = 6, "maker"
    colour, small = Image.fromarray(COLOUR), Image.fromarray(COLOUR[:8, :8])
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM"):
        kinds[kind] = encoded(colour, kind, **({} if kind in ("BMP", "PPM", "GIF") else {"exif": exif}))
    kinds["MPO"] = encoded(colour, "MPO", save_all=True, append_images=[colour])
    kinds["animated PNG"] = encoded(small, "PNG", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    kinds["deep PNG"] = encoded(Image.fromarray(GRAY.astype(np.uint16)), "PNG")
    kinds["clear PNG"] = deep_png_with_a_clear_colour([[300, 1, 2], [301, 1, 2]], 300, 1, 2)
    kinds["text PNG"] = encoded(small, "PNG", pnginfo=long_text())
    with contextlib.suppress(ImportError):
        import tifffile

        for name, options in {
            "planes": {"photometric": "rgb", "planarconfig": "separate"},
            "pages": {"photometric": "minisblack", "ome": True, "metadata": {"axes": "CYX"}},
        }.items():
            file = io.BytesIO()
            tifffile.imwrite(file, np.moveaxis(COLOUR, -1, 0).astype(np.uint16), **options)
            kinds[name] = file.getvalue()
    return kinds


def long_text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "x" * (3 << 20), zip=True)
    return text


SEEDS_OF_DAMAGE = seeds_of_damage()


@pytest.mark.parametrize("kind", SEEDS_OF_DAMAGE)
@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_is_refused_or_harmless(kind: str) -> None:
    numbers = np.random.default_rng(sum(kind.encode()))
    for _ in range(40):
        content = bytearray(SEEDS_OF_DAMAGE[kind])
        for place in numbers.integers(0, len(content), numbers.integers(1, 4)):
            content[place] = numbers.integers(256)
        if numbers.random() < 0.3:
            del content[numbers.integers(len(content)) :]
        with contextlib.suppress(UnusableImageError):
            assert decode(bytes(content), channels=3).shape[2] == 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0no tiff", b"Exif\0\0MM\0*\0\0\0\x08\0\2\1\x12", b"b'Exif\\x00'"], ids=str
)
def test_exif_that_cannot_be_read_costs_nothing(kind: str, exif: bytes) -> None:
    plain = decode(encoded(Image.fromarray(COLOUR), kind), channels=3)
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(COLOUR), kind, exif=exif), channels=3), plain
    )


def test_text_that_is_longer_than_pillow_allows_costs_nothing() -> None:
    content = encoded(Image.fromarray(COLOUR), pnginfo=long_text())
    np.testing.assert_array_equal(decode(content, channels=3), COLOUR)
    end = content.index(b"IDAT") - 4, content.index(b"IEND") - 4
    text, pixels = content[33 : end[0]], content[end[0] : end[1]]
    np.testing.assert_array_equal(
        decode(content[:33] + pixels + text + content[end[1] :], channels=3), COLOUR
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*`git lfs pull`"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
    ],
)
def test_what_stands_for_a_picture_is_said_to_be_what_it_is(content: bytes, message: str) -> None:
    with pytest.raises(UnusableImageError, match=message):
        decode(content, channels=3)


@pytest.mark.parametrize("alpha", [250, 254])
def test_a_nearly_opaque_picture_is_opaque(alpha: int) -> None:
    samples = np.concatenate([COLOUR, np.full((24, 40, 1), alpha, np.uint8)], axis=2)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(samples)), channels=3), COLOUR)


def test_reduction_is_lanczos_over_whole_reduced_pixels() -> None:
    odd = COLOUR[:23, :39]
    whole = Image.fromarray(odd[:22, :38]).resize((19, 11), Image.Resampling.LANCZOS)
    image = decode(encoded(Image.fromarray(odd)), channels=3, reduce=2)
    assert image.shape == (11, 19, 3)
    np.testing.assert_array_equal(image[:-3, :-3], np.asarray(whole)[:-3, :-3])


def test_an_image_smaller_than_the_reduction_is_refused() -> None:
    with pytest.raises(UnusableImageError, match="40x24 px cannot be reduced by 25"):
        decode(encoded(Image.fromarray(COLOUR)), channels=3, reduce=25)


@pytest.mark.parametrize("path", CANOPY, ids=lambda path: path.stem)
def test_real_photos_are_read(path: Path) -> None:
    image = decode(path.read_bytes(), channels=3)
    assert image.shape == (128, 128, 3)
    assert image.std() > 20
