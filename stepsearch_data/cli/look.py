"""Commands that look into a store, and what they print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stepsearch_data.cli import options
from stepsearch_data.cli.common import OK, end_at_once, open_store
from stepsearch_data.cli.limits import Limits
from stepsearch_data.cli.printing import grid, make_console, print_json, say, tell
from stepsearch_data.core.atomic import part_of
from stepsearch_data.core.errors import ConfigError, QueryError
from stepsearch_data.core.progress import Reporter

if TYPE_CHECKING:
    from stepsearch_data.pipeline.store import Store
    from stepsearch_data.report.write import Written as ReportWritten

_LONGEST_QUERY = 10_000_000  # bytes that are read from stdin
_CELL = 60  # characters; longer cells are cut in tables
_AUDITED = (  # of all measures, those that fit a terminal; the JSON has the others too
    "questions",
    "hops",
    "hop_hit_at_3",
    "pass_at_1",
    "pass_at_3",
    "pass_at_5",
    "kept_per_hop",
    "complete",
    "leaks",
)
_CHECKED = ("asked", "failed", "share", "low", "high", "judge", "passages")
_VOTED = ("queries", "answered", "valid", "gold_at_1", "gold_at_3", "valid_alone", "invalid_alone")


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; `-` reads it from stdin.")],
    store: options.Store = None,
    config: options.Config = None,
    form: Annotated[
        Literal["table", "csv", "json", "jsonl", "parquet"],
        typer.Option("--format", "-f", help="How to print the rows."),
    ] = "table",
    output: Annotated[Path | None, options.output(help="Write to this file, not to stdout.")] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=0.01, max=86_400, callback=options.finite, help="Seconds before the query is stopped."
        ),
    ] = 60.0,
    memory: Annotated[
        float,
        typer.Option(
            "--memory", min=0.25, max=1_024, callback=options.finite, help="GiB of memory that the query may take."
        ),
    ] = 4.0,
) -> None:
    """Query the store with DuckDB SQL, read-only: a query reaches no other file, no extension and no network.

    Example: stepsearch-data sql "SELECT hops, count(*) FROM trajectories GROUP BY hops"
    """
    if output is not None and form == "table":
        raise ConfigError("--output needs a format for files", "name one: --format csv, json, jsonl or parquet")
    text = _from_stdin() if query == "-" else query
    limits = Limits(timeout, int(memory * (1 << 30)))
    limits.split_off(undo=lambda: _discard(output))
    folder = open_store(store, config).folder
    if folder.mirror:
        from stepsearch_data.sql import fetch

        fetch(folder, text)
    with limits.clock():
        _print_rows(folder, text, form, output, memory=limits.memory * 3 // 4)
    sys.stdout.flush()
    os._exit(OK)  # a child has nothing to clean up, which would take as long as the query


def _from_stdin() -> str:
    text = sys.stdin.buffer.read(_LONGEST_QUERY + 1)
    if len(text) > _LONGEST_QUERY:
        raise QueryError(f"the query on stdin has more than {_LONGEST_QUERY:,} bytes")
    return text.decode(errors="surrogateescape")


def _discard(output: Path | None) -> None:
    """Remove the part of a file that was written."""
    if output is not None:
        part_of(Path(os.path.realpath(output))).unlink(missing_ok=True)


def _print_rows(store: Store, sql: str, form: str, output: Path | None, *, memory: int) -> None:
    """Print the rows of a query, in one of the formats; DuckDB may take `memory` bytes."""
    from stepsearch_data.cli.output import write
    from stepsearch_data.pipeline.catalog import stale
    from stepsearch_data.sql import query

    outdated = stale(store)
    if outdated:
        tell(f"note: made from earlier inputs: {', '.join(outdated)}; to update them: stepsearch-data build")
    with query(store, sql, memory=memory) as reader:
        if form == "table" and output is None:
            _result_table(reader)
        else:
            write(reader, form, output, store=store.root)


def _result_table(reader: Any) -> None:
    from stepsearch_data.cli.output import values

    limit = 1_000
    found: list[list[Any]] = []
    for batch in reader:
        few = batch.slice(0, limit + 1 - len(found))
        found += [[_short(value) for value in row.values()] for row in values(few)]
        if len(found) > limit:
            tell(f"note: only the first {limit} rows; --format csv, json, jsonl or parquet writes all")
            break
    grid(reader.schema.names, found[:limit])


def _short(value: Any) -> Any:
    if isinstance(value, int | float | bool | None):
        return value
    from stepsearch_data.cli.output import readable

    text = readable(value)
    return text if len(text) <= _CELL or "\n" in text else text[: _CELL - 1] + "…"


def schema(as_json: options.Json = False) -> None:
    """Describe every table and column of a store."""
    from rich.text import Text

    from stepsearch_data.pipeline.catalog import JUDGED
    from stepsearch_data.schemas.tables import TABLES

    described: dict[str, dict[str, Any]] = {
        table.name: {"doc": table.doc, "columns": [_column(field) for field in table.schema]} for table in TABLES
    }
    for name, judged in JUDGED.items():
        said = described[judged.by.name]["columns"]
        described[name]["columns"] += [{**c, "nullable": True} for c in said if c["name"] in judged.columns]
    if as_json:
        print_json(described)
        return
    for name, table in described.items():
        console = make_console()
        console.print(Text.assemble((name, "bold"), f": {table['doc']}"), soft_wrap=True)
        grid(("column", "type", "meaning"), [("  " + c["name"], c["type"], c["meaning"]) for c in table["columns"]])
        console.print()


def _column(field: Any) -> dict[str, Any]:
    meaning = (field.metadata or {}).get(b"description", b"").decode()
    return {"name": field.name, "type": _type(field.type), "nullable": field.nullable, "meaning": meaning}


def _type(data_type: Any) -> str:
    """Return Arrow's name of a type; structs by the names of their fields."""
    if hasattr(data_type, "value_type"):
        return f"list<{_type(data_type.value_type)}>"
    if data_type.num_fields:
        return "struct<" + ", ".join(data_type.field(at).name for at in range(data_type.num_fields)) + ">"
    return str(data_type)


