"""How rows, lines and JSON are printed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepsearch_data.core.terminal import visible

if TYPE_CHECKING:
    from stepsearch_data.pipeline.store import Store

_ENDLESS = 100_000  # characters of a line where stdout is no terminal: nothing is folded
_FOLDED = 8  # characters that a column of text keeps, however narrow the terminal is
_UNBROKEN = 64  # columns of the longest word that is not folded: names, ids and digests can be copied
_KILO = 1000
REASONS = 5  # that are printed of many rejected rows


def print_json(value: Any) -> None:
    """Print a value on stdout, indented."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    sys.stdout.flush()


def make_console() -> Console:
    """Make a console wide enough for whole tables where stdout is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _ENDLESS, highlight=False)


def say(*parts: str | tuple[str, str], style: str = "") -> None:
    """Print a line of texts, each with or without a style; they are plain text, whatever the data holds."""
    clean = [visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts]
    make_console().print(Text.assemble(*clean, style=style))


def tell(*lines: str) -> None:
    """Print lines on stderr, their control characters written out."""
    for line in lines:
        typer.echo(visible(line), err=True)


def teller(quiet: bool) -> Callable[..., None]:
    """Return `tell`, or with `quiet` a function that prints nothing."""
    return (lambda *_: None) if quiet else tell


def store_flag(store: Store) -> str:
    """Return the option that makes another command use this store, as a shell reads it."""
    return "" if store.root == Path("store") else f" --store {shlex.quote(store.name)}"


def grid(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "", *, tight: bool = False) -> None:
    """Print a table, numbers to the right. Cells are plain text, whatever brackets the data holds.

    Where the terminal is too narrow, text is folded between words. Numbers, names and ids stay whole: then the lines
    are longer than it.
    """
    listed = list(rows)
    table = Table(title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.collapse_padding = tight
    for at, column in enumerate(columns):
        numeric = any(isinstance(row[at], int | float) for row in listed)
        words = [word for text in (column, *(_cell(row[at]) for row in listed)) for word in text.split()]
        longest = max(map(cell_len, words), default=0)
        unbroken = max((wide for wide in map(cell_len, words) if wide <= _UNBROKEN), default=0)
        table.add_column(
            Text(visible(column)),
            justify="right" if numeric else "left",
            overflow="fold",
            min_width=longest if numeric else max(unbroken, min(longest, _FOLDED)),
            no_wrap=numeric and cell_len(column) <= longest,
        )
    for row in listed:
        table.add_row(*(Text(visible(_cell(value))) for value in row))
    console = make_console()
    gap = 1 if tight else 2
    console.width = max(console.width, sum((column.min_width or 0) + gap for column in table.columns))
    console.print(table, crop=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def size(count: float) -> str:
    """Write bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB"):
        if count < _KILO:
            return f"{count:.0f} {unit}"
        count /= _KILO
    return f"{count:.1f} GB"
