"""OME-Zarr images: what was written is read by others, restarts change nothing, damage is named."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from diffnca.geometry import Canvas, Region
from diffnca.writers.ome_zarr import OmeZarrWriter, read_pixels, verify
from diffnca.writers.pyramid import halved, level_shapes

TEXT = {"diffnca:seed": "7", "Software": "diffnca"}


def random_pixels(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def writer_at(folder: Path, shard: int = 16, chunk: int = 8, microns: float | None = 0.5) -> OmeZarrWriter:
    return OmeZarrWriter(str(folder / "x.ome.zarr"), microns, shard, chunk)


def write_all(writer: OmeZarrWriter, pixels: np.ndarray, backwards: bool = False) -> None:
    canvas = Canvas(*pixels.shape[:2])
    writer.open(canvas, pixels.shape[2], TEXT)
    tiles = list(canvas.whole.tiles(writer.shard_px, 2 * writer.shard_px))
    for tile in reversed(tiles) if backwards else tiles:
        writer.write(tile, part(pixels, tile))


def part(pixels: np.ndarray, tile: Region) -> np.ndarray:
    return pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]


def finished(folder: Path, height: int = 600, width: int = 41, channels: int = 3) -> OmeZarrWriter:
    writer = writer_at(folder)
    write_all(writer, random_pixels(height, width, channels))
    writer.close()
    return writer


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (33, 16)])
def test_pixels_come_back(tmp_path: Path, height: int, width: int, channels: int) -> None:
    pixels = random_pixels(height, width, channels)
    writer = writer_at(tmp_path)
    write_all(writer, pixels)
    writer.close()
    assert np.array_equal(read_pixels(writer.url), pixels)


def test_the_order_of_the_tiles_changes_no_byte(tmp_path: Path) -> None:
    for name, backwards in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        writer = writer_at(tmp_path / name)
        write_all(writer, random_pixels(40, 90), backwards)
        writer.close()
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_a_stop_at_any_time_changes_no_byte(tmp_path: Path) -> None:
    pixels, whole = random_pixels(600, 41), tmp_path / "whole"
    whole.mkdir()
    finished(whole)
    writer = writer_at(tmp_path)
    writer.open(Canvas(600, 41), 3, TEXT)
    for tile in list(Canvas(600, 41).whole.tiles(16, 16))[:50]:
        writer.write(tile, part(pixels, tile))
    write_all(writer_at(tmp_path), pixels)

    def stop(done: int, total: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer_at(tmp_path).close(stop)
    (tmp_path / "x.ome.zarr" / "1" / "zarr.123.partial").write_bytes(b"killed")
    writer_at(tmp_path).close()
    assert bytes_of(tmp_path / "x.ome.zarr") == bytes_of(whole / "x.ome.zarr")


def test_a_region_is_written_when_all_its_shards_are(tmp_path: Path) -> None:
    canvas, writer = Canvas(32, 32), writer_at(tmp_path)
    writer.open(canvas, 3, TEXT)
    left = Region(0, 0, 32, 16, canvas)
    assert not writer.is_written(left)
    writer.write(left, np.zeros((32, 16, 3), np.uint8))  # black, as what is not there
    assert writer.is_written(left) and not writer.is_written(canvas.whole)


@pytest.mark.parametrize("region", [(8, 0, 16, 16), (0, 0, 8, 16), (0, 0, 16, 20)])
def test_a_region_that_shares_a_shard_with_another_is_refused(tmp_path: Path, region: tuple) -> None:
    canvas, writer = Canvas(64, 64), writer_at(tmp_path)
    writer.open(canvas, 3, TEXT)
    with pytest.raises(ValueError, match="must be a union of shards of 16 px"):
        writer.write(Region(*region, canvas), np.zeros((*region[2:], 3), np.uint8))


def test_an_image_is_none_before_it_is_finished(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    write_all(writer, random_pixels(20, 20))
    assert not writer.is_finished
    writer.close()
    assert writer.is_finished


def test_what_was_said_of_the_image_comes_back(tmp_path: Path) -> None:
    assert finished(tmp_path).read_text() == TEXT


def test_an_image_of_another_shape_is_refused(tmp_path: Path) -> None:
    writer_at(tmp_path).open(Canvas(20, 20), 3, TEXT)
    with pytest.raises(ValueError, match="holds an image of shape and shards"):
        writer_at(tmp_path).open(Canvas(20, 21), 3, TEXT)


@pytest.mark.parametrize(
    ("url", "sides", "message"),
    [
        ("x.tif", (16, 8), r"must end in \.ome\.zarr"),
        ("x.ome.zarr", (16, 5), "shard=16 px: must be a multiple of the chunk, 5 px"),
    ],
)
def test_what_cannot_be_written_is_refused(url: str, sides: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OmeZarrWriter(url, None, *sides)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; create it first"):
        writer_at(tmp_path / "missing").open(Canvas(2, 2), 3, TEXT)


def test_an_address_of_fsspec_is_written() -> None:
    writer = OmeZarrWriter("memory://pixels/x.ome.zarr", None, 16, 8)
    write_all(writer, random_pixels(20, 20))
    writer.close()
    assert np.array_equal(read_pixels(writer.url), random_pixels(20, 20))
    assert verify(writer.url) == []


class TestPyramid:
    @settings(deadline=None, max_examples=30)
    @given(st.integers(1, 9), st.integers(1, 9))
    def test_a_pixel_is_the_mean_of_those_below_halves_up(self, height: int, width: int) -> None:
        pixels = np.moveaxis(random_pixels(height, width), -1, 0)
        half = halved(pixels)
        for y, x in np.ndindex(half.shape[1:]):
            below = pixels[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(float)
            assert np.array_equal(half[:, y, x], np.floor(below.mean((1, 2)) + 0.5))

    @given(st.integers(1, 100_000), st.integers(1, 100_000))
    def test_each_level_is_half_the_one_before_down_to_a_tile(self, height: int, width: int) -> None:
        shapes = level_shapes(height, width)
        assert shapes[0] == (height, width) and max(shapes[-1]) <= 256
        assert all(b == (-(-a[0] // 2), -(-a[1] // 2)) for a, b in itertools.pairwise(shapes))
        assert len(shapes) == 1 or max(shapes[-2]) > 256

    def test_levels_in_the_file_are_halves_of_each_other(self, tmp_path: Path) -> None:
        group = zarr.open_group(finished(tmp_path).url, mode="r")
        levels = [np.asarray(group[str(level)][...]) for level in range(3)]
        assert all(np.array_equal(halved(a), b) for a, b in itertools.pairwise(levels))


class TestOtherReaders:
    def test_ome_zarr_py_reads_all_levels(self, tmp_path: Path) -> None:
        pytest.importorskip("ome_zarr")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        levels = next(iter(Reader(parse_url(finished(tmp_path).url))())).data
        assert [level.shape for level in levels] == [(3, 600, 41), (3, 300, 21), (3, 150, 11)]
        assert np.array_equal(np.asarray(levels[0]), np.moveaxis(random_pixels(600, 41), -1, 0))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_the_metadata_are_valid_ngff(self, tmp_path: Path, channels: int) -> None:
        models = pytest.importorskip("ome_zarr_models.v05.image")
        image = models.Image.from_zarr(zarr.open_group(finished(tmp_path, channels=channels).url, mode="r"))
        assert [axis.unit for axis in image.ome_attributes.multiscales[0].axes] == [
            None,
            "micrometer",
            "micrometer",
        ]

    def test_the_centres_of_pixels_lie_where_those_below_have_their_mean(self, tmp_path: Path) -> None:
        ome = zarr.open_group(finished(tmp_path).url, mode="r").attrs["ome"]
        transformations = [d["coordinateTransformations"] for d in ome["multiscales"][0]["datasets"]]
        assert transformations[0] == [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
        assert transformations[2] == [
            {"type": "scale", "scale": [1.0, 2.0, 2.0]},
            {"type": "translation", "translation": [0.0, 0.75, 0.75]},  # mean of 0, 0.5, 1, 1.5
        ]


class TestVerify:
    def test_finds_nothing_in_a_whole_image(self, tmp_path: Path) -> None:
        assert verify(finished(tmp_path).url) == []

    def test_names_a_missing_shard(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        (Path(writer.url) / "1/c/0/2/1").unlink()
        assert verify(writer.url) == ["1/c/0/2/1 is missing"]

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
    def test_names_a_shard_with_a_flipped_bit(self, tmp_path: Path, share: float) -> None:
        writer = finished(tmp_path)
        shard = Path(writer.url) / "0/c/0/3/0"
        content = bytearray(shard.read_bytes())
        content[int(share * len(content))] ^= 1
        shard.write_bytes(content)
        assert [line.split(" (")[0] for line in verify(writer.url)] == ["0/c/0/3/0 is damaged"]

    def test_names_a_shard_that_was_cut_off(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        shard = Path(writer.url) / "0/c/0/3/0"
        shard.write_bytes(shard.read_bytes()[:-20])
        assert [line.split(" (")[0] for line in verify(writer.url)] == ["0/c/0/3/0 is damaged"]

    def test_says_that_an_image_is_not_finished(self, tmp_path: Path) -> None:
        writer = writer_at(tmp_path)
        write_all(writer, random_pixels(20, 20))
        assert verify(writer.url) == ["is not finished; the command that makes it goes on with it"]

    def test_names_a_missing_level(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        (Path(writer.url) / "1/zarr.json").unlink()
        assert verify(writer.url) == ["level 1 is missing"]
