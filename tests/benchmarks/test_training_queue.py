"""`benchmarks/training_queue.py` takes runs one by one, again after any stop, and never twice at a time."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_queue.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1] / "src")}
PROLONGED = "sh -c 'echo begun >> begun; exec sleep 60'"


@pytest.fixture(scope="module")
def parts() -> SimpleNamespace:
    """All names of the script."""
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Queues that a test has started; the rest of them is killed."""
    queues: list[subprocess.Popen[bytes]] = []
    yield queues
    for queue in queues:
        queue.kill()
        queue.communicate()


def listed(folder: Path, *runs: dict[str, object]) -> Path:
    """Write a list of runs."""
    lines = [f"[[run]]\n{chr(10).join(f'{k} = {json.dumps(v)}' for k, v in run.items())}" for run in runs]
    path = folder / "list.toml"
    path.write_text("\n".join(lines))
    return path


def begin(folder: Path, *flags: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, str(SCRIPT), "--folder", str(folder), "--runs", str(folder / "list.toml")]
    return subprocess.Popen([*words, *flags], env=ENVIRONMENT, stderr=subprocess.PIPE)


def wait_for(path: Path, lines: int = 1) -> None:
    """Wait until a file has some lines."""
    end = time.monotonic() + 60.0
    while not path.is_file() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < end
        time.sleep(0.02)


def options(parts: SimpleNamespace, folder: Path, *runs: dict[str, object], **others: object) -> object:
    return parts.Options(folder, runs=listed(folder, *runs), **others)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Keep the handlers of signals: the queue in this process sets its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def noting(name: str, **others: object) -> dict[str, object]:
    return {"name": name, "command": f"sh -c 'echo {name} >> order'", **others}


def test_runs_are_taken_one_by_one_and_after_those_they_wait_for(
    parts: SimpleNamespace, tmp_path: Path
) -> None:
    runs = (noting("student", after=["teacher"]), noting("first"), noting("teacher"))
    assert parts.main(options(parts, tmp_path, *runs)) == 0
    assert (tmp_path / "order").read_text().split() == ["first", "teacher", "student"]


def test_a_finished_run_is_not_taken_again(parts: SimpleNamespace, tmp_path: Path) -> None:
    for _ in range(2):
        parts.main(options(parts, tmp_path, noting("only")))
    assert (tmp_path / "order").read_text().split() == ["only"]


def test_a_run_that_fails_is_left_out_and_the_next_is_taken(parts: SimpleNamespace, tmp_path: Path) -> None:
    failing: dict[str, object] = {"name": "failing", "command": "false"}
    runs = (failing, noting("after it", after=["failing"]), noting("next"))
    assert parts.main(options(parts, tmp_path, *runs)) == 1
    assert (tmp_path / "order").read_text().split() == ["next"]


def test_a_run_waits_for_its_files_and_images(parts: SimpleNamespace, tmp_path: Path) -> None:
    run = parts.Run("run", "diffnca train --data {faces}", 100, files=("{runs}/map",))
    places = {"runs": tmp_path}
    assert run.missing(tmp_path, places) == "--data faces PATH"
    assert run.missing(tmp_path, places | {"faces": tmp_path}) == "{runs}/map"
    (tmp_path / "map").touch()
    assert run.missing(tmp_path, places | {"faces": tmp_path}) == ""


def test_a_run_of_diffnca_gets_its_budget_and_folder(parts: SimpleNamespace, tmp_path: Path) -> None:
    words = parts.Run("faces-on", "diffnca train --data {faces}", 100).words({"faces": tmp_path})
    told = ["train", "--data", str(tmp_path), "--images", "100", "--out", "faces-on"]
    assert words == [sys.executable, "-m", "diffnca", *told, "--checkpoint-seconds", "180"]


def test_a_folder_with_a_blank_in_its_name_stays_one_word(parts: SimpleNamespace) -> None:
    words = parts.Run("faces-on", "diffnca train --data {faces}").words({"faces": Path("my faces")})
    assert words[3:6] == ["train", "--data", "my faces"]


def test_a_stopped_run_is_taken_up_again(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    listed(tmp_path, {"name": "long", "command": PROLONGED})
    for times in (1, 2):
        started.append(begin(tmp_path))
        wait_for(tmp_path / "begun", times)
        started[-1].terminate()
        assert started[-1].wait(60) == 0


def test_a_killed_queue_takes_its_run_with_it_and_can_start_again(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    listed(tmp_path, {"name": "long", "command": PROLONGED})
    started.append(begin(tmp_path))
    wait_for(tmp_path / "begun")
    started[-1].kill()
    started[-1].wait()
    time.sleep(0.2)
    started.append(begin(tmp_path))
    wait_for(tmp_path / "begun", 2)


def test_a_second_queue_is_refused(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    listed(tmp_path, {"name": "long", "command": PROLONGED})
    started.append(begin(tmp_path))
    wait_for(tmp_path / "begun")
    started.append(begin(tmp_path))
    _, said = started[-1].communicate(timeout=60)
    assert started[-1].returncode == 1 and b"a queue works here" in said


def test_a_run_has_the_lowest_priority(parts: SimpleNamespace, tmp_path: Path) -> None:
    parts.main(options(parts, tmp_path, {"name": "run", "command": "sh -c 'nice > priority'"}))
    assert (tmp_path / "priority").read_text().strip() == "19"


def test_the_time_over_stops_a_run_that_goes_on_later(parts: SimpleNamespace, tmp_path: Path) -> None:
    parts.main(options(parts, tmp_path, {"name": "long", "command": "sleep 60"}, hours=0.1 / 3600))
    assert not (tmp_path / "long.finished").exists()


@pytest.mark.parametrize(("hour", "day"), [(6, 1), (8, 2)])
def test_a_time_of_the_day_is_the_next_such_time(parts: SimpleNamespace, hour: int, day: int) -> None:
    end = parts.end_of(parts.Options(Path(), until="07:30"), datetime(2026, 1, 1, hour))
    assert end == datetime(2026, 1, day, 7, 30)


def test_the_table_tells_state_images_share_speed_and_sheet(
    parts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, places = tmp_path / "begun", "diffnca train --data {faces}"
    (run / "samples").mkdir(parents=True)
    (run / "samples" / "000000300.png").touch()
    lines = [{"images": images, "seconds": seconds} for images, seconds in ((100, 10.0), (300, 20.0))]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    runs = ({"name": "begun", "command": "true", "images": 1000}, {"name": "new", "command": places})
    parts.main(options(parts, tmp_path, *runs, status=True))
    _, begun, new = capsys.readouterr().out.splitlines()
    assert begun.split() == ["begun", "ready", "300", "30%", "20.0", str(run / "samples" / "000000300.png")]
    assert "waits for --data faces PATH" in new


def test_the_list_of_the_repository_is_read(parts: SimpleNamespace, tmp_path: Path) -> None:
    places = dict.fromkeys(("faces", "tissue", "canopy", "runs"), tmp_path)
    lines = list(parts.table([parts.Run(**each) for each in entries(parts)], tmp_path, places))
    assert len(lines) > 1 and not any("--data" in line for line in lines)


def entries(parts: SimpleNamespace) -> list[dict[str, object]]:
    found: list[dict[str, object]] = parts.tomllib.loads(parts.LIST.read_text())["run"]
    return found
