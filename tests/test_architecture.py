"""Imports point one way: core ← remote ← llm, search ← pipeline ← stages ← cli. No package is left out."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "stepsearch_data"
MODULES = sorted(ROOT.rglob("*.py"))
# What each package may import of ours, beside itself.
BASE = {"core", "schemas", "templates"}
STORE = BASE | {"remote", "llm", "search", "sources", "pipeline"}
TRAINER = STORE | {"rewards", "exports", "indexes", "sql"}
CLI = TRAINER | {
    "stages",
    "attrition",
    "audit",
    "compare",
    "release",
    "report",
    "scoring",
    "serve",
    "synth",
    "trainer",
    "evaluation",
}
ALLOWED = {
    "__init__": {"api", "core", "trajectory"},
    "core": set(),
    "executors": {"core"},
    "schemas": set(),
    "templates": {"core", "schemas"},
    "synth": {"core"},
    "remote": {"core"},
    "rewards": {"core"},
    "sources": {"core", "schemas", "remote", "rewards"},
    "llm": {"core", "remote"},
    "search": {"core", "executors", "remote", "llm", "sources"},
    "pipeline": BASE | {"executors", "remote", "llm", "search", "sources"},
    "sql": {"core", "schemas", "pipeline"},
    "indexes": {"core", "executors", "pipeline", "search"},
    "exports": BASE | {"pipeline", "rewards", "sources"},
    "stages": STORE | {"rewards"},
    "attrition": BASE | {"pipeline", "stages"},
    "audit": BASE | {"pipeline", "stages", "sql", "attrition"},
    "compare": BASE | {"pipeline", "remembered", "sql"},
    "scoring": BASE | {"executors", "pipeline", "rewards", "sources"},
    "serve": {"core", "indexes", "search", "sources"},
    "release": BASE
    | {"pipeline", "stages", "attrition", "audit", "sql", "trajectory", "exports", "remote", "report", "rewards"}
    | {"sources", "evaluation", "trainer"},
    "report": BASE
    | {"attrition", "audit", "compare", "exports", "llm", "pipeline", "rewards", "serve", "sources", "sql", "stages"},
    "trainer": TRAINER,
    "environments": TRAINER | {"builds", "scoring", "trainer"},
    "evaluation": TRAINER | {"environments", "trainer"},
    "demo": TRAINER | {"trainer", "evaluation", "synth"},
    "remembered": STORE,
    "builds": STORE | {"stages", "remembered"},
    "rollouts": BASE | {"builds", "evaluation", "pipeline", "sources", "sql"},
    "trajectory": BASE | {"pipeline"},
    "api": CLI | {"builds", "trajectory"},
    "cli": CLI | {"api", "builds", "remembered", "rollouts"},
    "__main__": {"cli"},
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
    assert imported(path) <= ALLOWED[room(path)] | {room(path)}


def test_stages_do_not_import_each_other() -> None:
    stages = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    for name in stages:
        for node in ast.walk(ast.parse((ROOT / "stages" / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "stepsearch_data.stages":
                assert not stages & {alias.name for alias in node.names}, name
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").removeprefix("stepsearch_data.stages.") not in stages, name


def name_of(path: Path) -> str:
    """How a module is imported."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(path: Path, known: set[str]) -> set[str]:
    """Our modules that a module names in imports: at its top, inside its functions and for types only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            names |= {name if name in known else f"{node.module}" for name in whole}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & known - {name_of(path)}


def test_no_module_imports_itself_through_others() -> None:
    known = {name_of(path) for path in MODULES} - {ROOT.name}  # of the whole package they import its version
    imports = {name_of(path): modules_imported(path, known) for path in MODULES}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_no_package_imports_itself_through_others() -> None:
    rooms: dict[str, set[str]] = {}
    for path in MODULES:
        rooms.setdefault(room(path), set()).update(imported(path) - {room(path)})
    TopologicalSorter(rooms).prepare()
