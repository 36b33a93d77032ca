"""The folder of a run: who may go on with it, and what its damaged files lead to."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffnca.models.file import MODEL_FILE, STATE_FILE, read_tensors, write_tensors
from diffnca.training.loop import Trainer
from diffnca.training.state import LOG_FILE, check_folder, remove_leftovers, trim_log

from .conftest import QUIET, small_config, stripes, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that stays as it is."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(out, small_config(80))
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of which a test may do anything."""
    return shutil.copytree(finished, tmp_path / "run")


def changed(run: Path, **header: str) -> None:
    tensors, old = read_tensors(run / STATE_FILE)
    kept = {name: text for name, text in (old | header).items() if name not in header or text}
    write_tensors(run / STATE_FILE, tensors, kept)


def test_another_configuration_is_refused_and_named(run: Path) -> None:
    with pytest.raises(ValueError, match=r"began with training\.seed=0, not 1"):
        train(run, small_config(80, seed=1))


def test_other_images_are_refused(run: Path) -> None:
    with pytest.raises(ValueError, match="began with other images"):
        Trainer(small_config(80), run, stripes, QUIET, data_fingerprint="other")


def test_another_number_of_processes_is_refused(run: Path) -> None:
    changed(run, processes="2")
    with pytest.raises(ValueError, match="began on 2 processes, not 1"):
        train(run, small_config(120))


@pytest.mark.parametrize("name", ["config", "progress", "data"])
def test_a_state_with_a_missing_key_is_refused(run: Path, name: str) -> None:
    changed(run, **{name: ""})
    with pytest.raises(ValueError, match=rf"{STATE_FILE}: has no `{name}`: must be the state of a run"):
        train(run, small_config(120))


PROGRESS = {"step": 4, "images": 16, "seconds": 1.0, "loss": 0.5, "best_loss": 0.5}


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "1", "{}", '{"step": 4', "[" * 100_000),
        *(json.dumps(PROGRESS | change) for change in ({"step": "4"}, {"step": 4.5}, {"images": -1})),
        *(json.dumps(PROGRESS | change) for change in ({"seconds": None}, {"seconds": -1.0}, {"more": 1})),
    ],
    ids=lambda text: text[:60],
)
def test_a_progress_that_is_none_is_refused(run: Path, text: str) -> None:
    changed(run, progress=text or " ")
    with pytest.raises(ValueError, match=rf"{STATE_FILE}: "):
        train(run, small_config(120))


def without(start: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: value for name, value in tensors.items() if not name.startswith(start)}


def reshaped(start: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {k: torch.zeros(7) if k.startswith(start) else v for k, v in tensors.items()}


@pytest.mark.parametrize(
    "change",
    [
        *(without(start) for start in ("network.", "average.", "adam.", "adam.0.exp_avg", "adam.0.step")),
        *(reshaped(start) for start in ("network.", "average.", "power.0.1.", "adam.0.exp_avg")),
        lambda tensors: tensors | {"adam.999.step": torch.zeros(())},
        lambda tensors: tensors | {"adam.first.step": torch.zeros(())},
        lambda tensors: tensors | {"average.more": torch.zeros(1)},
    ],
    ids=range(12),
)
def test_a_state_of_other_tensors_is_refused(
    run: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    tensors, header = read_tensors(run / STATE_FILE)
    write_tensors(run / STATE_FILE, change(tensors), header)
    with pytest.raises(ValueError, match=rf"{STATE_FILE}: is not the state of such a run"):
        train(run, small_config(120))


@pytest.mark.parametrize(
    "damage",
    [
        b"{}\n",
        b"1\n",
        b"null\n",
        b"\0" * 40 + b"\n",
        b'{"step": "4"}\n',
        b'{"step": 4',
        b"\xff\xfe\n",
        b"[" * 10**5,
    ],
    ids=range(8),
)
def test_a_damaged_line_of_the_log_is_dropped(run: Path, damage: bytes) -> None:
    whole = (run / LOG_FILE).read_bytes()
    (run / LOG_FILE).write_bytes(whole + damage)
    trim_log(run, 20)
    assert (run / LOG_FILE).read_bytes() == whole


def test_a_run_with_a_damaged_log_goes_on(run: Path) -> None:
    with (run / LOG_FILE).open("ab") as log:
        log.write(b'{"step": 4')
    assert train(run, small_config(160)).step == 40
    assert [json.loads(line)["step"] for line in (run / LOG_FILE).read_text().splitlines()] == [20, 40]


def test_a_run_goes_on_without_its_log(run: Path) -> None:
    (run / LOG_FILE).unlink()
    assert train(run, small_config(88)).step == 22


def test_a_log_that_cannot_be_written_is_named(run: Path) -> None:
    (run / LOG_FILE).unlink()
    (run / LOG_FILE).symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"{LOG_FILE}: cannot be written \(No space left on device\)"):
        train(run, small_config(160))


LEFT = (f".{STATE_FILE}.0123abcd.diffnca-partial", f"{STATE_FILE}.partial", f"{LOG_FILE}.partial")


@pytest.mark.parametrize("name", ["photo.png", MODEL_FILE])
def test_a_folder_with_other_files_is_no_run(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"holds other files \({name}\)"):
        check_folder(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(OSError, match="/proc/run: cannot be written"):
        check_folder(Path("/proc/run"))


def test_what_a_killed_run_left_does_not_stop_a_new_one(tmp_path: Path) -> None:
    for name in (LOG_FILE, ".lock", *LEFT):
        (tmp_path / name).touch()
    check_folder(tmp_path)


def test_only_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    for name in (LOG_FILE, "photo.png.partial", *LEFT):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOG_FILE, "photo.png.partial"]


def test_other_widths_of_averages_are_refused_and_the_stored_ones_stay(run: Path) -> None:
    before = read_tensors(run / STATE_FILE)[0]
    with pytest.raises(ValueError, match=r"began with training\.ema_widths="):
        train(run, small_config(40, ema_widths=(0.05,)))
    assert read_tensors(run / STATE_FILE)[0].keys() == before.keys()
