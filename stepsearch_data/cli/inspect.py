"""Verbs that show what a store holds."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stepsearch_data.cli.common import (
    end_at_once,
    open_store,
)
from stepsearch_data.cli.limits import Limits
from stepsearch_data.cli.options import (
    ConfigOption,
    JsonOption,
    QuietOption,
    RolloutsOption,
    StoreOption,
    TitleOption,
    finite,
)
from stepsearch_data.core.atomic import part_of
from stepsearch_data.core.errors import ConfigError, QueryError, StepSearchError

_LONGEST_QUERY = 10_000_000  # bytes; what is longer is no query


class Format(StrEnum):
    """How `sql` prints rows."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"
    parquet = "parquet"


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; `-` reads it from stdin.")],
    store: StoreOption = None,
    config: ConfigOption = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="How to print the rows.")] = Format.table,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file, not to stdout.")] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.01, max=86_400, callback=finite, help="Seconds before the query is stopped."),
    ] = 60.0,
    memory: Annotated[
        float,
        typer.Option("--memory", min=0.25, max=1_024, callback=finite, help="GiB of memory that the query may take."),
    ] = 4.0,
) -> None:
    """Query the store with DuckDB SQL, read-only: no other file, no extension, no write can be reached.

    Example: stepsearch-data sql "SELECT hops, count(*) FROM trajectories GROUP BY hops"
    """
    if output is not None and form is Format.table:
        raise ConfigError(
            "a table is for reading, not for a file", "name another: --format csv, json, jsonl or parquet"
        )
    text = _from_stdin() if query == "-" else query
    limits = Limits(timeout, int(memory * (1 << 30)))
    limits.split_off(undo=lambda: _discard(output))
    from stepsearch_data.cli import show as display  # it is what takes time: not in both processes

    opened = open_store(store, config)
    with limits.clock():
        display.rows(opened, text, form.value, output, memory=limits.memory * 3 // 4)


def _from_stdin() -> str:
    text = sys.stdin.buffer.read(_LONGEST_QUERY + 1)
    if len(text) > _LONGEST_QUERY:
        raise QueryError(f"the query on stdin has more than {_LONGEST_QUERY:,} bytes")
    return text.decode(errors="surrogateescape")


def _discard(output: Path | None) -> None:
    """Remove the part of a file that was written."""
    if output is not None:
        part_of(Path(os.path.realpath(output))).unlink(missing_ok=True)


def schema(as_json: JsonOption = False) -> None:
    """Describe every table and column of a store."""
    from stepsearch_data.cli import show as display

    display.schema(as_json=as_json)


def show(
    question_id: Annotated[
        str | None, typer.Argument(help="Question to show; the first trajectory by default.")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print one trajectory for a human: every round with its queries and documents, gold ones marked."""
    from stepsearch_data.cli import show as display

    display.trajectory(open_store(store, config), question_id, as_json=as_json)


def audit(store: StoreOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the data's quality by source and hop count: hits, pass@k, queries kept, leaks.

    pass@k is the share of all written queries, before the vote, whose top k holds a gold passage;
    hop hit@3 the share of hops with a kept query that has one in its top 3.
    """
    from stepsearch_data.audit import audit as measure
    from stepsearch_data.cli import show as display

    display.audit(measure(open_store(store, config)), as_json=as_json)


def report(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="What to write: OUTPUT.html, or for large stores a folder OUTPUT."),
    ] = Path("stepsearch-report"),
    store: StoreOption = None,
    title: TitleOption = None,
    folder: Annotated[
        bool, typer.Option("--folder", help="Write a folder even where one file would do: it opens faster.")
    ] = False,
    rollouts: RolloutsOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write the store as a web page to look at and to pass on: funnel, charts, provenance, every trajectory.

    The page needs no network and no server. From about 20 MB on it is a folder: open its index.html.
    Example: stepsearch-data report --store ./store --output my-report
    """
    from stepsearch_data.core.progress import Reporter
    from stepsearch_data.report.rollouts import Rollouts
    from stepsearch_data.report.write import report as write

    try:
        with Reporter(quiet=quiet).stage("report") as meter:
            shown = Rollouts(rollouts or ())
            written = write(open_store(store, config), output, meter, title=title, folder=folder, rollouts=shown)
    except OSError as error:
        raise StepSearchError(f"cannot write {error.filename or output}: {error.strerror or error}") from error
    if not quiet:
        megabytes = written.bytes / 1e6
        counted = "1 trajectory" if written.trajectories == 1 else f"{written.trajectories:,} trajectories"
        typer.echo(f"wrote {written.page}: {counted}, {megabytes:,.1f} MB", err=True)


def view(
    store: StoreOption = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes any that is free.")] = 8765,
    browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open a browser (default: on a desktop's terminal).")
    ] = None,
    title: TitleOption = None,
    rollouts: RolloutsOption = None,
    config: ConfigOption = None,
) -> None:
    """Look at the store in a browser, on this machine alone, as it is at each moment: a build may go on meanwhile.

    For stores of any size. From another machine: ssh -L 8765:127.0.0.1:8765 HOST.
    """
    end_at_once()
    from stepsearch_data.core.progress import Reporter
    from stepsearch_data.report.rollouts import Rollouts
    from stepsearch_data.report.server import view as show_page

    shown = Rollouts(rollouts or ())
    show_page(open_store(store, config), port, Reporter(), title=title, browser=browser, rollouts=shown)
