"""OME-TIFF files: what others read of them, no half-written file, the same bytes each time."""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")
import tifffile

from diffnca.canvas.region import Canvas
from diffnca.formats.ome_tiff import check_tiff, read_ome_tiff_text, write_ome_tiff
from diffnca.formats.ome_zarr import OmeZarrWriter

TEXT = {"diffnca:seed": "7", "Software": "diffnca 0.1", "diffnca:model": "a <b> & c"}


@pytest.fixture(params=[1, 3])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An OME-Zarr image of smooth pixels, which JPEG keeps nearly as they are."""
    return make(tmp_path, request.param)


@functools.cache
def files_of(channels: int, microns: float | None) -> dict[str, bytes]:
    """Return the files of an OME-Zarr image."""
    with tempfile.TemporaryDirectory() as folder:
        writer = OmeZarrWriter(f"{folder}/x.ome.zarr", microns, 512, 256)
        writer.open(Canvas(700, 530), channels, TEXT)
        y, x = np.mgrid[:700, :530]
        planes = [127 + 100 * np.sin(y / 90 + c) * np.cos(x / 70) for c in range(channels)]
        pixels = np.stack(planes, axis=-1).astype(np.uint8)
        for tile in Canvas(700, 530).whole.tiles(512, 512):
            writer.write(tile, pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width])
        writer.close()
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def make(folder: Path, channels: int = 3, microns: float | None = 0.5) -> str:
    for name, content in files_of(channels, microns).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder / "x.ome.zarr")


def levels_of(url: str) -> list[np.ndarray]:
    group = zarr.open_group(url, mode="r")
    levels: list[Any] = [group[name] for name in sorted(group.array_keys())]
    return [np.moveaxis(np.asarray(level[...]), 0, -1).squeeze() for level in levels]


def written(source: str, folder: Path, compression: Any = "deflate") -> Path:
    path = folder / "x.ome.tif"
    write_ome_tiff(source, path, compression)
    return path


def test_every_level_comes_back_without_loss(source: str, tmp_path: Path) -> None:
    with tifffile.TiffFile(written(source, tmp_path)) as tiff:
        there = [level.asarray() for level in tiff.series[0].levels]
    assert [level.shape for level in there] == [level.shape for level in levels_of(source)]
    assert all(np.array_equal(a, b) for a, b in zip(there, levels_of(source), strict=True))


def test_jpeg_keeps_smooth_pixels_within_a_few_levels(source: str, tmp_path: Path) -> None:
    pixels = tifffile.imread(written(source, tmp_path, "jpeg")).astype(int)
    assert np.abs(pixels - levels_of(source)[0]).max() <= 6


def test_the_file_is_a_tiled_bigtiff_with_its_levels_below(source: str, tmp_path: Path) -> None:
    with tifffile.TiffFile(written(source, tmp_path)) as tiff:
        assert tiff.is_bigtiff and tiff.is_ome and len(tiff.pages) == 1
        assert tiff.pages[0].tile == (256, 256) and len(tiff.pages[0].subifds) == 2


def test_the_ome_xml_is_valid(source: str, tmp_path: Path) -> None:
    ome_types = pytest.importorskip("ome_types")
    xmlschema = pytest.importorskip("xmlschema")
    path = next(Path(ome_types.__file__).parent.rglob("ome-2016-06.xsd"))
    with tifffile.TiffFile(written(source, tmp_path)) as tiff:
        schema_at(xmlschema, path).validate(tiff.ome_metadata)


@functools.cache
def schema_at(xmlschema: Any, path: Path) -> Any:
    return xmlschema.XMLSchema(path)


def test_the_ome_xml_tells_the_pixel_size(source: str, tmp_path: Path) -> None:
    ome_types = pytest.importorskip("ome_types")
    pixels = ome_types.from_tiff(written(source, tmp_path)).images[0].pixels
    assert (pixels.physical_size_x, pixels.physical_size_y) == (0.5, 0.5)
    assert pixels.physical_size_x_unit.value == "µm"


@pytest.mark.parametrize("ending", [".ome.tif", ".ome.tiff", ".tif"])
def test_the_image_has_the_name_of_its_file(tmp_path: Path, ending: str) -> None:
    ome_types = pytest.importorskip("ome_types")
    write_ome_tiff(make(tmp_path), tmp_path / f"slide.7{ending}")
    assert ome_types.from_tiff(tmp_path / f"slide.7{ending}").images[0].name == "slide.7"


def test_what_was_said_of_the_image_comes_back(source: str, tmp_path: Path) -> None:
    assert read_ome_tiff_text(written(source, tmp_path)) == TEXT


@pytest.mark.parametrize("key", ["0/c/0/0/0", "0/c/0/1/1", "1/c/0/0/0"])
def test_a_damaged_shard_of_the_source_is_named(tmp_path: Path, key: str) -> None:
    url = make(tmp_path)
    shard = Path(url) / key
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"x\.ome\.zarr/{key}: is damaged \(.*\); delete it"):
        written(url, tmp_path)


class TestTiffslide:
    def test_reads_the_pixel_size(self, tmp_path: Path) -> None:
        with pytest.importorskip("tiffslide").TiffSlide(written(make(tmp_path), tmp_path)) as slide:
            assert float(slide.properties["tiffslide.mpp-x"]) == pytest.approx(0.5)

    def test_reads_the_levels(self, tmp_path: Path) -> None:
        with pytest.importorskip("tiffslide").TiffSlide(written(make(tmp_path), tmp_path)) as slide:
            assert slide.level_dimensions == ((530, 700), (265, 350), (133, 175))

    def test_reads_the_pixels(self, tmp_path: Path) -> None:
        url = make(tmp_path)
        with pytest.importorskip("tiffslide").TiffSlide(written(url, tmp_path)) as slide:
            pixels = np.asarray(slide.read_region((100, 200), 0, (300, 250)))
            assert np.array_equal(pixels, levels_of(url)[0][200:450, 100:400])

    def test_reads_the_factors_of_the_levels(self, tmp_path: Path) -> None:
        with pytest.importorskip("tiffslide").TiffSlide(written(make(tmp_path), tmp_path)) as slide:
            assert slide.level_downsamples == pytest.approx(
                (1.0, 2.0, 4.0), abs=0.02
            )  # odd sides are rounded up

    def test_reads_jpeg(self, tmp_path: Path) -> None:
        url = make(tmp_path)
        with pytest.importorskip("tiffslide").TiffSlide(written(url, tmp_path, "jpeg")) as slide:
            pixels = np.asarray(slide.read_region((100, 200), 0, (300, 250))).astype(int)
            assert np.abs(pixels - levels_of(url)[0][200:450, 100:400]).max() <= 6


class TestOpenSlide:
    def test_reads_jpeg(self, tmp_path: Path) -> None:
        openslide = pytest.importorskip("openslide")
        url = make(tmp_path)
        with openslide.OpenSlide(written(url, tmp_path, "jpeg")) as slide:
            pixels = np.asarray(slide.read_region((100, 200), 0, (300, 250)).convert("RGB")).astype(int)
            assert np.abs(pixels - levels_of(url)[0][200:450, 100:400]).max() <= 6

    def test_reads_the_pixels(self, tmp_path: Path) -> None:
        openslide = pytest.importorskip("openslide")
        url = make(tmp_path)
        with openslide.OpenSlide(written(url, tmp_path)) as slide:
            assert slide.dimensions == (530, 700)  # it knows no SubIFDs, and so no other level
            pixels = np.asarray(slide.read_region((100, 200), 0, (300, 250)).convert("RGB"))
            assert np.array_equal(pixels, levels_of(url)[0][200:450, 100:400])

    def test_reads_the_pixel_size(self, tmp_path: Path) -> None:
        openslide = pytest.importorskip("openslide")
        with openslide.OpenSlide(written(make(tmp_path), tmp_path)) as slide:
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)


def test_an_image_without_a_pixel_size_has_none(tmp_path: Path) -> None:
    with tifffile.TiffFile(written(make(tmp_path, microns=None), tmp_path)) as tiff:
        assert "PhysicalSize" not in tiff.ome_metadata


def test_the_same_image_gives_the_same_bytes(source: str, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, second = written(source, tmp_path, "jpeg"), written(source, tmp_path / "again", "jpeg")
    assert first.read_bytes() == second.read_bytes()


def test_a_stop_leaves_no_file(source: str, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_ome_tiff(source, tmp_path / "x.ome.tif", progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_source_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    writer = OmeZarrWriter(str(tmp_path / "x.ome.zarr"), None, 16, 16)
    writer.open(Canvas(20, 20), 3, {})
    with pytest.raises(ValueError, match="is not finished"):
        write_ome_tiff(writer.url, tmp_path / "x.ome.tif")


def test_a_missing_folder_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; create it first"):
        write_ome_tiff(source, tmp_path / "missing" / "x.ome.tif")


@pytest.mark.parametrize(
    ("name", "message"), [("x.png", r"must end in \.tif or \.tiff"), ("folder.tif", "is a folder")]
)
def test_a_file_that_cannot_be_written_is_refused(
    source: str, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(ValueError, match=message):
        write_ome_tiff(source, tmp_path / name)


def test_another_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compression='lzw': must be 'jpeg' or 'deflate'"):
        check_tiff(tmp_path / "x.tif", "lzw")


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.ome.zarr: is no OME-Zarr image"):
        write_ome_tiff(str(tmp_path / "none.ome.zarr"), tmp_path / "x.ome.tif")


@pytest.mark.parametrize("level", [0, 1])
def test_a_source_that_lacks_a_shard_is_refused(tmp_path: Path, level: int) -> None:
    url = make(tmp_path)
    (Path(url) / f"{level}/c/0/0/0").unlink()
    with pytest.raises(ValueError, match=f"{level}/c/0/0/0 is missing"):
        write_ome_tiff(url, tmp_path / "x.ome.tif")


def test_a_source_with_an_empty_shard_is_refused(tmp_path: Path) -> None:
    url = make(tmp_path)
    (Path(url) / "1/c/0/0/0").write_bytes(b"")
    with pytest.raises(ValueError, match="1/c/0/0/0 is empty"):
        write_ome_tiff(url, tmp_path / "x.ome.tif")


def test_a_source_that_lacks_a_level_is_refused(tmp_path: Path) -> None:
    url = make(tmp_path)
    (Path(url) / "1/zarr.json").unlink()
    with pytest.raises(ValueError, match="level 1 is missing"):
        write_ome_tiff(url, tmp_path / "x.ome.tif")


def test_without_zarr_the_install_command_is_told() -> None:
    code = "import sys; sys.modules['zarr'] = None; import diffnca.formats.ome_tiff"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "pip install 'diffnca[giga]'" in told


class TestDamagedFile:
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
    def test_that_is_cut_is_not_taken_for_finished(self, tmp_path: Path, share: float) -> None:
        path = written(make(tmp_path), tmp_path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(ValueError, match=r"x\.ome\.tif: is there, and (cut short|damaged|no TIFF)"):
            read_ome_tiff_text(path)

    @pytest.mark.parametrize("xml", ["<OME", "<OME><x></OME>", "<OME>" * 3 + "&no;", "\0"])
    def test_whose_xml_cannot_be_read_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xml: str
    ) -> None:
        path = written(make(tmp_path), tmp_path)
        monkeypatch.setattr(tifffile.TiffFile, "ome_metadata", xml)
        with pytest.raises(ValueError, match=r"x\.ome\.tif: is there, and damaged \([^\n]*\); delete it"):
            read_ome_tiff_text(path)
