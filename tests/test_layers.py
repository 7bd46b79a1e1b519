"""The picture in the package's docstring, enforced: imports go downwards only."""

import ast
from pathlib import Path

import pytest
import threefactors

PACKAGE = Path(threefactors.__file__).parent
RANKS = {
    "_types": 0, "_rng": 0, "_identity": 0, "_launch": 0, "settings": 0,
    "theory": 1, "training": 1, "simulation": 1, "measurement": 1,
    "experiments": 2, "inference": 3, "presentation": 4, "publishing": 5, "cli": 6, "__main__": 7,
}  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


def layer(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "threefactors" and len(parts) > 1 else None


def imported(source: str) -> set[str]:
    """Layers that a source imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {layer(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the layer they come from"
            if node.module == "threefactors":
                found |= {alias.name for alias in node.names}
            else:
                found.add(layer(node.module or ""))
    return found - {None}


def misplaced(home: str, source: str) -> set[str]:
    """Imports that do not go down: to a higher layer, or sideways to another of the same rank above 0."""
    return {to for to in imported(source) - {home} if RANKS[to] > RANKS[home] or RANKS[to] == RANKS[home] > 0}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert not misplaced(home, path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_rooms_not_houses(path):
    assert len(path.read_text().splitlines()) <= 350


def test_a_planted_upward_import_is_seen():
    assert misplaced("theory", "from threefactors.training import SGD") == {"training"}  # the scientific blind
    assert misplaced("training", "def f():\n    import threefactors.inference.claims") == {"inference"}
    assert not misplaced("inference", "from threefactors._rng import generator\nimport torch")


def test_every_layer_is_in_the_picture():
    text = threefactors.__doc__ or ""
    for name, rank in RANKS.items():
        if 1 <= rank <= 6:
            assert name in text, f"the package docstring does not show {name}"
