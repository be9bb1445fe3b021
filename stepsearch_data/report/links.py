"""Addresses of the page's lists, which counts lead to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

Links = dict[str, str]
"""Of a row: addresses of what its counts count, by their columns; the first is that of its mark in a chart."""


def trajectories(asked: Mapping[str, Any] = {}, **more: Any) -> str:
    """Return the address of the trajectories that these filters keep; a list allows each of its values."""
    return _address("#/t", {**asked, **more})


def trajectory(question_id: str) -> str:
    """Return the address of a question's trajectory."""
    return f"#/t/{quote(question_id, safe='')}"


def rejects(**asked: str) -> str:
    """Return the address of rejected rows."""
    return _address("#/r", asked)


def _address(page: str, asked: Mapping[str, Any]) -> str:
    pairs = [(name, value) for name, of in asked.items() for value in (of if isinstance(of, list) else [of])]
    query = urlencode([(name, _written(value)) for name, value in pairs])
    return f"{page}?{query}" if query else page


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
