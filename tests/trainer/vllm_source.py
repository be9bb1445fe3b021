"""What vLLM's own source defines. It is read, not imported, for which it needs a GPU; `make test-train` fetches it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from zipfile import ZipFile

WHEEL = next((Path(__file__).parents[2] / ".venv-train").glob("vllm-*.whl"), None)
_ROUTE = re.compile(r'^@router\.\w+\(\s*"(/[^"]*)"', re.MULTILINE)


@cache
def module(name: str) -> ast.Module:
    """The source of a module, or of a package's `__init__`."""
    assert WHEEL
    path = name.replace(".", "/")
    with ZipFile(WHEEL) as wheel:
        (found,) = {f"{path}.py", f"{path}/__init__.py"} & set(wheel.namelist())
        return ast.parse(wheel.read(found))


def exports(name: str) -> set[str]:
    """The functions and classes that can be imported from a module; vLLM's own are keys of a table."""
    tree = module(name)
    tables = (node.keys for node in ast.walk(tree) if isinstance(node, ast.Dict))
    keys = {str(key.value) for table in tables for key in table if isinstance(key, ast.Constant)}
    return keys | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def fields(name: str, kind: str) -> set[str]:
    """The fields of a class of a module."""
    body = (node.target for node in _class(name, kind).body if isinstance(node, ast.AnnAssign))
    return {target.id for target in body if isinstance(target, ast.Name)}


def parameters(name: str, kind: str, method: str) -> set[str]:
    """The names of a method's parameters."""
    (found,) = (node for node in _class(name, kind).body if getattr(node, "name", "") == method)
    assert isinstance(found, ast.FunctionDef)
    return {each.arg for each in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)}


def routes() -> set[str]:
    """The paths that its server answers."""
    assert WHEEL
    with ZipFile(WHEEL) as wheel:
        files = [name for name in wheel.namelist() if re.fullmatch(r"vllm/entrypoints/.*\.py", name)]
        return {path for name in files for path in _ROUTE.findall(wheel.read(name).decode())}


def _class(name: str, kind: str) -> ast.ClassDef:
    (found,) = (node for node in module(name).body if isinstance(node, ast.ClassDef) and node.name == kind)
    return found
