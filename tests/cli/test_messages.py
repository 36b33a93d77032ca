"""What a user reads: errors in the words that were typed, and work that outlives its readers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffnca.cli import main as cli
from diffnca.cli.images import Sample, counted
from diffnca.cli.inspections import as_text
from diffnca.cli.main import as_typed, main
from diffnca.cli.models import Train
from diffnca.jobs.options import Place
from diffnca.progress import Progress, amount

MANY = ["sample", "pathology-4step", "--height", "8", "--width", "8", "--count", "2"]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in which $DIFFNCA is the command."""
    env = {**os.environ, "DIFFNCA": f"{sys.executable} -m diffnca"}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True)


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


ALL = [f"x-00{index}.png" for index in range(2)]


def test_work_outlives_the_reader_of_its_messages(tmp_path: Path) -> None:
    done = shell(f"$DIFFNCA {' '.join(MANY)} --out x.png | true; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.returncode, done.stderr, made(tmp_path)) == (0, "", ALL)


def test_work_needs_neither_stdout_nor_stderr(tmp_path: Path) -> None:
    done = shell(f"$DIFFNCA {' '.join(MANY)} --out x.png >&- 2>&-", tmp_path)
    assert (done.returncode, made(tmp_path)) == (0, ALL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_result_that_is_lost_is_an_error(tmp_path: Path) -> None:
    done = shell("$DIFFNCA info --json > /dev/full", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "stdout: cannot be written" in done.stderr


def test_an_error_is_an_error_where_nobody_reads_it(tmp_path: Path) -> None:
    done = shell("$DIFFNCA view nothing 2>&1 | true; exit ${PIPESTATUS[0]}", tmp_path)
    assert done.returncode == 2


def test_a_terminal_that_has_gone_ends_no_progress() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream, Progress(stream, line_seconds=0.0) as progress:
        progress("tiles", 1, 2)
        progress("tiles", 2, 2)


def test_a_line_is_shown_now_and_then_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(sys.stderr, line_seconds=0.0) as progress:
        progress("tiles", 1, 4)
        progress("tiles", 2, 4)
    assert capsys.readouterr().err.splitlines()[0] == "diffnca: tiles 25%"


def failing(*_: object) -> int:
    raise KeyError("sigma")


def test_an_error_of_diffnca_is_one_line_that_asks_for_a_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sample, "run", failing)
    assert main(["sample", "aerial"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "KeyError: 'sigma'" in said and "please report it" in said


@pytest.mark.parametrize("arguments", [["--debug", "sample", "aerial"], ["sample", "aerial", "--debug"]])
def test_debug_shows_where_an_error_arose(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(Sample, "run", failing)
    assert main(arguments) == 1
    assert "in failing" in capsys.readouterr().err


def test_an_interrupted_command_ends_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sample, "run", interrupted)
    assert main(["sample", "aerial"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "diffnca: stopped\n"


@pytest.mark.parametrize(
    ("command", "text", "typed"),
    [
        (Sample(model="a"), "even_px=0 and tone=(1.0, 2.0): set", "--even-px 0 and --tone (1.0, 2.0): set"),
        (Sample(model="a"), "out=a=b.png, tile=3, seed=4", "--out a=b.png, --tile 3, --seed 4"),
        (Sample(model="a"), "channels=3 of the file, x.even_px=3", "channels=3 of the file, x.even_px=3"),
        (Train(), "training.batch=0 model.cell.hidden=1", "--training.batch 0 --model.cell.hidden 1"),
    ],
    ids=str,
)
def test_messages_name_flags_as_they_are_typed(command: cli.Verb, text: str, typed: str) -> None:
    assert as_typed(text, set(cli.flags_of(command))) == typed


@pytest.mark.parametrize("value", ["steps=4.png", "label=cat/1.png", "data=x/seed=3.png"])
def test_messages_keep_what_the_user_has_typed(value: str) -> None:
    said = as_typed(f"{value}: no file, steps=2", {"steps", "data"}, [value])
    assert said == f"{value}: no file, --steps 2"


def test_a_message_may_begin_with_a_flag() -> None:
    flags = {"label", "training.batch"}
    assert as_typed("label: must be left out", flags) == "--label: must be left out"
    assert as_typed("cat: must be left out", flags) == "cat: must be left out"


def test_messages_complete_the_name_of_a_flag_as_it_was_typed() -> None:
    assert as_typed("hidden=0: must", {"data", "model.cell.hidden"}) == "--model.cell.hidden 0: must"


def test_the_home_folder_is_expanded_also_after_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    command = cli.parse(["vary", "aerial", "--out=~/x.png", "--image", "~/y.png", "--film=~/z.gif"])
    assert command.place == Place(out="/home/me/x.png", film=Path("/home/me/z.gif"))  # type: ignore[attr-defined]
    assert command.image == Path("/home/me/y.png")  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", ["1", "5", "nonsense"])
def test_a_narrow_terminal_breaks_no_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["sample", "aerial", "--heigth", "3"]) == 2
    assert "Unrecognized options: --heigth" in capsys.readouterr().err
    assert os.environ["COLUMNS"] == columns


def test_a_current_folder_that_was_deleted_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["sample", "aerial"]) == 2
    assert "the current folder has been deleted" in capsys.readouterr().err


def test_an_error_of_the_system_names_its_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Sample, "run", lambda *_: (tmp_path / "missing").read_text())
    assert main(["sample", "aerial"]) == 2
    assert capsys.readouterr().err == f"diffnca: {tmp_path}/missing: no such file or directory\n"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (2000, "2,000 steps")]
)
def test_things_are_counted_in_english(number: int, text: str) -> None:
    assert counted(number, "step") == text


@pytest.mark.parametrize(("num_bytes", "text"), [(1.5e3, "1.5 kB"), (2e6, "2.0 MB"), (3e12, "3,000.0 GB")])
def test_amounts_are_never_nothing(num_bytes: float, text: str) -> None:
    assert amount(num_bytes) == text


def test_facts_are_lines_with_groups_indented() -> None:
    facts = {"radius_px": 83, "model": {"cell": {"hidden": 1000, "dilations": (1, 2)}, "fourier": None}}
    assert as_text(facts).splitlines() == [
        "radius px: 83",
        "model:",
        "  cell:",
        "    hidden: 1,000",
        "    dilations: 1, 2",
        "  fourier: None",
    ]


def test_groups_in_a_list_are_a_line_each_which_begins_with_words() -> None:
    facts = {"judges": [{"error": 2.0, "features": "lite"}, {"error": 0.5, "features": "inception"}]}
    assert as_text(facts).splitlines() == [
        "judges:",
        "  features lite, error 2.0",
        "  features inception, error 0.5",
    ]


@pytest.mark.parametrize(("count", "shown"), [(20, 20), (1021, 3)])
def test_a_list_of_more_than_twenty_names_shows_three(count: int, shown: int) -> None:
    names = [f"{number}.png" for number in range(count)]
    rest = f" and {count - shown:,} more (--json has all)" if count > shown else ""
    assert as_text({"held_out": names}) == f"held out: {', '.join(names[:shown])}{rest}"
