"""The shape of the package (docs/architecture.md): rows, no circles, small files, and only `cli` speaks."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import torch

import diffnca
from diffnca.evaluation.metrics.distances import polynomial_kernel

SOURCE = Path(diffnca.__file__).parent
ROWS = [
    {"errors"},
    {"canvas", "config", "files", "progress"},
    {"networks", "baselines", "diffusion", "data", "formats"},
    {"engine", "models", "view"},
    {"sampling"},
    {"tiles", "training", "evaluation", "export"},
    {"jobs", "comparison", "benchmark"},
    {"app"},
    {"cli"},
]
ROW = {part: number for number, parts in enumerate(ROWS) for part in parts}
FILES = sorted(SOURCE.rglob("*.py"))
PROGRAMS = {"__main__.py", "comparison/child.py"}
"""Files that Python runs as a program: they end with an exit code."""
EXITS = {"sys.exit", "exit", "quit", "SystemExit"}


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def dotted(node: ast.AST) -> str:
    """Return a name with its attributes, as it is written; nothing for other syntax."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(value, name):
            return f"{dotted(value)}.{name}"
    return ""


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the dotted names of the package that a file imports, anywhere in it."""
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("diffnca.")}


def file_of(name: str) -> Path | None:
    """Return the file that an imported name leads to: a module, or the one that defines the name."""
    for parts in (name.split(".")[1:], name.split(".")[1:-1]):
        module = SOURCE.joinpath(*parts)
        for path in (module.with_suffix(".py"), module / "__init__.py"):
            if parts and path.is_file():
                return path
    return None


def test_imports_are_absolute() -> None:
    relative = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_every_part_has_its_row() -> None:
    assert {part_of(path) for path in FILES} - {"__init__", "__main__"} == set(ROW)


def test_imports_go_down() -> None:
    up = [
        f"{name_of(path)} imports {name}"
        for path in FILES
        if (owner := part_of(path)) in ROW
        for name in sorted(imported(path))
        if (part := name.split(".")[1]) != owner and ROW.get(part, -1) >= ROW[owner]
    ]
    assert up == []


def test_no_files_import_each_other_in_a_circle() -> None:
    needs = {path: {file_of(name) for name in imported(path)} - {None, path} for path in FILES}
    inside = {path: needed for path, needed in needs.items() if path.parent != SOURCE}
    try:
        TopologicalSorter(inside).prepare()
        circle = []
    except CycleError as error:
        circle = [name_of(path) for path in error.args[1]]
    assert circle == []


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{name_of(path)}: {node.name}"
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


def places_below_cli(kind: Any, names: set[str]) -> list[str]:
    """Return where files other than those of `cli` call one of the names, or use it."""
    return [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        if part_of(path) != "cli"
        for node in nodes(path)
        if isinstance(node, kind) and dotted(node.func if kind is ast.Call else node) in names
    ]


def test_nothing_below_cli_prints() -> None:
    calls = places_below_cli(ast.Call, {"print", "sys.stdout.write", "sys.stderr.write"})
    assert [
        place for place in calls if not place.startswith("progress.py")
    ] == []  # it draws the bar for `cli`


def test_nothing_below_cli_knows_an_exit_code() -> None:
    exits = places_below_cli(ast.Name | ast.Attribute, EXITS)
    assert [place for place in exits if place.split(":")[0] not in PROGRAMS] == []


def test_the_page_names_every_file() -> None:
    page = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page[page.index("## Files") : page.index("## What the parts promise")]
    rows = {row.split("`")[1]: row for row in table.splitlines() if row.startswith("| `")}
    unnamed = [
        f"{path.parent.name}/{path.stem}"
        for path in FILES
        if path.parent.parent == SOURCE
        and path.stem != "__init__"
        and f"`{path.stem}`" not in rows[path.parent.name]
    ]
    assert unnamed == []


def test_the_suite_checks_the_shapes_that_annotations_name() -> None:
    with pytest.raises(TypeError, match=r"polynomial_kernel\(\) parameter y"):
        polynomial_kernel(torch.zeros(2, 3).double(), torch.zeros(2, 4).double())
