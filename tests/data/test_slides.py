"""Whole slides: small pyramids with a physical resolution, read through tiffslide."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image

from diffnca.data import open_images
from diffnca.data.crops import crops
from diffnca.data.held_out import split
from diffnca.data.slides import Slide, tissue

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("tiffslide")

BACKGROUND = 240
PINK = (200, 120, 170)


def pink_texture(height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Make noise about a colour of tissue, smooth enough to survive a reduction."""
    coarse = np.random.default_rng(0).integers(-40, 40, (height // 4 + 1, width // 4 + 1, 1))
    noise = np.kron(coarse, np.ones((4, 4, 1), dtype=np.int64))[:height, :width]
    return (noise + PINK).clip(0, 255).astype(np.uint8)


def with_tissue(side: int, rows: slice, columns: slice) -> UInt8[np.ndarray, "h w 3"]:
    """Make a slide that is bright but for a rectangle of tissue."""
    pixels = np.full((side, side, 3), BACKGROUND, dtype=np.uint8)
    part = pixels[rows, columns]
    part[:] = pink_texture(*part.shape[:2])
    return pixels


def write_slide(
    path: Path,
    pixels: np.ndarray,
    um: float | None = 0.5,
    *,
    bigtiff: bool = False,
    compression: str | None = None,
) -> Path:
    """Write a tiled pyramid of two levels, whose base has `um` micrometres per pixel."""
    scale = {} if um is None else {"resolution": (1e4 / um, 1e4 / um), "resolutionunit": "CENTIMETER"}
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for number, factor in enumerate((1, 4)):
            height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
            blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
            level = blocks.mean(axis=(1, 3)).round().astype(pixels.dtype)
            options = {"subifds": 1, **scale} if number == 0 else {"subfiletype": 1}
            shape = (height, width, 3) if pixels.ndim == 3 else (height, width)
            options |= {"photometric": photometric, "compression": compression}
            writer.write(level.reshape(shape), tile=(128, 128), **options)
    return path


@pytest.fixture(scope="module")
def all_tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "all.tif", pink_texture(1200, 1500))


def test_a_slide_has_the_size_of_the_chosen_scale(all_tissue: Path) -> None:
    slide = Slide(all_tissue, 0.75)
    assert (slide.height, slide.width) == (800, 1000)


@pytest.mark.parametrize("um", [0.5, 0.75, 1.0, 2.0, 3.1])
def test_regions_are_crops_of_the_slide_resized_as_a_whole(all_tissue: Path, um: float) -> None:
    slide = Slide(all_tissue, um)
    whole = slide.read(0, 0, slide.height, slide.width, channels=3).astype(int)
    for top, left in ((0, 0), (37, 61), (slide.height - 40, slide.width - 50)):
        part = slide.read(top, left, 40, 50, channels=3)
        assert np.abs(part - whole[top : top + 40, left : left + 50]).max() <= 1


def test_at_the_scale_of_the_file_pixels_are_unchanged(all_tissue: Path) -> None:
    part = Slide(all_tissue, 0.5).read(100, 200, 64, 80, channels=3)
    np.testing.assert_array_equal(part, pink_texture(1200, 1500)[100:164, 200:280])


def test_a_coarser_scale_is_the_lanczos_reduction(all_tissue: Path) -> None:
    expected = Image.fromarray(pink_texture(1200, 1500)).resize((750, 600), Image.Resampling.LANCZOS)
    slide = Slide(all_tissue, 1.0)
    difference = slide.read(0, 0, 600, 750, channels=3).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1


def test_a_scale_near_a_level_reads_that_level(all_tissue: Path) -> None:
    whole = pink_texture(1200, 1500).reshape(300, 4, 375, 4, 3).mean(axis=(1, 3)).round()
    np.testing.assert_array_equal(Slide(all_tissue, 2.0).read(8, 16, 32, 32, channels=3), whole[8:40, 16:48])


def test_the_tiles_cover_a_slide_that_is_all_tissue_once(all_tissue: Path) -> None:
    images = open_images([all_tissue], microns_per_px=0.5, min_size=48)
    assert int(images.sizes.prod(axis=1).sum()) == 1200 * 1500
    assert len(images) == 9


def test_a_slide_is_held_out_as_a_whole(tmp_path: Path) -> None:
    for name in "abc":
        write_slide(tmp_path / f"{name}.tif", pink_texture(600, 1200))
    training, held_out = split(open_images([tmp_path], microns_per_px=0.5), 0.3, seed=0, side=64)
    (slide,) = {name.partition("[")[0] for name in held_out.names}
    assert len(held_out) > 1 and not any(name.startswith(slide) for name in training.names)


def test_tiles_without_tissue_are_left_out(tmp_path: Path) -> None:
    pixels = with_tissue(2048, slice(512, 1024), slice(1024, 2048))
    images = open_images([write_slide(tmp_path / "a.tif", pixels)], microns_per_px=0.5)
    assert images.names == ("a.tif[512,1024]", "a.tif[512,1536]")


def test_a_tile_needs_half_tissue(tmp_path: Path) -> None:
    pixels = with_tissue(1024, slice(0, 512), slice(0, 512 + 192))
    images = open_images([write_slide(tmp_path / "a.tif", pixels)], microns_per_px=0.5)
    assert images.names == ("a.tif[0,0]",)


def test_a_slide_is_one_source_among_images(tmp_path: Path, all_tissue: Path) -> None:
    Image.fromarray(pink_texture(60, 70)).save(tmp_path / "b.png")
    (tmp_path / "a.tif").write_bytes(all_tissue.read_bytes())
    images = open_images([tmp_path], microns_per_px=1.0, reduce=2)
    assert images.names == ("a.tif[0,0]", "a.tif[0,512]", "a.tif[512,0]", "a.tif[512,512]", "b.png")
    assert images.sizes[-1].tolist() == [30, 35]


def test_crops_of_a_slide_are_equal_with_and_without_a_cache(all_tissue: Path) -> None:
    batches = [
        crops(open_images([all_tissue], microns_per_px=1.0, cache_bytes=n), size=48, batch=8, seed=0, step=0)
        for n in (2 << 30, 0)
    ]
    assert torch.equal(*batches)


def test_a_pyramid_without_a_chosen_scale_is_an_ordinary_image(all_tissue: Path) -> None:
    assert open_images([all_tissue]).sizes.tolist() == [[1200, 1500]]


def test_an_image_that_is_no_pyramid_stays_an_image(tmp_path: Path) -> None:
    Image.fromarray(pink_texture(60, 70)).save(tmp_path / "a.tif")
    assert open_images([tmp_path], microns_per_px=1.0).names == ("a.tif",)


def test_a_gray_slide_of_16_bit_is_read(tmp_path: Path) -> None:
    pixels = pink_texture(600, 600)[..., 1].astype(np.uint16) * 257
    images = open_images([write_slide(tmp_path / "a.tif", pixels)], microns_per_px=0.5, channels=1)
    np.testing.assert_array_equal(images[0], pink_texture(600, 600)[:512, :512, 1:2])


@pytest.mark.parametrize("um", [None, 25_400 / 72], ids=["no tags", "72 dots per inch"])
def test_a_slide_of_unknown_resolution_says_what_to_do(tmp_path: Path, um: float | None) -> None:
    path = write_slide(tmp_path / "a.tif", pink_texture(600, 600), um)
    with pytest.raises(ValueError, match=r"a\.tif: its resolution is unknown; write it into the file"):
        open_images([path], microns_per_px=1.0)


def test_a_slide_is_not_enlarged(all_tissue: Path) -> None:
    with pytest.raises(ValueError, match=r"its pixels are 0\.5 um wide.* take 0\.5 or more"):
        open_images([all_tissue], microns_per_px=0.25)


def test_a_slide_without_tissue_says_so(tmp_path: Path) -> None:
    pixels = np.full((600, 600, 3), BACKGROUND, dtype=np.uint8)
    with pytest.raises(ValueError, match="holds no tile of at least 48 px of which half is tissue"):
        open_images([write_slide(tmp_path / "a.tif", pixels)], microns_per_px=0.5, min_size=48)


def test_a_slide_format_needs_a_scale(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    with pytest.raises(ValueError, match=r"a\.svs: a slide needs a scale; give it"):
        open_images([tmp_path])


def test_a_damaged_slide_is_left_out_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"no slide")
    Image.fromarray(pink_texture(60, 70)).save(tmp_path / "b.png")
    images = open_images([tmp_path], microns_per_px=1.0)
    assert images.names == ("b.png",)
    assert images.skipped[0].text.startswith("unreadable as a slide")


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg", "jpeg2000"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_tiled_pyramid_is_a_slide_however_it_is_stored(
    tmp_path: Path, bigtiff: bool, compression: str | None
) -> None:
    path = write_slide(tmp_path / "a.tif", pink_texture(600, 600), bigtiff=bigtiff, compression=compression)
    assert open_images([path], microns_per_px=1.0, strict=True).names == ("a.tif[0,0]",)


