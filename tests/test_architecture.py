"""Imports go one way: a module imports only from its own row and the rows below (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

import diffnca

SOURCE = Path(diffnca.__file__).parent
FIRST = {"geometry", "noise", "pixels", "networks", "config", "stores"}
LAST = {"recipes", "interop", "training", "evaluation", "reproduction", "about", "benchmark", "cli", "web"}
LAST |= {"sampling", "gigapixel", "targets", "making", "editing", "films"}
SECOND = {"models", "diffusion", "variational", "writers", "data", "metrics", "commands"}
MAY_IMPORT = dict.fromkeys(FIRST | SECOND, FIRST)
MAY_IMPORT["engine"] = FIRST | {"models", "diffusion"}
MAY_IMPORT["tasks"] = MAY_IMPORT["engine"] | {"engine", "variational"}
MAY_IMPORT["giga"] = MAY_IMPORT["tasks"] | {"tasks"}
MAY_IMPORT |= {name: set(MAY_IMPORT) | LAST for name in LAST}
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
def test_imports_go_one_way(path: Path) -> None:
    owner = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert owner in MAY_IMPORT, f"{owner} has no place in docs/architecture.md"
    assert imported(path) - {owner} <= MAY_IMPORT[owner]
