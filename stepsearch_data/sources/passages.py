"""Passages as Search-R1 and DPR write them: a title and a text, with or without an id."""

from __future__ import annotations

from typing import Any

from stepsearch_data.core.errors import RowRejected


def title_and_text(row: Any) -> tuple[str, str]:
    """Read `{title, text}`, or Search-R1's `{contents}`; the title may be missing. Raises RowRejected."""
    if not isinstance(row, dict):
        raise RowRejected("the row is not a JSON object")
    title, text = row.get("title"), row.get("text", row.get("content"))
    if text is None and isinstance(row.get("contents"), str):
        title, text = split_contents(row["contents"])
    if not isinstance(text, str):
        raise RowRejected("it has neither `contents` nor `text`")
    if not isinstance(title, str | None):
        raise RowRejected("its title is not a text")
    return title or "", text


def identity_of(row: dict[str, Any]) -> str | None:
    """Return the id of a row, or None where it has none. Raises RowRejected for one that is none."""
    identity = row.get("id", row.get("_id"))
    if not isinstance(identity, str | int | None):
        raise RowRejected("its id is neither a text nor a whole number")
    return None if identity is None else str(identity)


def split_contents(contents: str) -> tuple[str, str]:
    """Split Search-R1's `contents` into title and text: a first line of `"Title"`, then the text."""
    first, newline, rest = contents.partition("\n")
    if not newline:
        return "", contents
    title = first.strip()
    return title[1:-1] if len(title) > 1 and title[0] == title[-1] == '"' else title, rest


def join_contents(title: str, text: str) -> str:
    """Join a title and a text: the opposite of `split_contents`."""
    return f'"{title}"\n{text}' if title or "\n" in text else text
