"""Prints the report's shapes as TypeScript: `make check` checks the page's JavaScript against them."""

from __future__ import annotations

import json
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from stepsearch_data.report import shapes

_NAMES = {str: "string", int: "number", float: "number", bool: "boolean", NoneType: "null", Any: "unknown"}


def _name(kind: Any) -> str:
    """What TypeScript calls a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        return str(kind.__name__)
    if origin is Literal:
        return " | ".join(map(json.dumps, inner))
    if origin is UnionType:
        return " | ".join(map(_name, inner))
    if origin is list:
        return f"({_name(inner[0])})[]"
    if origin is tuple:
        return f"[{', '.join(map(_name, inner))}]"
    return f"{{ [name: string]: {_name(inner[1])} }}" if origin is dict else _NAMES[kind]


for shape in filter(is_typeddict, vars(shapes).values()):
    fields = "".join(f"  {name}: {_name(kind)};\n" for name, kind in get_type_hints(shape).items())
    print(f"export interface {shape.__name__} {{\n{fields}}}\n")
