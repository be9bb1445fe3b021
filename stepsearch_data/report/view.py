"""The live store behind `view`: what is committed at the moment of each request."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stepsearch_data.pipeline.marks import Change, write_marks
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report.download import write_list
from stepsearch_data.report.facts import marked, rejecting
from stepsearch_data.report.listing import Page, find, make_listing, put_marks, read_rejects, values
from stepsearch_data.report.lookup import Lookup
from stepsearch_data.report.policies import answered
from stepsearch_data.report.records import Marks, shown_mark
from stepsearch_data.report.rollouts import NONE, Rollouts
from stepsearch_data.report.shapes import Facets, Mark, Record, Rejects, Summary
from stepsearch_data.report.summary import summarize
from stepsearch_data.report.tables import open_tables, up_to_date
from stepsearch_data.schemas.tables import TRAJECTORIES

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class _Snapshot:
    """What is asked of a manifest, made once: the list in memory, the places of all rows, the overview."""

    committed: Manifest
    connection: duckdb.DuckDBPyConnection
    summary: Summary
    lookup: Lookup | None
    marks: Marks


class View:
    """Answers for a store that may be built meanwhile. May be used by several threads."""

    def __init__(self, store: Store, title: str | None = None, rollouts: Rollouts = NONE) -> None:
        self._store, self._title, self._rollouts = store, title, rollouts
        self._snapshot: _Snapshot | None = None
        self._marks_at: tuple[int, ...] | None = None
        self._making = threading.Lock()

    def summary(self) -> Summary:
        """Return the overview. Raises StoreError where there is nothing to show."""
        with self._now() as snapshot:
            return snapshot.summary

    def trajectories(self, asked: Mapping[str, Sequence[str]]) -> Page:
        """Return a page of the trajectories that fit a query string. Raises QueryError, StoreError."""
        with self._now() as snapshot, snapshot.connection.cursor() as cursor:
            return find(cursor, asked)

    def write(self, asked: Mapping[str, Sequence[str]], kind: str, path: Path) -> None:
        """Write all trajectories that fit a query string into a file. Raises QueryError, StoreError, OSError."""
        with self._now() as snapshot, snapshot.connection.cursor() as cursor:
            write_list(cursor, asked, kind, path)

    def rejects(self) -> Rejects:
        """Return the first rejected rows. Raises StoreError."""
        with self._now() as snapshot, snapshot.connection.cursor() as cursor:
            return read_rejects(cursor)

    def trajectory(self, question_id: str) -> Record | None:
        """Return a trajectory, if there is one of this question. Raises StoreError."""
        with self._now() as snapshot:
            return snapshot.lookup.find(question_id, snapshot.marks) if snapshot.lookup else None

    def mark(self, question_id: str, change: Change) -> Mark | None:
        """Change what the reader says of a trajectory, if there is one of this question. Raises StoreError."""
        with self._now() as snapshot, snapshot.connection.cursor() as cursor:
            known = cursor.execute("SELECT id FROM listing WHERE id = ?", [question_id]).fetchall()
        return shown_mark(write_marks(self._store, {question_id: change})[question_id]) if known else None

    @contextmanager
    def _now(self) -> Iterator[_Snapshot]:
        """Yield what is committed, its files in place until the block ends."""
        with self._store.reading() as manifest:
            with self._making:
                if self._snapshot is None or self._snapshot.committed != manifest:
                    self._snapshot, self._marks_at = self._look(manifest), None
                if self._marks_at != (now := self._store.marks_at()):
                    self._snapshot, self._marks_at = _with_marks(self._snapshot, self._store.marks()), now
                snapshot = self._snapshot
            yield snapshot

    def _look(self, committed: Manifest) -> _Snapshot:
        manifest = up_to_date(committed)
        connection = open_tables(self._store, manifest)
        rollouts = self._rollouts.with_kept(self._store, manifest)
        make_listing(connection, rejecting(manifest), answered(connection, rollouts))
        summary = summarize(self._store, committed, connection, self._title, rollouts)
        lookup = Lookup(self._store, manifest, rollouts) if manifest.output(TRAJECTORIES.name) else None
        return _Snapshot(committed, connection, summary, lookup, {})


def _with_marks(snapshot: _Snapshot, marks: Marks) -> _Snapshot:
    put_marks(snapshot.connection, marks)
    shown: Facets = {**snapshot.summary["facets"], "marks": values(snapshot.connection, "marks")}
    summary: Summary = {**snapshot.summary, "facets": shown, "marked": marked(snapshot.connection)}
    return replace(snapshot, marks=marks, summary=summary)
