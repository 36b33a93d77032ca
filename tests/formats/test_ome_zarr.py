"""OME-Zarr images: what was written is read by others, restarts change nothing, damage is named."""

import functools
import itertools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from diffnca.canvas.region import Canvas, Region
from diffnca.formats.ome_zarr import OmeZarrWriter, read_pixels, verify
from diffnca.formats.pyramid import halved, level_shapes

HEX = "0123456789abcdef" * 2
"""What zarr writes into the names of files that it is writing."""

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


@functools.cache
def finished_files(channels: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        writer = writer_at(Path(folder), shard=128, chunk=32)
        write_all(writer, random_pixels(600, 300, channels))
        writer.close()
        return bytes_of(Path(folder))


def finished(folder: Path, channels: int = 3) -> OmeZarrWriter:
    for name, content in finished_files(channels).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return writer_at(folder, shard=128, chunk=32)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 40), st.integers(1, 40))
def test_images_of_any_size_come_back_whole(height: int, width: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer, pixels = writer_at(Path(folder)), random_pixels(height, width)
        write_all(writer, pixels)
        writer.close()
        assert np.array_equal(read_pixels(writer.url), pixels) and verify(writer.url) == []


def test_the_order_of_the_tiles_changes_no_byte(tmp_path: Path) -> None:
    for name, backwards in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        writer = writer_at(tmp_path / name)
        write_all(writer, random_pixels(40, 90), backwards)
        writer.close()
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


@pytest.mark.parametrize("stop_at", [2, 7])
def test_a_stop_at_any_time_changes_no_byte(tmp_path: Path, stop_at: int) -> None:
    pixels, whole = random_pixels(600, 300), tmp_path / "whole"
    whole.mkdir()
    finished(whole)
    writer = writer_at(tmp_path, 128, 32)
    writer.open(Canvas(600, 300), 3, TEXT)
    for tile in list(Canvas(600, 300).whole.tiles(128, 128))[:7]:
        writer.write(tile, part(pixels, tile))
    write_all(writer_at(tmp_path, 128, 32), pixels)

    def stop(done: int, total: int) -> None:
        if done == stop_at:  # the levels have 6 and 2 shards
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer_at(tmp_path, 128, 32).close(stop)
    (tmp_path / "x.ome.zarr" / "1" / f"zarr.{HEX}.partial").write_bytes(b"killed")
    writer_at(tmp_path, 128, 32).close()
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
    with pytest.raises(ValueError, match="holds an image of shape"):
        writer_at(tmp_path).open(Canvas(20, 21), 3, TEXT)


@pytest.mark.parametrize(
    ("url", "sides", "message"),
    [
        ("x.tif", (16, 8), r"must end in \.ome\.zarr"),
        ("x.ome.zarr", (16, 5), "shard=16 px: must be a multiple of the chunk, 5 px"),
        ("x.ome.zarr", (0, 8), "shard=0 px: must be a multiple of the chunk, 8 px"),
    ],
)
def test_what_cannot_be_written_is_refused(url: str, sides: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OmeZarrWriter(url, None, *sides)


@pytest.mark.parametrize("microns", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_no_size_is_refused(microns: float) -> None:
    with pytest.raises(ValueError, match="must be a positive number of micrometres"):
        OmeZarrWriter("x.ome.zarr", microns)


def test_an_image_of_other_chunks_is_refused(tmp_path: Path) -> None:
    writer_at(tmp_path).open(Canvas(20, 20), 3, TEXT)
    with pytest.raises(ValueError, match="holds an image of shape"):
        writer_at(tmp_path, chunk=4).open(Canvas(20, 20), 3, TEXT)


def test_a_file_in_the_place_of_the_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ome.zarr").write_text("a file")
    with pytest.raises(ValueError, match="is a file"):
        writer_at(tmp_path).open(Canvas(20, 20), 3, TEXT)


@pytest.mark.parametrize("top", [-16, 48])
def test_a_region_over_the_edge_of_a_circular_canvas_is_refused(tmp_path: Path, top: int) -> None:
    canvas, writer = Canvas(64, 64, ("circular", "circular")), writer_at(tmp_path)
    writer.open(canvas, 3, TEXT)
    with pytest.raises(ValueError, match="must lie within the canvas"):
        writer.write(Region(top, 0, 32, 16, canvas), np.zeros((32, 16, 3), np.uint8))


def test_pixels_of_another_shape_than_their_region_are_refused(tmp_path: Path) -> None:
    canvas, writer = Canvas(64, 64), writer_at(tmp_path)
    writer.open(canvas, 3, TEXT)
    with pytest.raises(ValueError, match=r"pixels of shape \(32, 32, 3\): must be \(16, 16, 3\)"):
        writer.write(Region(0, 0, 16, 16, canvas), np.zeros((32, 32, 3), np.uint8))


def test_an_empty_shard_is_not_written(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    write_all(writer, random_pixels(40, 40))
    (Path(writer.url) / "0/c/0/1/2").write_bytes(b"")
    assert not writer.is_written(Canvas(40, 40).whole)


def test_an_image_that_lacks_a_shard_is_not_finished(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    write_all(writer, random_pixels(40, 40))
    (Path(writer.url) / "0/c/0/1/2").unlink()
    with pytest.raises(ValueError, match="1 of 9 shards are missing or empty, the first is 0/c/0/1/2"):
        writer.close()
    assert not writer.is_finished


def flip(file: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_shard_that_the_levels_are_made_of_is_named_with_the_remedy(tmp_path: Path) -> None:
    writer = writer_at(tmp_path, 128, 32)
    write_all(writer, random_pixels(600, 300))
    flip(Path(writer.url) / "0/c/0/3/1")
    with pytest.raises(ValueError, match=r"0/c/0/3/1: is damaged \(.*\); delete it, then the command"):
        writer.close()


def test_a_damaged_shard_of_a_level_is_made_again_once_it_is_deleted(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 6:  # all of level 1
            raise KeyboardInterrupt

    writer, shard = writer_at(tmp_path, 128, 32), tmp_path / "x.ome.zarr" / "1/c/0/1/0"
    write_all(writer, random_pixels(600, 300))
    with pytest.raises(KeyboardInterrupt):
        writer.close(stop)
    flip(shard)
    with pytest.raises(ValueError, match=r"1/c/0/1/0: is damaged"):
        writer.close()
    shard.unlink()
    writer.close()
    assert verify(writer.url) == []


def test_an_empty_shard_of_a_level_is_made_again(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 6:  # all of level 1
            raise KeyboardInterrupt

    writer = writer_at(tmp_path, 128, 32)
    write_all(writer, random_pixels(600, 300))
    with pytest.raises(KeyboardInterrupt):
        writer.close(stop)
    (Path(writer.url) / "1/c/0/1/0").write_bytes(b"")
    writer.close()
    assert bytes_of(tmp_path) == finished_files(3)


def test_without_zarr_the_install_command_is_told() -> None:
    code = "import sys; sys.modules['zarr'] = None; import diffnca.formats.ome_zarr"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "pip install 'diffnca[giga]'" in told


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; create it first"):
        writer_at(tmp_path / "missing").open(Canvas(2, 2), 3, TEXT)


def test_an_address_of_fsspec_is_written() -> None:
    writer = OmeZarrWriter("memory://pixels/x.ome.zarr", None, 16, 8)
    write_all(writer, random_pixels(20, 20))
    writer.close()
    assert np.array_equal(read_pixels(writer.url), random_pixels(20, 20))
    assert verify(writer.url) == []


def test_an_empty_shard_at_an_address_of_fsspec_is_named() -> None:
    writer = OmeZarrWriter("memory://empty/x.ome.zarr", None, 16, 8)
    write_all(writer, random_pixels(20, 20))
    writer.close()
    fsspec.filesystem("memory").pipe_file("/empty/x.ome.zarr/0/c/0/1/0", b"")
    assert verify(writer.url) == ["0/c/0/1/0 is empty"]


@pytest.mark.parametrize(
    "change",
    [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:-9])],
    ids=["missing", "empty", "cut"],
)
def test_a_shard_that_is_missing_or_cut_is_named_and_not_read_as_black(tmp_path: Path, change: Any) -> None:
    writer = finished(tmp_path)
    change(Path(writer.url) / "0/c/0/3/1")
    message = r"x\.ome\.zarr/0/c/0/3/1: is (missing|empty|damaged \(.*\)); delete it"
    with pytest.raises(ValueError, match=message):
        read_pixels(writer.url)


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
    def test_ome_zarr_py_finds_no_image_before_it_is_finished(self, tmp_path: Path) -> None:
        pytest.importorskip("ome_zarr")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        writer = writer_at(tmp_path)
        write_all(writer, random_pixels(20, 20))
        assert list(Reader(parse_url(writer.url))()) == []

    def test_ome_zarr_py_reads_all_levels(self, tmp_path: Path) -> None:
        pytest.importorskip("ome_zarr")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        levels = next(iter(Reader(parse_url(finished(tmp_path).url))())).data
        assert [level.shape for level in levels] == [(3, 600, 300), (3, 300, 150), (3, 150, 75)]
        assert np.array_equal(np.asarray(levels[0]), np.moveaxis(random_pixels(600, 300), -1, 0))

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


def channels_of(writer: OmeZarrWriter) -> list[Any]:
    ome: Any = zarr.open_group(writer.url, mode="r").attrs["ome"]
    return list(ome["omero"]["channels"])


def mapped(folder: Path, channels: int) -> OmeZarrWriter:
    """Make an image with a map of two classes."""
    writer = OmeZarrWriter(str(folder / "x.ome.zarr"), None, 16, 8, ("stroma", "gland"))
    write_all(writer, random_pixels(20, 20, channels + 2))
    writer.close()
    return writer


@pytest.mark.parametrize(("channels", "names"), [(1, ["Channel 0"]), (3, ["Red", "Green", "Blue"])])
def test_the_planes_of_a_map_have_the_names_of_their_classes(
    tmp_path: Path, channels: int, names: list[str]
) -> None:
    labels = [channel["label"] for channel in channels_of(mapped(tmp_path, channels))]
    assert labels == [*names, "stroma", "gland"]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_planes_of_a_map_are_not_shown_at_first(tmp_path: Path, channels: int) -> None:
    active = [channel["active"] for channel in channels_of(mapped(tmp_path, channels))]
    assert active == [True] * channels + [False] * 2


class TestVerify:
    def test_finds_nothing_in_a_whole_image(self, tmp_path: Path) -> None:
        assert verify(finished(tmp_path).url) == []

    def test_names_a_missing_shard(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        (Path(writer.url) / "1/c/0/2/1").unlink()
        assert verify(writer.url) == ["1/c/0/2/1 is missing"]

    def test_names_an_empty_shard(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        (Path(writer.url) / "1/c/0/2/1").write_bytes(b"")
        assert verify(writer.url) == ["1/c/0/2/1 is empty"]

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
    def test_names_a_shard_with_a_flipped_bit(self, tmp_path: Path, share: float) -> None:
        writer = finished(tmp_path)
        shard = Path(writer.url) / "0/c/0/3/1"
        content = bytearray(shard.read_bytes())
        content[int(share * len(content))] ^= 1
        shard.write_bytes(content)
        assert [line.split(" (")[0] for line in verify(writer.url)] == ["0/c/0/3/1 is damaged"]

    def test_names_a_shard_that_was_cut_off(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        shard = Path(writer.url) / "0/c/0/3/1"
        shard.write_bytes(shard.read_bytes()[:-20])
        assert [line.split(" (")[0] for line in verify(writer.url)] == ["0/c/0/3/1 is damaged"]

    @pytest.mark.parametrize("key", ["0/c/0/3/1", "1/zarr.json", "zarr.json"])
    def test_does_not_call_damaged_what_may_not_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        writer, read = finished(tmp_path), zarr.storage.LocalStore.get

        async def get(store: Any, asked: str, *arguments: Any, **options: Any) -> Any:
            if asked == key:
                raise PermissionError(13, "Permission denied", key)
            return await read(store, asked, *arguments, **options)

        monkeypatch.setattr(zarr.storage.LocalStore, "get", get)
        with pytest.raises(PermissionError, match="Permission denied"):
            verify(writer.url)

    def test_says_that_an_image_is_not_finished(self, tmp_path: Path) -> None:
        writer = writer_at(tmp_path)
        write_all(writer, random_pixels(20, 20))
        assert verify(writer.url) == ["is not finished; the command that makes it goes on with it"]

    def test_names_a_missing_level(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        (Path(writer.url) / "1/zarr.json").unlink()
        assert verify(writer.url) == ["level 1 is missing"]

    @pytest.mark.parametrize("content", ["{bad", '{"zarr_format": 3, "node_type": "group"}', "[]"])
    def test_names_a_level_with_broken_metadata(self, tmp_path: Path, content: str) -> None:
        writer = finished(tmp_path)
        (Path(writer.url) / "1/zarr.json").write_text(content)
        assert [line.split(" (")[0] for line in verify(writer.url)] == ["1/zarr.json is damaged"]

    def test_names_broken_metadata_of_the_image(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        (Path(writer.url) / "zarr.json").write_text("{bad")
        assert [line.split(" (")[0] for line in verify(writer.url)] == ["zarr.json is damaged"]

    @pytest.mark.parametrize("ome", [{}, {"multiscales": []}, {"multiscales": [{"datasets": [{}]}]}])
    def test_says_that_the_levels_are_not_named(self, tmp_path: Path, ome: dict) -> None:
        writer = finished(tmp_path)
        zarr.open_group(writer.url, mode="a").attrs["ome"] = ome
        assert verify(writer.url) == ["zarr.json names no levels of OME-NGFF"]

    def test_says_that_a_level_has_another_layout(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        zarr.create_array(writer.url, name="1", shape=(300, 150), dtype="uint8", overwrite=True)
        assert verify(writer.url) == ["level 1 is not sharded c, y, x, as diffnca writes it"]

    def test_says_that_a_level_has_another_size(self, tmp_path: Path) -> None:
        writer = finished(tmp_path)
        shutil.rmtree(Path(writer.url) / "2")
        shutil.copytree(Path(writer.url) / "1", Path(writer.url) / "2")
        sizes = "[(600, 300), (300, 150), (300, 150)] px, not [(600, 300), (300, 150), (150, 75)]"
        assert verify(writer.url) == [f"its levels are of {sizes}"]

    def test_tells_each_shard_that_it_has_read(self, tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        verify(finished(tmp_path).url, lambda done, total: told.append((done, total)))
        assert told == [(n + 1, len(told)) for n in range(len(told))] and told


def test_a_stop_before_the_first_level_leaves_nothing_foreign(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "x.ome.zarr", mode="w")
    (tmp_path / "x.ome.zarr" / "0").mkdir()
    (tmp_path / "x.ome.zarr" / "0" / f"zarr.{HEX}.partial").write_bytes(b"killed")
    assert not writer_at(tmp_path).is_foreign
