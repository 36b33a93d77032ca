"""The viewer: tiles are crops of the image, nobody else is let in, a browser draws what the file holds."""

import http.client
import io
import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.view import server as view
from diffnca.view.pyramids import level_scale, open_image, open_zarr
from diffnca.view.server import Server, serve

from ..chromium import Browser

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("tiffslide")
zarr = pytest.importorskip("zarr")

HEIGHT, WIDTH = 1003, 1301
MICRONS = 0.25
PAGE = Path(view.__file__).with_name("view.html")


def picture(height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> np.ndarray:
    """Return noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def halves(image: np.ndarray) -> list[np.ndarray]:
    """Return a pyramid: every other pixel, sides rounded up."""
    levels = [image]
    while max(levels[-1].shape[:2]) > 256:
        levels.append(levels[-1][::2, ::2])
    return levels


def write_zarr(path: Path, levels: list[np.ndarray], shards: bool = True, **attributes: Any) -> Path:
    """Write an OME-Zarr image."""
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scales = [[1.0, MICRONS * 2**i, MICRONS * 2**i] for i in range(len(levels))]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for i, scale in enumerate(scales)
    ]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    root = zarr.create_group(path, attributes={"ome": ome, **attributes})
    for index, level in enumerate(levels):
        channels = level.shape[2]
        array = root.create_array(
            str(index),
            shape=(channels, *level.shape[:2]),
            chunks=(channels, 128, 128),
            shards=(channels, 512, 512) if shards else None,
            dtype=level.dtype,
        )
        array[:] = np.moveaxis(level, -1, 0)
    return path


def write_tiff(path: Path, levels: list[np.ndarray], **options: Any) -> Path:
    """Write a pyramidal TIFF file."""
    kind = {"tile": (128, 128), "photometric": "rgb" if levels[0].shape[2] == 3 else "minisblack"}
    kind |= {"resolution": (1e4 / MICRONS,) * 2, "resolutionunit": "CENTIMETER", **options}
    images = [level if level.shape[2] == 3 else level[..., 0] for level in levels]
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        file.write(images[0], subifds=len(images) - 1, **kind)
        for image in images[1:]:
            file.write(image, subfiletype=1, **kind)
    return path


def write_png(path: Path, levels: list[np.ndarray]) -> Path:
    """Write a PNG file."""
    Image.fromarray(levels[0] if levels[0].shape[2] == 3 else levels[0][..., 0]).save(path)
    return path


Get = Callable[..., tuple[int, str, bytes]]


def requester(server: Server) -> Get:
    """Return a function that asks the server."""

    def get(path: str, host: str | None = None) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers["Content-Type"], body

    return get


class Running:
    """Within the block, a server that answers."""

    def __init__(self, path: Path) -> None:
        self.server = Server(open_image(path))
        self.get = requester(self.server)
        self.address = self.server.address

    def __enter__(self) -> "Running":
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def decoded(body: bytes) -> np.ndarray:
    """Return the pixels of a picture, `h w c`."""
    pixels = np.asarray(Image.open(io.BytesIO(body)))
    return pixels.reshape(*pixels.shape[:2], -1)


WRITERS = {
    "sharded zarr": lambda folder, levels: write_zarr(folder / "a.ome.zarr", levels),
    "chunked zarr": lambda folder, levels: write_zarr(folder / "b.ome.zarr", levels, shards=False),
    "tiff": lambda folder, levels: write_tiff(folder / "c.ome.tif", levels, compression="deflate"),
    "png": lambda folder, levels: write_png(folder / "d.png", levels),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_tiles_of_the_finest_level_together_are_the_image(
    kind: str, channels: int, tmp_path: Path
) -> None:
    image = picture(300, 530, channels)
    pyramid = open_image(WRITERS[kind](tmp_path, halves(image)))
    rows = [[pyramid.tile(0, column, row) for column in range(3)] for row in range(2)]
    assert np.array_equal(np.concatenate([np.concatenate(row, axis=1) for row in rows]), image)


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "png"])
def test_a_tile_over_http_is_a_crop_of_its_level_to_the_bit(kind: str, tmp_path: Path) -> None:
    levels = halves(picture())
    with Running(WRITERS[kind](tmp_path, levels)) as running:
        for level, (column, row) in itertools.product(range(len(levels)), [(0, 0), (1, 1), (2, 1), (5, 3)]):
            expected = levels[level][256 * row : 256 * row + 256, 256 * column : 256 * column + 256]
            status, _, body = running.get(f"/tile/{level}/{column}/{row}.png")
            assert status == (200 if expected.size else 404)
            assert not expected.size or np.array_equal(decoded(body), expected)


def test_a_tiff_whose_levels_are_rounded_down_gives_crops_too(tmp_path: Path) -> None:
    image = picture(517, 1035)
    levels = [image, image[:516:2, :1034:2].copy(), image[:516:4, :1032:4].copy()]
    pyramid = open_image(write_tiff(tmp_path / "a.tif", levels))
    assert list(pyramid.sizes) == [(517, 1035), (258, 517), (129, 258)]
    assert np.array_equal(pyramid.tile(1, 1, 1), levels[1][256:, 256:512])
    assert np.array_equal(pyramid.tile(2, 1, 0), levels[2][:, 256:])


def test_a_large_png_gets_a_pyramid(tmp_path: Path) -> None:
    pyramid = open_image(write_png(tmp_path / "a.png", [picture()]))
    assert pyramid.sizes == ((1003, 1301), (502, 651), (251, 326), (126, 163))


def test_a_jpeg_tile_is_near_the_crop(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(300, dtype=np.uint8)[:, None, None] // 2, (300, 300, 3))
    with Running(write_zarr(tmp_path / "a.ome.zarr", [smooth])) as running:
        _, kind, body = running.get("/tile/0/0/0.jpg")
    assert kind == "image/jpeg"
    assert np.abs(decoded(body).astype(int) - smooth[:256, :256]).max() <= 4


def test_a_tile_of_a_huge_image_is_read_without_the_rest(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", [picture(8, 8)])
    array = json.loads((path / "0" / "zarr.json").read_text())
    array["shape"] = [3, 200_000, 8_000]  # nothing was written there; to read it all would take 5 GB
    (path / "0" / "zarr.json").write_text(json.dumps(array))
    with pytest.raises(ValueError, match="smallest level has 200000x8000 px"):
        open_image(path)
    tile = open_zarr(str(path)).tile(0, 31, 700)
    assert tile is not None and tile.shape == (256, 64, 3)


@pytest.mark.parametrize(
    ("side", "level_side", "scale"), [(1301, 1301, 1.0), (1301, 651, 0.5), (1301, 163, 0.125)]
)
def test_the_scale_of_a_halved_level_is_exact(side: int, level_side: int, scale: float) -> None:
    assert level_scale(side, level_side) == scale


def test_the_scale_of_another_level_is_the_quotient_of_the_sides() -> None:
    assert level_scale(1035, 517) == 517 / 1035
    assert level_scale(900, 300) == 1 / 3


@pytest.mark.parametrize(("height", "width"), [(4096, 5), (5, 4096)])
def test_the_levels_of_a_narrow_image_are_halves_of_each_other(
    tmp_path: Path, height: int, width: int
) -> None:
    facts = open_image(write_zarr(tmp_path / "a.ome.zarr", halves(picture(height, width)))).facts()
    assert [level["scale"] for level in facts["levels"]] == [1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16]


def test_the_page_is_told_what_the_image_is(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", halves(picture()), diffnca={"diffnca:seed": "7"})
    with Running(path) as running:
        facts = json.loads(running.get("/image.json")[2])
    assert facts["name"] == "a.ome.zarr" and facts["provenance"] == "seed: 7"
    assert (facts["height"], facts["width"], facts["tile"]) == (HEIGHT, WIDTH, 256)
    assert facts["microns_per_px"] == MICRONS
    assert facts["levels"][1] == {"height": 502, "width": 651, "scale": 0.5}


def test_the_size_of_a_pixel_of_a_tiff_is_read_from_its_tags(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.ome.tif", [picture(64, 64)])
    assert open_image(path).microns_per_px == pytest.approx(MICRONS)


def test_the_size_of_a_pixel_is_unknown_where_the_tags_hold_a_default(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [picture(64, 64)], resolution=(72, 72), resolutionunit="INCH")
    assert open_image(path).microns_per_px is None


def test_the_text_of_a_png_is_its_provenance(tmp_path: Path) -> None:
    from diffnca.formats.png import write_png as write

    write(tmp_path / "a.png", picture(8, 8), {"diffnca:seed": "7", "Software": "diffnca 1"})
    assert open_image(tmp_path / "a.png").provenance == "seed: 7\nSoftware: diffnca 1"


def test_ome_xml_that_cannot_be_parsed_costs_nothing(tmp_path: Path) -> None:
    options = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
    text = '<?xml version="1.0"?><OME><Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.5"'
    tifffile.imwrite(tmp_path / "a.ome.tif", picture(300, 300), description=text, bigtiff=True, **options)
    image = open_image(tmp_path / "a.ome.tif")
    assert np.array_equal(image.tile(0, 0, 0), picture(300, 300)[:256, :256])
    assert image.microns_per_px == 0.5


@pytest.mark.parametrize(
    "ome",
    [
        None,
        [],
        {"multiscales": None},
        {"multiscales": [{"axes": "cyx", "datasets": []}]},
        {"multiscales": [{"axes": [1, 2, 3], "datasets": [{"path": "0"}]}]},
        {"multiscales": [{"axes": [{"name": 1}], "datasets": [{"path": 7}]}]},
        {"multiscales": [{"axes": [{"name": "c"}], "datasets": [{"path": "."}]}]},
    ],
    ids=str,
)
def test_root_metadata_of_any_content_are_refused_in_one_line(tmp_path: Path, ome: object) -> None:
    path = write_zarr(tmp_path / "a.zarr", [picture(8, 8)])
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["ome"] = ome
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ValueError, match="is no OME-Zarr 0.5 image"):
        open_image(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "1", "\0\0", '{"zarr_format": 3}', "[" * 9999])
def test_root_metadata_that_are_no_metadata_are_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = write_zarr(tmp_path / "a.zarr", [picture(8, 8)])
    (path / "zarr.json").write_text(content)
    with pytest.raises(ValueError, match=r"a.zarr: .*(metadata|no OME-Zarr|not finished)") as refusal:
        open_image(path)
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(write_zarr(tmp_path_factory.mktemp("image") / "a.ome.zarr", halves(picture()))) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/view.py", 404),
        ("/../view.py", 404),
        ("/..%2f..%2fcli.py", 404),
        ("//etc/passwd", 404),
        ("/tile/9/0/0.png", 404),
        ("/tile/0/6/0.png", 404),
        ("/tile/0/0/4.png", 404),
        ("/tile/0/-1/0.png", 400),
        ("/tile/0/0/0.gif", 400),
        ("/tile/0/0.png", 400),
        ("/tile/0/0/../../../zarr.json", 400),
    ],
)
def test_a_wrong_path_is_refused_in_one_line(path: str, status: int, running: Running) -> None:
    answer, kind, body = running.get(path)
    assert answer == status and kind.startswith("text/plain")
    assert body.decode().count("\n") == 1


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "192.168.1.2"]
)
@pytest.mark.parametrize("path", ["/", "/image.json", "/tile/0/0/0.png"])
def test_another_host_is_refused(path: str, host: str, running: Running) -> None:
    assert running.get(path, host or " ")[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9999"])
def test_this_machine_is_let_in_through_any_port(host: str, running: Running) -> None:
    assert running.get("/image.json", host)[0] == 200


def test_only_this_machine_can_connect(running: Running) -> None:
    assert running.server.server_address[0] == "127.0.0.1"


def test_the_page_names_no_other_server(running: Running) -> None:
    status, kind, body = running.get("/")
    assert status == 200 and kind.startswith("text/html")
    assert re.findall(r"https?:|//[a-z]+\.", body.decode()) == []


def test_the_script_is_openseadragon_with_its_licence(running: Running) -> None:
    status, kind, body = running.get("/openseadragon.min.js?x=1")
    assert status == 200 and kind.startswith("text/javascript") and b"openseadragon" in body[:40]
    assert "Redistributions in binary form" in PAGE.with_name("openseadragon.LICENSE.txt").read_text()


def test_a_damaged_tile_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", [picture(300, 300)])
    (path / "0" / "c" / "0" / "0" / "0").write_bytes(b"damaged")
    with Running(path) as server:
        status, _, body = server.get("/tile/0/0/0.png")
    assert status == 500 and body.startswith(b"unreadable tile: ") and body.count(b"\n") == 1


def test_a_missing_file_of_our_images_is_an_error_and_not_black(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", [picture(600, 600)], diffnca={"diffnca:seed": "7"})
    (path / "0" / "c" / "0" / "1" / "0").unlink()
    with Running(path) as server:
        assert server.get("/tile/0/0/0.png")[0] == 200
        answers = [server.get("/tile/0/0/2.png") for _ in range(2)]
    assert [status for status, _, _ in answers] == [500, 500]
    assert answers[0][2].startswith(b"unreadable tile: 0/c/0/1/0 is missing")
    assert set(caplog.messages) == {f"a.ome.zarr: {answers[0][2].decode().strip()}"}


def test_an_empty_file_of_our_images_is_an_error_and_not_black(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", [picture(600, 600)], diffnca={"diffnca:seed": "7"})
    (path / "0" / "c" / "0" / "1" / "0").write_bytes(b"")
    with pytest.raises(ValueError, match="^0/c/0/1/0 is empty; make the image again"):
        open_image(path).tile(0, 0, 2)


def test_a_missing_file_of_others_is_black(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", [picture(300, 300)], shards=False)
    (path / "0" / "c" / "0" / "0" / "0").unlink()
    tile = open_image(path).tile(0, 0, 0)
    assert tile is not None and not tile[:128, :128].any() and tile[128:].any()


def test_a_file_that_leads_to_a_device_is_refused(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", [picture(300, 300)])
    shard = path / "0" / "c" / "0" / "0" / "0"
    shard.unlink()
    shard.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="is no regular file"):
        open_image(path).tile(0, 0, 0)


def test_many_requests_at_once_are_all_answered(running: Running) -> None:
    coarsest = len(halves(picture())) - 1
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: running.get(f"/tile/{coarsest}/0/0.png")[0], range(200)))
    assert answers == [200] * 200


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_a_picture_stands_upright(tmp_path: Path, name: str) -> None:
    exif, pixels = Image.Exif(), np.zeros((20, 30, 3), np.uint8)
    exif[0x0112], pixels[:10] = 6, 255  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    tile = open_image(tmp_path / name).tile(0, 0, 0)
    assert tile is not None and tile.shape == (30, 20, 3)
    assert tile[:, 14:].min() > 200 and tile[:, :6].max() < 50


def test_an_image_without_root_metadata_is_not_finished(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", [picture(64, 64)])
    (path / "zarr.json").unlink()
    with pytest.raises(ValueError, match="is not finished; the command that makes it goes on with it"):
        open_image(path)


def test_an_image_of_which_only_the_work_is_there_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "a.ome.tif.work").mkdir()
    with pytest.raises(ValueError, match="is not finished"):
        open_image(tmp_path / "a.ome.tif")


def test_an_address_of_fsspec_is_shown(tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    image = picture(64, 64)
    memory.put(str(write_zarr(tmp_path / "a.ome.zarr", [image])), "/shown/a.ome.zarr", recursive=True)
    pyramid = open_image("memory://shown/a.ome.zarr/")
    assert pyramid.name == "a.ome.zarr" and np.array_equal(pyramid.tile(0, 0, 0), image)
    with pytest.raises(ValueError, match="is no OME-Zarr image"):
        open_image("memory://shown/nothing.zarr")


def test_an_address_of_a_file_is_its_path(tmp_path: Path) -> None:
    image = picture(64, 64)
    pyramid = open_image(write_zarr(tmp_path / "a.ome.zarr", [image]).as_uri())
    assert np.array_equal(pyramid.tile(0, 0, 0), image)
    with pytest.raises(ValueError, match="does not exist"):
        open_image((tmp_path / "nothing.zarr").as_uri())


def unusable(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return paths that cannot be shown, and what is said of them."""
    names = ("text.md", "text.png", "text.tif", "text.svs", "text.zarr")
    for name in names:
        (folder / name).write_text("no image")
    (folder / "empty").mkdir()
    zarr.create_group(folder / "group.zarr", attributes={"a": 1})
    write_zarr(folder / "damaged.zarr", [picture(8, 8)])
    (folder / "damaged.zarr" / "zarr.json").write_text("{")
    write_zarr(folder / "deep.zarr", [picture(8, 8).astype(np.uint16)])
    write_zarr(folder / "two.zarr", [picture(8, 8, 2)])
    Image.fromarray(picture(8, 8)[..., 0].astype(np.float32)).save(folder / "float.tif")
    says = {
        "nothing.png": "does not exist",
        "text.md": "must be an .ome.zarr, .tif, .png or .jpg image",
        "text.png": "unreadable: cannot identify image file",
        "text.tif": "unreadable: cannot identify image file",
        "text.svs": "unreadable as a slide",
        "text.zarr": "no OME-Zarr image",
        "empty": "is no OME-Zarr image, it has no zarr.json",
        "group.zarr": "is no OME-Zarr 0.5 image",
        "damaged.zarr": "damaged root metadata",
        "deep.zarr": "3 channels of uint16; must be gray, or colours and others, of uint8",
        "two.zarr": "2 channels of uint8; must be",
        "float.tif": "32-bit floating-point samples",
    }
    return {name: (folder / name, message) for name, message in says.items()}


def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path: Path) -> None:
    for path, message in unusable(tmp_path).values():
        with pytest.raises(ValueError, match=re.escape(message)) as refusal:
            open_image(path)
        assert str(refusal.value).startswith(f"{path}: ") and "\n" not in str(refusal.value)


