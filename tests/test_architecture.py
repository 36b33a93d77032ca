"""Imports go down: a part imports only from the rows below its own (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

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
MODULES = [path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE or path.stem[:2] != "__"]


def imported(path: Path) -> set[str]:
    """Return the parts of the package that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), "imports are absolute"
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("diffnca.")} - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    owner = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert owner in ROW, f"{owner} has no place in docs/architecture.md"
    up = {part for part in imported(path) - {owner} if ROW[part] >= ROW[owner]}
    assert not up, f"{owner} stands in row {ROW[owner]} and must not import {up}"
