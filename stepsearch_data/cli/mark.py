"""`mark`: what a reader says of trajectories, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stepsearch_data.cli import options
from stepsearch_data.cli.common import open_store
from stepsearch_data.cli.printing import grid, print_json, say, tell
from stepsearch_data.core.errors import ConfigError

if TYPE_CHECKING:
    from stepsearch_data.schemas.rows import Mark


def mark(
    question_id: Annotated[
        str | None, typer.Argument(help="Question to mark; without one, all marks are listed.")
    ] = None,
    said: Annotated[
        Literal["good", "bad", "clear"] | None,
        typer.Argument(metavar="good|bad|clear", help="What to say of its trajectory; `clear` takes back all."),
    ] = None,
    note: Annotated[
        str | None, typer.Option("--note", help="A note in your own words; an empty one is removed.")
    ] = None,
    load: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="JSON Lines of {question_id, mark, note}, as the export writes."),
    ] = None,
    store: options.Store = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Mark a trajectory good or bad, with or without a note, as in `view`; or list the marks.

    Marks stay with the store, also when it is built again. SQL reads them as the table marks.

    Example: stepsearch-data mark 2hop__811040_270741 bad --note "hop 2 is ambiguous"
    """
    opened = open_store(store, config)
    if load:
        if question_id or said or note is not None:
            raise ConfigError("--import marks what its file names, and nothing else")
        from stepsearch_data.pipeline.marks import read_changes, write_marks

        tell(f"read {len(write_marks(opened.folder, read_changes(load))):,} marks")
    elif question_id is None and note is None:
        _list(list(opened.folder.marks().values()), as_json=as_json)
    elif question_id is None or (said is None and note is None):
        raise ConfigError("say what of which question", "mark ID good, bad or clear, with or without --note TEXT")
    else:
        opened.mark(question_id, "" if said == "clear" else said, note or "" if said == "clear" else note)


def _list(marks: list[Mark], *, as_json: bool) -> None:
    rows = [mark.model_dump() for mark in marks]
    if as_json:
        print_json(rows)
    elif rows:
        grid(tuple(rows[0]), [tuple(row.values()) for row in rows])
    else:
        say("nothing is marked yet", style="dim")
