"""Texts as Markdown: data can neither end a block nor begin one."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from stepsearch_data.core.terminal import visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|~!])")
_INVISIBLE = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")  # what reorders or hides a text
_TICKS = re.compile("`+")
_LONGEST_TEXT, _LONGEST_LIST = 160, 2  # of an example row


class Markup(str):
    """Markdown of our own, which a table takes as it is."""

    __slots__ = ()


def code(text: str) -> Markup:
    """Return a text as inline code; for names of ours, which hold no backtick."""
    return Markup(f"`{text}`")


def plain(text: object) -> str:
    """Return a text for a line or a cell: no markup, no line break."""
    line = " ".join(visible(str(text)).split())
    return _SPECIAL.sub(r"\\\1", html.escape(line, quote=False))


def fence(text: str, language: str = "") -> str:
    """Return a code block: invisible characters escaped, the fence longer than any run of backticks inside."""
    text = _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", visible(text))
    ticks = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(text)), default=0))
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table: numbers on the right with thousands separated, shares as percentages."""
    listed = [list(row) for row in rows]
    numeric = [any(isinstance(row[at], int | float) for row in listed) for at in range(len(columns))]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *(map(cell, row) for row in listed)))


def cell(value: object) -> str:
    """Return a value of a table as text; a dash for none."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else plain(value)


def example(row: dict[str, Any]) -> str:
    """Return a row as JSON in a code block, long texts and lists cut."""
    return fence(json.dumps(_short(row), indent=2, ensure_ascii=False), "json")


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        left = len(value) - _LONGEST_LIST
        return [_short(inner) for inner in value[:_LONGEST_LIST]] + ([f"… {left} more"] if left > 0 else [])
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}… ({len(value):,} characters)"
    return value
