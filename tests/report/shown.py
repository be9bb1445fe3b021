"""What a report shows of a store: its overview, and how long the lists are that its counts lead to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.facts import rejecting
from stepsearch_data.report.listing import find, make_listing
from stepsearch_data.report.policies import answered
from stepsearch_data.report.rollouts import Rollouts
from stepsearch_data.report.shapes import Facts, Summary
from stepsearch_data.report.summary import summarize
from stepsearch_data.report.tables import open_tables, up_to_date
from tests.conftest import run_cli

if TYPE_CHECKING:
    import duckdb


@contextmanager
def opened(store: Store, rollouts: Sequence[str] = ()) -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables of a store that are up to date, and its listing."""
    manifest = up_to_date(store.manifest())
    with open_tables(store, manifest) as connection:
        make_listing(connection, rejecting(manifest), answered(connection, Rollouts(rollouts)))
        yield connection


def summary_of(store: Store, title: str | None = None, rollouts: Sequence[str] = ()) -> Summary:
    with opened(store, rollouts) as connection:
        return summarize(store, store.manifest(), connection, title, Rollouts(rollouts))


def listed(connection: duckdb.DuckDBPyConnection, link: str) -> dict[str, int]:
    """How many trajectories, hops, queries and rounds the list of an address has."""
    assert link.startswith("#/t")
    page = find(connection, parse_qs(urlsplit(urlsplit(link).fragment).query, keep_blank_values=True))
    return {"trajectories": page.total, **page.parts}


def told(facts: Facts, column: str) -> list[Any]:
    """A column of a table."""
    return [row[facts["columns"].index(column)] for row in facts["rows"]]


def question_row(name: str) -> dict[str, Any]:
    paragraph = {"title": "Lodi", "text": "Lodi was founded by Frederick Barbarossa.", "supporting": True}
    return {"id": name, "question": "Who founded Lodi?", "answer": "Frederick Barbarossa", "paragraphs": [paragraph]}


def build_rows(folder: Path, rows: list[dict[str, Any]], *arguments: str) -> Store:
    source = folder / "rows.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    built = run_cli("build", "--quiet", "--store", folder / "store", "--source", f"jsonl={source}", *arguments)
    assert built.returncode in {0, 3}, built.stderr
    return Store.open(folder / "store")
