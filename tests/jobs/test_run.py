"""The commands that edit images, with a small model and few steps; what is refused, with a bundled one."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.cli.main import main
from diffnca.data.given import read_image
from diffnca.errors import Interrupted
from diffnca.files import lock
from diffnca.formats.ome_zarr import read_pixels
from diffnca.jobs.options import Choices, Place
from diffnca.jobs.plan import plan
from diffnca.jobs.request import Request, asked
from diffnca.jobs.run import run
from diffnca.jobs.tasks import New, Vary

MODEL = "pathology-4step"


def pixels(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """Return an image of black, white and all between, in blocks of four pixels."""
    blocks = np.random.default_rng(seed).integers(256, size=(height // 4, width // 4, 3), dtype=np.uint8)
    blocks[0, 0], blocks[-1, -1] = 0, 255
    return blocks.repeat(4, 0).repeat(4, 1)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(pixels()).save(tmp_path / "image.png")
    return tmp_path / "image.png"


Edited = Callable[..., np.ndarray]


@pytest.fixture
def edited(model: str) -> Edited:
    """Return a function that runs a command and returns what it made."""

    def made(out: Path, *arguments: object) -> np.ndarray:
        verb, *others = map(str, arguments)
        assert main([verb, model, *others, "--out", str(out)]) == 0
        return np.asarray(Image.open(out))

    return made


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail, and return its one line."""
    verb, *others = map(str, arguments)
    assert main([verb, MODEL, *others]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def box_of(array: np.ndarray) -> np.ndarray:
    """Return which pixels lie in the box that the tests fill."""
    inside = np.zeros(array.shape[:2], bool)
    inside[4:16, 8:28] = True
    return inside


BOX = ("--box", 4, 8, 12, 20)
ONCE = ("--rounds", 1)


@pytest.mark.parametrize("method", ["repaint", "paste"])
def test_a_box_is_filled_and_all_else_stays(edited: Edited, image: Path, tmp_path: Path, method: str) -> None:
    result = edited(tmp_path / "out.png", "inpaint", "--image", image, *BOX, "--method", method)
    changed = (result != pixels()).any(-1)
    assert not changed[~box_of(result)].any()
    assert changed[box_of(result)].mean() > 0.9


def test_a_mask_and_transparency_fill_as_a_box_does(edited: Edited, image: Path, tmp_path: Path) -> None:
    by_box = edited(tmp_path / "box.png", "inpaint", *ONCE, "--image", image, *BOX)
    inside = box_of(by_box)
    Image.fromarray(inside.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    by_mask = edited(tmp_path / "a.png", "inpaint", *ONCE, "--image", image, "--mask", tmp_path / "mask.png")
    Image.fromarray(np.dstack([pixels(), 255 * ~inside]).astype(np.uint8)).save(tmp_path / "open.png")
    by_alpha = edited(tmp_path / "b.png", "inpaint", *ONCE, "--image", tmp_path / "open.png")
    assert np.array_equal(by_mask, by_box)
    assert np.array_equal(by_alpha, by_box)


def test_a_mask_and_a_box_add_up(edited: Edited, image: Path, tmp_path: Path) -> None:
    corner = np.zeros((24, 32), bool)
    corner[20:, :4] = True
    for name, holes in (("corner", corner), ("both", corner | box_of(pixels()))):
        Image.fromarray(holes.astype(np.uint8) * 255).save(tmp_path / f"{name}.png")
    command = ("inpaint", *ONCE, "--image", image, "--mask")
    by_two = edited(tmp_path / "a.png", *command, tmp_path / "corner.png", *BOX)
    assert np.array_equal(by_two, edited(tmp_path / "b.png", *command, tmp_path / "both.png"))


def test_commas_in_a_box_are_spaces(edited: Edited, image: Path, tmp_path: Path) -> None:
    by_spaces = edited(tmp_path / "a.png", "inpaint", *ONCE, "--image", image, *BOX)
    by_commas = edited(tmp_path / "b.png", "inpaint", *ONCE, "--box", "4,8,12,20", "--image", image)
    assert np.array_equal(by_commas, by_spaces)


@pytest.mark.parametrize("where", ["box", "mask"])
def test_what_is_not_opaque_is_filled_beside_a_box_and_a_mask(
    edited: Edited, tmp_path: Path, where: str
) -> None:
    array = np.dstack([pixels(), np.full((24, 32, 1), 255, np.uint8)])
    array[20:, :4, 3] = 0
    marked = box_of(array)
    Image.fromarray(marked).save(tmp_path / "mask.png")
    option = BOX if where == "box" else ("--mask", tmp_path / "mask.png")
    results = []
    for hidden in (0, 255):
        array[20:, :4, :3] = hidden
        Image.fromarray(array).save(tmp_path / "open.png")
        results.append(
            edited(tmp_path / "out.png", "inpaint", *ONCE, "--image", tmp_path / "open.png", *option)
        )
    holes = marked | (array[..., 3] == 0)
    assert np.array_equal(results[0], results[1])  # what is hidden plays no part
    assert np.array_equal(results[0][~holes], pixels()[~holes])


def test_an_extended_image_holds_the_image(edited: Edited, image: Path, tmp_path: Path) -> None:
    result = edited(tmp_path / "out.png", "extend", "--image", image, "--left", 8, "--bottom", 4)
    assert result.shape == (28, 40, 3)
    assert np.array_equal(result[:24, 8:], pixels())


def test_an_enlarged_image_reduced_is_the_image_within_one_level(
    edited: Edited, image: Path, tmp_path: Path
) -> None:
    result = edited(tmp_path / "out.png", "upscale", "--image", image, "--factor", 2)
    means = result.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(means - pixels()).max() <= 1.0


def test_how_far_an_enlarged_image_is_from_the_image_is_told(
    edited: Edited, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = edited(tmp_path / "out.png", "upscale", "--image", image, "--factor", 1.5)
    assert result.shape == (36, 48, 3)
    assert "of 255 levels of image.png" in capsys.readouterr().out


def test_killed_variations_begin_again_and_nothing_of_them_is_left(
    model: str, image: Path, tmp_path: Path
) -> None:
    for name in ("v-001", "v-002"):
        (tmp_path / f".{name}.png.0123abcd.diffnca-partial").touch()
    out = tmp_path / "v.png"
    assert main(["vary", model, "--image", str(image), "--out", str(out), "--count", "2"]) == 0
    left = {path.name for path in tmp_path.iterdir()} - {image.name}
    assert left == {"v-000.png", "v-001.png", ".v-002.png.0123abcd.diffnca-partial"}  # the last is of others


def test_variations_are_numbered_and_differ(model: str, image: Path, tmp_path: Path) -> None:
    assert main(["vary", model, "--image", str(image), "--out", str(tmp_path / "v.png"), "--count", "2"]) == 0
    first, second = (np.asarray(Image.open(tmp_path / f"v-00{index}.png")) for index in range(2))
    assert first.shape == second.shape == (24, 32, 3)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("task", "tile"),
    [
        (("inpaint", *BOX, "--rounds", 2), 16),
        (("extend", "--top", 8, "--right", 8, "--seamless", "x", "--rounds", 2), 16),
        (("upscale", "--factor", 2), 32),
        (("vary",), 16),
    ],
    ids=str,
)
def test_a_large_image_in_tiles_is_that_made_in_memory(
    model: str, edited: Edited, image: Path, tmp_path: Path, task: tuple, tile: int
) -> None:
    small = edited(tmp_path / "small.png", *task, "--image", image)
    verb, *others = map(str, task)
    out = tmp_path / "large.ome.zarr"
    assert main([verb, model, *others, "--image", str(image), "--out", str(out), "--tile", str(tile)]) == 0
    assert np.array_equal(read_pixels(str(out)), small)


def test_a_large_image_of_another_picture_is_not_gone_on_with(
    model: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["vary", model, "--image", str(image), "--out", str(tmp_path / "large.ome.zarr")]
    assert main(arguments) == 0
    Image.fromarray(pixels(seed=1)).save(image)
    assert main(arguments) == 2
    assert "holds an image of image" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for index, name in enumerate(("a", "b")):
        Image.fromarray(pixels(seed=index)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path / "images"


def folder_filled(model: str, folder: Path, out: Path) -> list[str]:
    """Return the command that fills a box in each image of a folder."""
    return list(map(str, ["inpaint", model, *ONCE, "--image", folder, *BOX, "--out", out]))


def test_all_images_of_a_folder_are_edited_as_each_alone(
    model: str, edited: Edited, folder: Path, tmp_path: Path
) -> None:
    arguments = folder_filled(model, folder, tmp_path / "out")
    assert main(arguments) == 0
    alone = edited(tmp_path / "alone.png", "inpaint", *ONCE, "--image", folder / "b.png", *BOX)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "b.png")), alone)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_a_stopped_folder_goes_on(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = folder_filled(model, folder, tmp_path / "out")
    assert main(arguments) == 0
    (tmp_path / "out" / "b.png").unlink()
    capsys.readouterr()
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "a.png is finished already" in said
    assert "b.png is finished already" not in said
    assert (tmp_path / "out" / "b.png").is_file()


def test_a_folder_may_have_a_dot_in_its_name(model: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.v2").mkdir()
    assert main(["vary", model, "--image", str(folder), "--out", str(tmp_path / "out.v2")]) == 0


def test_workers_may_have_another_device(model: str, image: Path, tmp_path: Path) -> None:
    request = asked(model, Vary(read_image(image, 3), 0.5), Choices())
    job = plan(request, Place(out=str(tmp_path / "x.ome.zarr"))).job
    assert job is not None
    assert job.device == "auto"


def test_what_is_wrong_with_one_image_is_told_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(pixels(8, 8)).save(folder / "z.png")
    message = refused(capsys, "inpaint", "--image", folder, *BOX, "--out", tmp_path / "out")
    assert "z.png: --box 4,8,12,20: must lie in the 8x8 px" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inpaint",), "is opaque everywhere; say where to fill"),
        (("inpaint", "--box", 0, 0, 24, 32), "nothing is known"),
        (("inpaint", "--box", 0, 0, 25, 32), "must lie in the 24x32 px"),
        (("inpaint", "--box", 0, 0, 0, 3), "must lie in the 24x32 px"),
        (("inpaint", "--mask", "MASK"), "mask of 4x8 px: must be of 24x32 px"),
        (("inpaint", "--box", "1,2,3"), "--box"),
        (("inpaint", *BOX, "--method", "paste", "--rounds", 2), "--rounds 2: must be left out for --meth"),
        (("upscale", "--factor", 1.001), "--factor 1.001: must be enough for a pixel more of 24x32"),
        (("inpaint", "--mask", "missing.png"), "no such file"),
        (("extend",), "one of them above 0"),
        (("upscale", "--factor", 0.5), "above 1 and at most 8"),
        (("vary", "--strength", 0), "above 0 and at most 1"),
        (("vary", "--count", 0), "--count 0"),
        (("vary", "--workers", 0), "--workers 0"),
        (("vary", "--workers", 2), "must be left out for a small image"),
        (("vary", "--film", "film.avi"), "must end in .gif or .webp or .png or .mp4"),
        (("vary", "--film", "film.gif", "--tile", 16), "must be without --tile"),
        (("vary", "--film", "OUT"), "must be another file than --out"),
        (("vary", "--film", "IMAGE"), "is given, and would be overwritten"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_in_one_line(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple, message: str
) -> None:
    Image.fromarray(pixels(4, 8)).save(tmp_path / "mask.png")
    names = {"MASK": "mask.png", "OUT": "out.png", "IMAGE": "image.png"}
    arguments = tuple(tmp_path / names[each] if each in names else each for each in arguments)
    assert message in refused(capsys, *arguments, "--image", image, "--out", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("out", "arguments"),
    [
        ("image.png", ("vary",)),
        ("image.png", ("upscale",)),
        ("image.png", ("extend", "--top", 4)),
        ("image.png", ("inpaint", *BOX)),
        ("link.png", ("vary",)),
        ("mask.png", ("inpaint", "--mask", "mask.png")),
        ("numbered.png", ("vary", "--count", 2)),
    ],
    ids=str,
)
def test_what_is_given_is_not_overwritten(
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    arguments: tuple,
) -> None:
    monkeypatch.chdir(tmp_path)
    if out == "numbered.png":
        image = image.rename(tmp_path / "numbered-001.png")
    if out == "link.png":
        (tmp_path / out).symlink_to(image)
    Image.fromarray(box_of(pixels())).save(tmp_path / "mask.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    message = refused(capsys, *arguments, "--image", image, "--out", out)
    assert "is given, and would be overwritten" in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("file", ["out.png", "out-001.png", "film.gif"])
def test_what_another_program_has_made_is_not_overwritten(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    photo = image.rename(tmp_path / file)
    Image.fromarray(pixels(seed=1)).save(image)
    before, count = photo.read_bytes(), 2 if "-" in file else 1
    film = ("--film", photo) if file == "film.gif" else ()
    command = ("vary", "--image", image, "--out", tmp_path / "out.png", "--count", count, *film)
    assert f"{file}: is there, and diffnca has not made it" in refused(capsys, *command)
    assert photo.read_bytes() == before


def test_an_image_of_the_package_is_replaced(edited: Edited, image: Path, tmp_path: Path) -> None:
    one, other = (edited(tmp_path / "x.png", "vary", "--image", image, "--seed", k) for k in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vary", "--count", 0), "--count 0"),
        (("vary", "--count", 2, "--tile", 16), "must be without --count"),
        (("vary", "--tile", 17), "--tile 17: must be a multiple"),
        (("vary", "--tile", 16, "--workers", 0), "--workers 0"),
        (("vary", "--compression", "jpeg"), "--compression jpeg: must be of a TIFF file"),
        (("vary", "--steps", 0), "0"),
        (("inpaint", *BOX, "--rounds", 0), "--rounds 0"),
        (("inpaint", "--mask", "nowhere"), "no such file"),
    ],
    ids=str,
)
def test_a_folder_is_made_for_work_that_can_be_done_only(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple, message: str
) -> None:
    assert message in refused(capsys, *arguments, "--image", folder, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_masks_of_a_folder_are_not_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        Image.fromarray(box_of(pixels())).save(tmp_path / "masks" / f"{name}.png")
    masks = tmp_path / "masks"
    assert "a.png: is given" in refused(capsys, "inpaint", "--image", folder, "--mask", masks, "--out", masks)


def test_an_image_that_is_not_opaque_is_not_enlarged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.dstack([pixels(), pixels()[..., :1]])).save(tmp_path / "open.png")
    message = refused(capsys, "upscale", "--image", tmp_path / "open.png", "--out", tmp_path / "out.png")
    assert "not opaque everywhere" in message


def test_sizes_of_a_folder_that_do_not_fit_are_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name, side in (("a", 16), ("b", 18)):
        Image.fromarray(pixels(20, 20)[:side, :side]).save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    message = refused(capsys, "vary", "--image", tmp_path / "in", "--seamless", "both", "--out", out)
    assert "sides must be multiples of 4 px" in message and not out.exists()


def small(model: str, count: int = 1, **choices: Any) -> Request:
    """Return a request of small images."""
    return asked(model, New(), Choices(count=count, **choices), (16, 16))


def test_a_cancelled_request_keeps_what_is_finished_and_goes_on(model: str, tmp_path: Path) -> None:
    place, done = Place(out=str(tmp_path / "x.png")), []
    with pytest.raises(Interrupted, match="stopped after 2 of 3 images; the same command goes on"):
        list(run(small(model, 3), place, lambda *share: done.append(share), lambda: done[-1][1] > 2.0))
    assert {path.name for path in tmp_path.iterdir()} == {"x-000.png", "x-001.png"}
    assert [file.was_there for file in run(small(model, 3), place)] == [True, True, False]


def test_a_cancelled_large_image_goes_on_to_the_same_pixels(model: str, tmp_path: Path) -> None:
    request, whole = asked(model, New(), Choices(), (32, 48)), Place(out=str(tmp_path / "whole.png"), tile=16)
    place, done = replace(whole, out=str(tmp_path / "x.png")), []
    with pytest.raises(Interrupted, match="stopped at .*%; the same command goes on from there"):
        list(run(request, place, lambda *share: done.append(share), lambda: len(done) > 3))
    assert not (tmp_path / "x.png").exists()
    list(run(request, place))
    list(run(request, whole))
    assert np.array_equal(*(np.asarray(Image.open(tmp_path / name)) for name in ("x.png", "whole.png")))


def test_progress_is_told_of_all_images_together(model: str, tmp_path: Path) -> None:
    told = []
    list(run(small(model, 2), Place(out=str(tmp_path / "x.png")), lambda *share: told.append(share)))
    assert told[-1] == ("images", 2.0, 2)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_batch_changes_no_byte(model: str, image: Path, tmp_path: Path) -> None:
    request = asked(model, Vary(read_image(image, 3), 0.5), Choices(count=3))
    for name, batch in (("one", 1), ("two", 2)):
        list(run(request, Place(out=str(tmp_path / f"{name}.png"), batch=batch)))
    for index in range(3):
        one, two = (tmp_path / f"{name}-00{index}.png" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("tile", [None, 16])
def test_a_file_cut_short_is_not_finished(model: str, tmp_path: Path, tile: int | None) -> None:
    place, out = Place(out=str(tmp_path / "x.png"), tile=tile), tmp_path / "x.png"
    list(run(small(model), place))
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) * 2 // 3])
    if tile is None:
        assert [made.was_there for made in run(small(model), place)] == [False]
        assert out.read_bytes() == whole
    else:
        with pytest.raises(ValueError, match=r"x\.png: is there, and damaged"):
            list(run(small(model), place))


@pytest.mark.parametrize("name", ["x.png", "x.ome.zarr"])
def test_a_second_command_on_one_file_is_refused(model: str, tmp_path: Path, name: str) -> None:
    place = Place(out=str(tmp_path / name))
    with lock(place.out), pytest.raises(ValueError, match=f"{name}: another command writes it"):
        list(run(small(model), place))


@pytest.mark.parametrize("name", ["x.png", "x.ome.zarr", "x.ome.tif"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "write_bytes", refuse)  # as a full disk does
    with pytest.raises(OSError, match=rf"disk/{name}: cannot be written \(no space left on device\)"):
        plan(small(model), Place(out=str(tmp_path / "disk" / name)))


def refuse(path: Path, _: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("tile", [-16, 0, 17])
def test_a_tile_is_checked_also_where_the_image_is_finished(model: str, tmp_path: Path, tile: int) -> None:
    place = Place(out=str(tmp_path / "x.png"))
    list(run(small(model), place))
    with pytest.raises(ValueError, match=f"tile={tile}: must be a multiple"):
        list(run(small(model), replace(place, tile=tile)))


def test_what_others_keep_beside_the_work_stays(model: str, tmp_path: Path) -> None:
    (tmp_path / "x.png.work").mkdir()
    (tmp_path / "x.png.work" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"x\.png\.work: holds notes\.txt, which diffnca did not make"):
        list(run(small(model), Place(out=str(tmp_path / "x.png"), tile=16)))
    assert [path.name for path in (tmp_path / "x.png.work").iterdir()] == ["notes.txt"]


def test_so_many_images_that_nobody_waits_for_them_begin_at_once(model: str, tmp_path: Path) -> None:
    made = run(small(model, 10**8), Place(out=str(tmp_path / "x.png")))
    assert Path(next(made).path).name == "x-00000000.png"
    made.close()
