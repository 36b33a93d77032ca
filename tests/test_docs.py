"""The code of README.md and docs/ runs, page by page, in an empty folder that has the examples.

A comment above a block says what the test does with it: `<!-- test: skip WHY -->` leaves it out, and
`<!-- test: OLD => NEW; OLD => NEW -->` makes a long command short. Blocks without one run as they stand.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- test: (?P<note>.*?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    code: str


def runnable_blocks(page: str) -> list[Block]:
    """Return the blocks of a page that are to be run, shortened as their comments say."""
    blocks = []
    for match in BLOCK.finditer(page):
        note, code = match["note"] or "", match["code"]
        assert match["language"], f"a block without a language: {code}"
        if note.startswith("skip "):
            continue
        for substitution in filter(None, note.split("; ")):
            old, new = substitution.split(" => ")
            assert old in code, f"{old!r} is not in the block below it"
            code = code.replace(old, new)
        if match["language"] in ("bash", "python"):
            blocks.append(Block(match["language"], code))
    return blocks


def run_bash(code: str) -> None:
    """Run the commands of a block, all of which are ours."""
    for line in code.replace("\\\n", "").splitlines():
        assert line.startswith("diffnca "), f"not a command of ours, and not marked `skip`: {line}"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in runnable_blocks(page.read_text()):
        match block.language:
            case "bash":
                run_bash(block.code)
            case "python":
                exec(compile(block.code, str(page), "exec"), names)


def test_a_command_that_is_not_ours_must_be_marked() -> None:
    with pytest.raises(AssertionError, match="not marked"):
        run_bash("pip install something")


def test_a_substitution_must_apply() -> None:
    with pytest.raises(AssertionError, match="is not in the block"):
        runnable_blocks("<!-- test: --minutes 9 => --images 8 -->\n```bash\ndiffnca train\n```")


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
