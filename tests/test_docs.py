"""The code of README.md, of docs/ and of the notebooks runs, page by page, in a folder that has the examples.

The pages say nothing about tests. Three rules make their blocks short and safe to run here:
1. A command of ours runs in this process, with small numbers: `SMALL` bounds the value of a flag,
   `ADDED` flags are added where the command has none of them, and `--minutes N` becomes `--images 8`.
   A verb that samples gets `--steps 1` (a model named like `pathology-4step` keeps its own steps).
2. In Python blocks, `height=`, `width=` and `steps=` are bounded in the same way, and `generate` gets steps.
3. `tests/docs.toml` has the rest, for all pages at once, so a command may move from page to page:
   `[skip]`: a block that holds this text is not run, and why; `[replace]`: OLD = NEW, before rules 1 and 2;
   `[needs]`: a page that is left out where a package of an extra is missing.
A notebook is a page whose cells are Markdown, Python, or commands that begin with `!`. It runs in this
process, without Jupyter, which has some thirty packages and takes seconds for each kernel.
A block with a command that is not ours must be skipped. An entry of the table that no page needs is an error.
To try one page: `pytest tests/test_docs.py -k tutorial`.
"""

import importlib
import json
import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffnca.cli.main import main

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *NOTEBOOKS]
TABLE = tomllib.loads((Path(__file__).parent / "docs.toml").read_text())
BLOCK = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)\n```", re.DOTALL | re.MULTILINE)
SMALL = {
    **{"--height": 32, "--width": 32, "--steps": 1, "--n": 12, "--frames": 2, "--rounds": 1},
    **{"--top": 16, "--bottom": 16, "--left": 16, "--right": 16},
    **{"--data.crop": 32, "--batch": 2, "--count": 2},
}
DRAWING = "examples/drawing/glands.png"
"""A large picture, of which the pages use a smaller copy."""
ADDED = {
    **{verb: {"--steps": "1"} for verb in ("sample", "upscale", "vary", "interpolate", "synthesize")},
    **{verb: {"--steps": "1", "--rounds": "1"} for verb in ("inpaint", "extend")},
    "train": {"--sample-minutes": "0", "--data.crop": "32"},
    "distill": {"--sample-minutes": "0"},
    "bench": {"--height": "16", "--width": "16", "--batch": "1", "--rounds": "1"},
}


@dataclass(frozen=True)
class Block:
    language: str
    code: str


def text_of(page: Path) -> str:
    """Return a page as Markdown, each cell of a notebook as a block."""
    text = page.read_text(encoding="utf-8")
    return text if page.suffix == ".md" else "\n\n".join(map(markdown_of, json.loads(text)["cells"]))


def markdown_of(cell: dict[str, Any]) -> str:
    """Return a cell of a notebook as Markdown."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    language = "bash" if source.startswith("!") else "python"
    return f"```{language}\n{re.sub('^!', '', source, flags=re.MULTILINE)}\n```"


def blocks_of(page: str, table: dict[str, dict[str, str]] = TABLE) -> list[Block]:
    """Return the blocks of a page that are to be run, shortened as the table says."""
    blocks = []
    for match in BLOCK.finditer(page):
        code = match["code"]
        assert match["language"], f"a block without a language: {code}"
        if match["language"] not in ("bash", "python") or any(text in code for text in table["skip"]):
            continue
        for old, new in table["replace"].items():
            code = code.replace(old, new)
        blocks.append(Block(match["language"], code))
    return blocks


def shortened(arguments: list[str]) -> list[str]:
    """Return the arguments of a command with small numbers, where its canvas may be small."""
    verb = arguments[0]
    small = dict(SMALL)
    if "--region" in arguments or "--dry-run" in arguments:
        del small["--height"], small["--width"]
    if verb == "distill":
        del small["--steps"]  # they are what the student learns
    short = list(arguments)
    for place, (flag, value) in enumerate(pairwise(arguments), 1):
        if flag in small and value.isdigit():  # `--width 0.1` is no number of pixels
            short[place] = str(min(int(value), small[flag]))
        elif flag == "--minutes":
            short[place - 1 : place + 1] = ["--images", "8"]
    if "--region" in short:
        sides = slice(short.index("--region") + 3, short.index("--region") + 5)
        short[sides] = ["16", "16"]
    is_student = re.search(r"\d-?step", " ".join(arguments[1:2]))  # has the steps that it learned
    added = {} if is_student or "--help" in arguments else ADDED.get(verb, {})
    return short + [word for flag in added if flag not in short for word in (flag, added[flag])]


def run_bash(code: str) -> None:
    """Run the commands of a block, all of which are ours."""
    for line in code.replace("\\\n", "").splitlines():
        program, *arguments = shlex.split(line, comments=True) or ["diffnca", "info"]
        assert program == "diffnca", f"not a command of ours, and not skipped by tests/docs.toml: {line}"
        try:
            code_of_exit = main(shortened(arguments) if arguments else [])
        except SystemExit as stop:  # after the text of `--help`
            code_of_exit = stop.code or 0
        assert code_of_exit == 0, line


def run_python(code: str, page: Path, names: dict[str, Any]) -> None:
    """Run a block of Python with small canvases and few steps."""
    most = {"steps": 1} if "region=" in code else {"height": 32, "width": 32, "steps": 1}  # see `shortened`
    bounded = re.sub(
        rf"\b({'|'.join(most)})=(\d+)(?=[,)])", lambda m: f"{m[1]}={min(int(m[2]), most[m[1]])}", code
    )
    if "steps=" not in bounded:
        bounded = re.sub(r"\bgenerate\((\w+), ", r"generate(\1, steps=1, ", bounded)
    exec(compile(bounded, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name in TABLE["needs"]:
        pytest.importorskip(TABLE["needs"][page.name], reason=f"needs {TABLE['needs'][page.name]}")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("made"))
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    with Image.open(tmp_path / DRAWING) as drawing:
        drawing.reduce(4).save(tmp_path / DRAWING)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / page.parent.relative_to(ROOT) if page in NOTEBOOKS else tmp_path)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)  # takes longer than a batch
    monkeypatch.setattr("diffnca.training.start.NUM_CROPS", 1)  # by which weights to begin with are chosen
    monkeypatch.setattr("diffnca.training.start.CROP_PX", 32)
    monkeypatch.setattr("diffnca.training.start.NUM_LEVELS", 1)
    monkeypatch.setattr("diffnca.training.averages.Averages.widths", (0.1,))  # among which one is chosen
    monkeypatch.setattr("diffnca.jobs.plan.MEASURED_PX", (64,))
    monkeypatch.setattr("diffnca.training.preview._speed", lambda *_: 100.0)  # takes some training steps
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(text_of(page)):
        if block.language == "bash":
            run_bash(block.code.format_map(names) if page in NOTEBOOKS else block.code)
        else:
            run_python(block.code, page, names)


@pytest.mark.parametrize("text", [*TABLE["skip"], *TABLE["replace"]])
def test_each_entry_of_the_table_is_needed_by_a_page(text: str) -> None:
    codes = [match["code"] for page in PAGES for match in BLOCK.finditer(text_of(page))]
    assert any(text in code for code in codes)


def test_a_command_that_is_not_ours_must_be_skipped() -> None:
    with pytest.raises(AssertionError, match="not skipped"):
        run_bash("pip install something")


def test_a_block_that_is_skipped_is_not_run_and_others_are_shortened() -> None:
    table = {"skip": {"--all": "takes hours"}, "replace": {"--count 90": "--count 2"}}
    page = "```bash\ndiffnca a --all\n```\n\n```bash\ndiffnca b --count 90\n```\n"
    assert blocks_of(page, table) == [Block("bash", "diffnca b --count 2")]


@pytest.mark.parametrize(
    ("command", "short"),
    [
        ("sample m --height 4096 --width 9", "sample m --height 32 --width 9 --steps 1"),
        ("sample m --height 900 --region 1 2 300 400", "sample m --height 900 --region 1 2 16 16 --steps 1"),
        ("train --data . --minutes 5", "train --data . --images 8 --sample-minutes 0 --data.crop 32"),
        ("vary m-4step --image a.png", "vary m-4step --image a.png"),
        ("average run --width 0.1", "average run --width 0.1"),
        ("distill m --steps 4 --minutes 30", "distill m --steps 4 --images 8 --sample-minutes 0"),
    ],
)
def test_a_command_gets_small_numbers(command: str, short: str) -> None:
    assert shortened(command.split()) == short.split()


def test_each_function_of_the_equation_table_exists() -> None:
    named = re.findall(r"`(diffnca\.[\w.]+)`", (ROOT / "docs" / "equations.md").read_text())
    assert len(named) > 15
    for name in named:
        parts = name.split(".")
        depth = next(n for n, part in enumerate(parts) if n and (part[0].isupper() or n == len(parts) - 1))
        owner: Any = importlib.import_module(".".join(parts[:depth]))
        for part in parts[depth:]:
            owner = getattr(owner, part)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pictures_and_pages_that_a_page_names_exist(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_a_notebook_is_stored_without_outputs(page: Path) -> None:
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