def audit(store: options.Store = None, config: options.Config = None, as_json: options.Json = False) -> None:
    """Print the data's quality by source and hop count: hits, pass@k, queries kept, leaks; and what checks found.

    pass@k is the share of all written queries, before the vote, whose top k holds a gold passage;
    hop hit@3 the share of hops with a kept query that has one in its top 3.
    """
    measures = open_store(store, config).audit()
    if as_json:
        print_json(measures)
    else:
        print_audit(measures)


def print_audit(measures: dict[str, Any]) -> None:
    """Print what was mined, quality by source, hops and engine, trajectories by gate and split, questions by check."""
    for group, shown, title in (
        ("by_funnel", None, "left of documents"),
        ("by_source", _AUDITED, "source"),
        ("by_source_and_hops", _AUDITED, "source and hops"),
        ("by_engine", _VOTED, "engine"),
        ("by_gate", None, "trajectories that fail a gate"),
        ("by_split", None, "trajectories of a split"),
        ("by_check", _CHECKED, "questions that a check speaks against"),
    ):
        parts = measures.get(group)
        if not parts:
            continue
        if group == "by_gate":
            parts = {gate: _said(counts, measures["unchecked"].get(gate)) for gate, counts in parts.items()}
        if group == "by_source_and_hops":
            parts = {part.removesuffix(" hops"): numbers for part, numbers in parts.items()}
        names = [name for name in next(iter(parts.values()), {}) if shown is None or name in shown]
        if group == "by_funnel":
            parts = {part: _cents(numbers) for part, numbers in parts.items()}
            names = [name for name in names if any(numbers[name] is not None for numbers in parts.values())]
        if not names:
            continue
        short = [name.replace("_at_", "@").replace("_", " ") for name in names]
        grid(
            (title, *short), [(part, *(numbers[name] for name in names)) for part, numbers in parts.items()], tight=True
        )
        print()
    waiting = sum(numbers["waiting"] for numbers in measures["by_source"].values())
    if waiting:
        say(f"{waiting:,} queries wait for engines that did not answer: stepsearch-data retry-failed", style="yellow")


def _cents(numbers: dict[str, Any]) -> dict[str, Any]:
    """Write dollars with more digits than shares: a question costs parts of a cent."""
    written = {name: None if numbers[name] is None else f"{numbers[name]:.5f}" for name in ("dollars", "dollars_each")}
    return {**numbers, **written}


def _said(counts: dict[str, Any], reason: str | None) -> dict[str, Any]:
    """Return a gate's numbers by source, or the reason why it checked nothing."""
    return dict.fromkeys(counts, reason) if reason else counts


def report(
    output: Annotated[
        Path,
        options.output(help="What to write: OUTPUT.html, or for large stores a folder OUTPUT."),
    ] = Path("stepsearch-report"),
    store: options.Store = None,
    title: options.Title = None,
    folder: Annotated[
        bool, typer.Option("--folder", help="Write a folder even if one file would do: it opens faster.")
    ] = False,
    rollouts: options.Rollouts = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="STORE", help="Show what has changed since this store, too."),
    ] = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
) -> None:
    """Write the store as a web page that you can pass on: funnel, charts, provenance, every trajectory.

    The page needs no network and no server. Above about 64 MB it is a folder: open its index.html.
    Example: stepsearch-data report --store ./store --output my-report
    """
    written = open_store(store, config).report(
        output, title=title, folder=folder, rollouts=rollouts or (), compare=compare, progress=not quiet
    )
    if not quiet:
        tell_report(written)


def tell_report(written: ReportWritten) -> None:
    """Tell where a report is, and how large."""
    counted = "1 trajectory" if written.trajectories == 1 else f"{written.trajectories:,} trajectories"
    tell(f"wrote {written.page}: {counted}, {written.bytes / 1e6:,.1f} MB")


def view(
    store: options.Store = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port; 0 picks a free one.")] = 8765,
    browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open a browser (default: only on a desktop).")
    ] = None,
    title: options.Title = None,
    rollouts: options.Rollouts = None,
    config: options.Config = None,
) -> None:
    """Show the store in a browser, always as it is now: a build may run meanwhile. For stores of any size.

    Only this machine can open the page. From another one: ssh -L 8765:127.0.0.1:8765 HOST.
    """
    end_at_once()
    from stepsearch_data.report.rollouts import Rollouts
    from stepsearch_data.report.server import view as show_page

    shown = Rollouts(rollouts or ())
    show_page(open_store(store, config).folder, port, Reporter(), title=title, browser=browser, rollouts=shown)
