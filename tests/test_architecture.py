"""The shape of the package (docs/architecture.md): rows, no circles, small files, and only `cli` speaks."""

import ast
from functools import cache
from pathlib import Path

import diffnca

SOURCE = Path(diffnca.__file__).parent
ROWS = [
    {"errors"},
    {"canvas", "config", "files", "progress"},
    {"networks", "baselines", "diffusion", "data", "formats"},
    {"engine", "models", "view"},
    {"sampling"},
    {"tiles", "training", "evaluation"},
    {"jobs", "comparison", "benchmark"},
    {"cli"},
]
ROW = {part: number for number, parts in enumerate(ROWS) for part in parts}
FILES = sorted(SOURCE.rglob("*.py"))
PROGRAMS = {"__main__.py", "comparison/child.py"}
"""Files that Python runs as a program: they end with an exit code."""
EXITS = {"sys.exit", "exit", "quit", "SystemExit"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the dotted names of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("diffnca.")}


def test_imports_are_absolute() -> None:
    relative = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree(path))
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


def below_cli() -> list[tuple[str, ast.AST]]:
    """Return the syntax of all files but those of `cli`, with the place of each node."""
    paths = [path for path in FILES if part_of(path) != "cli"]
    return [
        (f"{name_of(path)}:{getattr(node, 'lineno', 0)}", node)
        for path in paths
        for node in ast.walk(tree(path))
    ]


def test_nothing_below_cli_knows_an_exit_code() -> None:
    exits = [
        place
        for place, node in below_cli()
        if place.split(":")[0] not in PROGRAMS
        and isinstance(node, (ast.Attribute, ast.Name))
        and ast.unparse(node) in EXITS
    ]
    assert exits == []


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
