"""Imports point one way: schemas ← pipeline ← stages ← the verbs; rewards stand beside them, the trainer on them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "stepsearch_data"
MODULES = sorted(ROOT.rglob("*.py"))
# What each room may import of ours, beside itself.
ALLOWED = {
    "schemas": set(),
    "text": set(),
    "exports": {"schemas", "text", "pipeline"},
    "release": {"schemas", "text", "pipeline", "exports", "audit", "terminal"},
    "synth": set(),
    "rewards": {"text"},
    "pipeline": {"schemas", "text"},
    "report": {"schemas", "pipeline", "stages", "rewards", "exports", "serve"},
    "scoring": {"schemas", "pipeline", "rewards"},
    "display": {"schemas", "pipeline", "stages", "exports", "release", "scoring", "terminal", "trainer"},
    "stages": {"schemas", "text", "pipeline", "rewards"},
    "trainer": {"schemas", "text", "pipeline", "rewards", "exports", "indexes", "terminal"},
    "demo": {"schemas", "text", "pipeline", "rewards", "exports", "indexes", "terminal", "trainer", "synth"},
}


def room(path: Path) -> str:
    """The first folder below the package; the demo is a room of its own inside of the trainer's."""
    if path.parent == ROOT / "trainer" / "demo":
        return "demo"
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Our rooms that a module imports, at its top or inside its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stepsearch_data."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("stepsearch_data.")}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    if room(path) in ALLOWED:
        assert imported(path) <= ALLOWED[room(path)] | {room(path)}


def test_stages_do_not_import_each_other() -> None:
    stages = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    for name in stages:
        for node in ast.walk(ast.parse((ROOT / "stages" / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "stepsearch_data.stages":
                assert not stages & {alias.name for alias in node.names}, name
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").removeprefix("stepsearch_data.stages.") not in stages, name