def test_the_tiles_of_a_slide_that_are_damaged_are_left_out(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", pink_texture(1024, 1024), compression="zlib")
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start : start + 100] = bytes(100)
    path.write_bytes(content)
    images = open_images([path], microns_per_px=0.5)
    assert images.names == ("a.tif[0,512]", "a.tif[512,0]", "a.tif[512,512]")
    assert images.skipped[0].name == "a.tif[0,0]"
    assert images.skipped[0].text.startswith("unreadable at level 0")


def test_a_truncated_slide_never_fails_after_it_is_opened(tmp_path: Path, all_tissue: Path) -> None:
    content = all_tissue.read_bytes()
    (tmp_path / "a.svs").write_bytes(content[: len(content) * 2 // 3])
    Image.fromarray(pink_texture(60, 70)).save(tmp_path / "b.png")
    images = open_images([tmp_path], microns_per_px=0.5, cache_bytes=0)
    assert images.skipped
    assert all(image.any(axis=2).all() for image in images)


def test_a_slide_in_a_zip_file_is_left_out_with_the_reason(tmp_path: Path) -> None:
    Image.fromarray(pink_texture(60, 70)).save(tmp_path / "b.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "b.png", "b.png")
        archive.writestr("a.svs", b"slide")
    images = open_images([tmp_path / "a.zip"], microns_per_px=1.0)
    assert images.skipped == (("a.svs", "slides are not read from zip files; unpack it"),)


def write_svs(path: Path, mpp: str) -> Path:
    """Write a slide as Aperio's scanners do."""
    pixels = pink_texture(1024, 1024)
    text = f"Aperio Image Library v12\n1024x1024 (256x256)|AppMag = 20|MPP = {mpp}"
    with tifffile.TiffWriter(path) as writer:
        for number, level in enumerate((pixels, pixels[::4, ::4])):
            more = {"description": text} if number == 0 else {"description": "Aperio", "subfiletype": 1}
            writer.write(level, tile=(128, 128), photometric="rgb", metadata=None, **more)
    return path


@pytest.mark.parametrize("mpp", ["0.5", "0,5"])
def test_the_scale_of_a_scanner_may_have_a_decimal_comma(tmp_path: Path, mpp: str) -> None:
    assert Slide(write_svs(tmp_path / "a.svs", mpp), 0.5).width == 1024


def test_a_slide_whose_scale_cannot_be_read_is_left_out_alone(tmp_path: Path) -> None:
    write_svs(tmp_path / "a.svs", "half"), write_svs(tmp_path / "b.svs", "0.5")
    images = open_images([tmp_path], microns_per_px=0.5)
    assert {name.partition("[")[0] for name in images.names} == {"b.svs"}
    assert [remark.name for remark in images.skipped] == ["a.svs"]
    assert images.skipped[0].text.startswith("its resolution is unknown")


def test_the_scale_may_stand_in_the_ome_xml_alone(tmp_path: Path) -> None:
    pixels = pink_texture(600, 600)
    size = {"axes": "YXS", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        options = {"tile": (128, 128), "photometric": "rgb"}
        writer.write(pixels, subifds=1, metadata=size, **options)
        writer.write(pixels[::4, ::4], subfiletype=1, **options)
    assert Slide(tmp_path / "a.ome.tif", 1.0).width == 300


def with_gap(path: Path) -> Path:
    """Take the second tile of the finest level from a file: a place that was not scanned."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages[0].tags[name]
            tag.overwrite([0 if number == 1 else value for number, value in enumerate(tag.value)])
    return path


def test_what_was_not_scanned_is_white(tmp_path: Path) -> None:
    path = with_gap(write_slide(tmp_path / "a.tif", pink_texture(600, 600)))
    expected = pink_texture(600, 600)
    expected[:128, 128:256] = 255
    np.testing.assert_array_equal(Slide(path, 0.5).read(0, 0, 600, 600, channels=3), expected)


def test_without_tiffslide_the_install_command_is_named(
    all_tissue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tiffslide", None)
    with pytest.raises(ValueError, match=r"pip install 'diffnca\[slides\]'"):
        open_images([all_tissue], microns_per_px=1.0)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((200, 120, 170), True),
        ((90, 90, 95), True),
        ((240, 240, 241), False),
        ((0, 0, 0), False),
        ((185, 184, 186), False),
    ],
    ids=["stained", "dark", "bright", "black", "gray"],
)
def test_tissue_is_coloured_or_dark_but_not_black(colour: tuple[int, int, int], expected: bool) -> None:
    overview = np.full((8, 8, 3), colour, dtype=np.uint8)
    assert bool(tissue(overview, 220).all()) is expected
    assert bool(tissue(overview, 220).any()) is expected


def test_pale_tissue_is_told_from_tinted_background() -> None:
    overview = np.full((20, 20, 3), (222, 214, 216), dtype=np.uint8)
    overview[:10] = (215, 180, 205)
    np.testing.assert_array_equal(tissue(overview, 220)[:, 0], np.arange(20) < 10)
