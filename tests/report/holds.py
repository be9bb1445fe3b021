"""Whether a value has the shape that an annotation says: TypedDicts, lists, unions, literals and plain types."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict


def check(value: Any, shape: Any, at: str = "value") -> None:
    """Raise AssertionError, which names the place, where the value has another shape."""
    origin, inner = get_origin(shape), get_args(shape)
    if is_typeddict(shape):
        hints = get_type_hints(shape)
        assert isinstance(value, dict), at
        assert value.keys() == hints.keys(), at
        for name, hint in hints.items():
            check(value[name], hint, f"{at}.{name}")
    elif origin in (list, tuple):
        assert isinstance(value, list | tuple), at
        kinds = inner if origin is tuple else inner * len(value)
        for number, (item, kind) in enumerate(zip(value, kinds, strict=True)):
            check(item, kind, f"{at}[{number}]")
    elif origin in (Union, types.UnionType):
        assert any(_fits(value, kind) for kind in inner), f"{at}: {value!r}"
    elif origin is Literal:
        assert value in inner, f"{at}: {value!r}"
    elif shape is not Any:
        _check_plain(value, origin or shape, at)


def _check_plain(value: Any, kind: type[Any], at: str) -> None:
    allowed = (int, float) if kind is float else kind
    assert isinstance(value, allowed), f"{at}: {value!r} is no {kind}"
    assert kind is bool or not isinstance(value, bool), f"{at}: {value!r} is no {kind}"


def _fits(value: Any, kind: Any) -> bool:
    try:
        check(value, kind)
    except AssertionError:
        return False
    return True