def test_a_port_that_is_taken_is_refused(running: Running, tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", [picture(8, 8)])
    with pytest.raises(ValueError, match="take another, or 0 for a free one"):
        serve(path, port=running.server.server_port, open_browser=False)
    with pytest.raises(ValueError, match="port 70000: must be"):
        serve(path, port=70000, open_browser=False)


def test_control_c_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted(server: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    serve(write_png(tmp_path / "a.png", [picture(8, 8)]), open_browser=False)
    assert re.match(r"http://127\.0\.0\.1:\d+/ shows a\.png; stop with Ctrl-C\n", capsys.readouterr().out)


def test_it_starts_without_torch() -> None:
    code = "import sys, diffnca.view.server; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class Viewer(Browser):
    """A browser that shows pages of the viewer."""

    def show(self, address: str, width: int = 900, height: int = 600) -> None:
        """Open a page in a window and wait until it is drawn."""
        self.open(address, width, height)
        self.wait_for("!!window.viewer?.world?.getItemAt(0)")
        self.wait_until_drawn()

    def wait_until_drawn(self) -> None:
        """Wait until every tile that is needed has come and has been painted."""
        self.wait_for("viewer.world.getItemAt(0).getFullyLoaded()")
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    started = Viewer(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


COLOURS = np.array([[200, 30, 30], [30, 160, 60], [40, 60, 200], [220, 200, 40]])
"""Of the levels, the finest first: the colour on the screen tells which one is drawn."""


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    levels = [
        np.ascontiguousarray(np.broadcast_to(colour.astype(np.uint8), level.shape))
        for colour, level in zip(COLOURS, halves(picture()), strict=True)
    ]
    facts = {"diffnca:model": "pathology", "diffnca:seed": "7"}
    path = write_zarr(tmp_path_factory.mktemp("coloured") / "levels.ome.zarr", levels, diffnca=facts)
    with Running(path) as server:
        yield server


@pytest.mark.browser
@pytest.mark.parametrize(("zoom", "level"), [(2.0, 0), (1.0, 0), (0.5, 1), (0.25, 2)])
def test_a_browser_draws_the_level_that_the_zoom_needs(
    zoom: float, level: int, browser: Viewer, coloured: Running
) -> None:
    width, height = (360, 240) if zoom < 0.5 else (900, 600)  # the image cannot be zoomed to a speck
    browser.show(f"{coloured.address}#zoom={zoom}&x={WIDTH / 2}&y={HEIGHT / 2}", width, height)
    assert np.abs(browser.screenshot()[height // 2, width // 2] - COLOURS[level]).max() <= 2


@pytest.mark.browser
def test_a_browser_draws_the_pixels_of_the_file_at_the_place_of_the_link(
    browser: Viewer, running: Running
) -> None:
    browser.show(f"{running.address}#zoom=8&x=300&y=520")
    seen = browser.screenshot()[300 - 76 : 300 + 84 : 8, 450 - 76 : 450 + 84 : 8]  # middles of 20 x 20 pixels
    assert np.abs(seen - picture()[510:530, 290:310]).max() <= 2


@pytest.mark.browser
def test_keys_zoom_in_to_the_finest_level(browser: Viewer, coloured: Running) -> None:
    browser.show(coloured.address)
    assert np.abs(browser.screenshot()[300, 450] - COLOURS[1]).max() <= 2
    browser.press("1", "Digit1", 49)
    browser.wait_for("location.hash.startsWith('#zoom=1&')")
    browser.wait_until_drawn()
    assert np.abs(browser.screenshot()[300, 450] - COLOURS[0]).max() <= 2


@pytest.mark.browser
def test_buttons_zoom_out_again(browser: Viewer, coloured: Running) -> None:
    browser.show(f"{coloured.address}#zoom=1&x=650&y=500")
    browser.value("document.getElementById('farther').click()")
    browser.wait_for("location.hash.startsWith('#zoom=0.5&')")
    browser.wait_until_drawn()
    assert np.abs(browser.screenshot()[300, 450] - COLOURS[1]).max() <= 2


@pytest.mark.browser
def test_the_navigator_shows_a_coarse_level(browser: Viewer, coloured: Running) -> None:
    browser.show(f"{coloured.address}#zoom=2&x=650&y=500")
    frame = browser.value("document.getElementById('navigator').getBoundingClientRect().toJSON()")
    left, top, width, height = (frame[key] for key in ("left", "top", "width", "height"))
    browser.wait_for("viewer.navigator.world.getItemAt(0)?.getFullyLoaded()")
    browser.wait_until_drawn()
    seen = browser.screenshot()[int(top + 0.8 * height), int(left + 0.8 * width)]
    assert width / height == pytest.approx(WIDTH / HEIGHT, rel=0.02)
    assert np.abs(seen - COLOURS[2:]).max(axis=1).min() <= 2


@pytest.mark.browser
def test_the_scale_bar_is_as_long_as_it_says(browser: Viewer, coloured: Running) -> None:
    browser.show(f"{coloured.address}#zoom=2&x=650&y=500")
    text, width_px = browser.value(
        "[document.getElementById('scale').innerText, document.getElementById('scale').offsetWidth]"
    )
    assert text == "10 µm" and width_px == 10 / MICRONS * 2


@pytest.mark.browser
def test_the_page_says_what_the_image_is_and_where_one_is(browser: Viewer, coloured: Running) -> None:
    browser.show(f"{coloured.address}#zoom=2&x=650.5&y=500.5")
    browser.value("document.getElementById('about').open = true")
    text = browser.value("document.body.innerText")
    assert browser.value("document.title") == "levels.ome.zarr · diffnca"
    for part in ("1,301 × 1,003 px", "325 µm × 251 µm", "0.25 µm", "pathology", "x 650 y 500 px · 200 %"):
        assert part in text


@pytest.mark.browser
def test_the_browser_asks_only_this_server_and_complains_of_nothing(
    browser: Viewer, coloured: Running
) -> None:
    browser.show(coloured.address)
    asked = [event for event in browser.seen if event["method"] == "Network.requestWillBeSent"]
    addresses = {event["params"]["request"]["url"] for event in asked}
    assert f"{coloured.address}image.json" in addresses
    assert [a for a in addresses if not a.startswith((coloured.address, "data:", "blob:", "about:"))] == []
    troubles = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Network.loadingFailed")
    assert [event for event in browser.seen if event["method"] in troubles] == []
