"""The shape of the package (docs/architecture.md): rows, no circles, small files, and only `cli` speaks."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
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
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


def below_cli() -> list[tuple[str, ast.AST]]:
    """Return the syntax of all files but those of `cli`, with the place of each node."""
    paths = [path for path in FILES if part_of(path) != "cli"]
    return [
        (f"{name_of(path)}:{getattr(node, 'lineno', 0)}", node)
        for path in paths
        for node in ast.walk(tree(path))
    ]


def test_nothing_below_cli_prints() -> None:
    calls = [
        place
        for place, node in below_cli()
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    ]
    assert [
        place for place in calls if not place.startswith("progress.py")
    ] == []  # it draws the bar for `cli`


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
