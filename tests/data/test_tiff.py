"""TIFF files of every kind give the pixels that tifffile gives, or one line that says why not."""

from __future__ import annotations

import io
import itertools
import sys
from typing import Any

import numpy as np
import pytest

from diffnca.data.decoding import Decoded, decode
from diffnca.data.refusals import UnusableImageError
from diffnca.data.tiff import microns_in, positive

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

HEIGHT, WIDTH = 24, 40


def written(samples: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def ramp(channels: int, dtype: Any = np.uint8) -> np.ndarray:
    """Return different ramps; a last channel that is alpha is opaque."""
    most = np.iinfo(dtype).max
    sides = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 2)[..., None] % 140 / 140
    pixels = (sides * np.array([1.0, 0.7, 0.4, 0.0])[:channels] * most).astype(dtype)
    if channels in (2, 4):
        pixels[..., -1] = most
    return pixels


def pairwise(choices: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return few combinations in which every two choices meet."""
    names = list(choices)
    missing = {
        (a, x, b, y) for a, b in itertools.combinations(names, 2) for x in choices[a] for y in choices[b]
    }
    rows = []
    every = [dict(zip(names, values, strict=True)) for values in itertools.product(*choices.values())]
    while missing:
        covers = [{(a, r[a], b, r[b]) for a, b in itertools.combinations(names, 2)} & missing for r in every]
        best = max(range(len(every)), key=lambda k: len(covers[k]))
        rows.append(every[best])
        missing -= covers[best]
    return rows


KINDS = pairwise(
    {
        "bits": [8, 16],
        "channels": [1, 2, 3, 4],
        "planar": ["contig", "separate"],
        "compression": [None, "deflate", "lzw", "packbits", "zstd", "jpeg2000", "png"],
        "tile": [None, (16, 16)],
        "byteorder": ["<", ">"],
    }
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_tiff_is_read_as_tifffile_reads_it(kind: dict[str, Any]) -> None:
    options = {key: value for key, value in kind.items() if key in ("compression", "tile", "byteorder")}
    channels, dtype = kind["channels"], np.dtype(f"u{kind['bits'] // 8}")
    if kind["compression"] == "png":
        options["byteorder"] = "<"  # tifffile writes no other
    samples = ramp(channels, dtype)
    if channels > 1:
        options["planarconfig"] = kind["planar"]
    if channels in (2, 4):
        options["extrasamples"] = ["unassalpha"]
    stored = np.moveaxis(samples, -1, 0) if channels > 1 and kind["planar"] == "separate" else samples
    content = written(
        stored[..., 0] if channels == 1 else stored,
        photometric="rgb" if channels > 2 else "minisblack",
        **options,
    )
    colours = samples[..., : 3 if channels > 2 else 1] / np.iinfo(dtype).max * 255
    pixels = decode(content, channels=colours.shape[2]).pixels
    assert np.abs(pixels - colours).max() <= (1.0 if kind["bits"] == 16 else 0.0)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "float16", "float32", "float64", "uint32"])
def test_samples_of_unknown_range_are_refused_for_what_they_are(kind: str, compression: str | None) -> None:
    dtype = np.dtype(kind)
    name = {"i": "signed", "f": "floating-point", "u": "unsigned"}[dtype.kind]
    content = written(ramp(1)[..., 0].astype(dtype), compression=compression)
    with pytest.raises(UnusableImageError, match=rf"^{8 * dtype.itemsize}-bit {name} samples, whose range"):
        decode(content, channels=1)


def test_without_tifffile_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(np.moveaxis(ramp(3, np.uint16), -1, 0), photometric="rgb", planarconfig="separate")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UnusableImageError, match=r"pip install 'diffnca\[tiff\]'"):
        decode(content, channels=3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{"ome": True, "metadata": {"axes": "CYX"}}, {"imagej": True}])
def test_three_channels_in_pages_are_colours(dtype: Any, options: dict[str, Any]) -> None:
    pages = np.moveaxis(ramp(3, dtype), -1, 0)
    decoded = decode(written(np.ascontiguousarray(pages), photometric="minisblack", **options), channels=3)
    assert np.abs(decoded.pixels - ramp(3).astype(int)).max() <= 1
    assert decoded.notes[0] == "three pages are red, green and blue"


def test_another_number_of_channels_in_pages_is_refused() -> None:
    pages = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    content = written(pages, photometric="minisblack", ome=True, metadata={"axes": "CYX"})
    with pytest.raises(UnusableImageError, match="2 channels in 2 pages; save it as RGB, or each channel"):
        decode(content, channels=3)


def test_of_other_pages_the_first_is_read_with_a_note() -> None:
    pages = np.stack([ramp(1)[..., 0], 255 - ramp(1)[..., 0]])
    decoded = decode(written(pages, photometric="minisblack"), channels=1)
    np.testing.assert_array_equal(decoded.pixels, ramp(1))
    assert decoded.notes == ("holds several pages; the first is read",)


def of_four_bands(fourth: np.ndarray, mark: str) -> Decoded:
    samples = np.concatenate([ramp(3), fourth[..., None]], axis=2)
    return decode(written(samples, photometric="rgb", extrasamples=[mark]), channels=3)


def test_a_band_that_is_marked_as_alpha_is_refused() -> None:
    with pytest.raises(UnusableImageError, match="marked as alpha, and .* .near infrared"):
        of_four_bands(ramp(1)[..., 0] // 2 + 60, "unassalpha")


def test_a_band_that_is_not_marked_is_left_out_with_a_note() -> None:
    decoded = of_four_bands(ramp(1)[..., 0] // 2 + 60, "unspecified")
    np.testing.assert_array_equal(decoded.pixels, ramp(3))
    assert decoded.notes == ("channels beyond colour and alpha are left out",)


def in_planes(dtype: Any) -> bytes:
    """Return colours and an unspecified band, in separate planes, which tifffile reads alone."""
    planes = np.moveaxis(np.concatenate([ramp(3, dtype), ramp(1, dtype)], axis=2), -1, 0)
    marks = {"planarconfig": "separate", "extrasamples": ["unspecified"]}
    return written(np.ascontiguousarray(planes), photometric="rgb", **marks)


@pytest.mark.parametrize(
    "content",
    [
        in_planes(np.uint16),
        in_planes(np.uint8),
        written(np.stack([ramp(1)[..., 0]] * 2, axis=2), photometric="minisblack", planarconfig="contig"),
        written(np.stack([ramp(1)[..., 0]] * 2), photometric="minisblack", planarconfig="separate"),
    ],
    ids=["RGB and a band, 16 bits", "RGB and a band", "two gray bands", "two gray planes"],
)
def test_bands_that_tifffile_reads_are_left_out_with_a_note(content: bytes) -> None:
    assert "channels beyond colour and alpha are left out" in decode(content, channels=3).notes


def test_bands_that_are_all_read_have_no_note() -> None:
    planes = np.ascontiguousarray(np.moveaxis(ramp(4, np.uint16), -1, 0))
    options = {"planarconfig": "separate", "extrasamples": ["unassalpha"]}
    notes = decode(written(planes, photometric="rgb", **options), channels=3).notes
    assert notes == ("of 16-bit samples 8 bits are kept",)


def test_of_other_pages_that_tifffile_reads_the_first_is_read_with_a_note() -> None:
    pages = np.stack([np.moveaxis(ramp(3, np.uint16), -1, 0)] * 2)
    decoded = decode(written(pages, photometric="rgb", planarconfig="separate"), channels=3)
    assert "holds several pages; the first is read" in decoded.notes


def test_alpha_that_is_alpha_is_laid_over_white() -> None:
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:4] = 0
    pixels = of_four_bands(alpha, "unassalpha").pixels
    assert (pixels[:4] == 255).all() and np.array_equal(pixels[4:], ramp(3)[4:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_12_bits_in_16_are_said_to_be_nearly_black(channels: int, dtype: Any) -> None:
    samples = ramp(channels).astype(dtype) * (16 if dtype == np.uint16 else 1)
    options = {"photometric": "rgb" if channels == 3 else "minisblack"}
    notes = decode(written(samples if channels == 3 else samples[..., 0], **options), channels=3).notes
    assert any("nearly black" in note for note in notes) == (dtype == np.uint16)


@pytest.mark.parametrize(
    ("text", "microns"),
    [
        ('<Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.25">', (0.25, 0.5)),
        ('<Pixels PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="0,5">', (0.5, 0.5)),
        ('<Pixels PhysicalSizeX="0.5"', None),
        ('<Pixels PhysicalSizeX="0.5" PhysicalSizeXUnit="pixel" PhysicalSizeY="0.5">', None),
        ("<<<", None),
    ],
)
def test_the_size_of_a_pixel_is_read_from_ome_xml(text: str, microns: tuple[float, float] | None) -> None:
    assert microns_in(text) == pytest.approx(microns)


@pytest.mark.parametrize("value", [None, "", "nan", "inf", "-1", 0, "0x", "1e9"])
def test_what_is_no_size_of_a_pixel_is_none(value: object) -> None:
    assert positive(value) is None
