"""One trajectory with its rounds and the gates' findings: read from a store, and printed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from html import escape
from typing import Any

import polars as pl
from pydantic import Field

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.terminal import visible
from stepsearch_data.pipeline.catalog import frame
from stepsearch_data.pipeline.manifest import Manifest
from stepsearch_data.pipeline.questions import by_question
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas import rows
from stepsearch_data.schemas.tables import (
    CHECKS,
    QUALITY,
    QUERIES,
    QUESTIONS,
    REJECTS,
    ROUNDS,
    TRAJECTORIES,
    VOTES,
    Table,
)

Line = list[tuple[str, str]]
"""A line of text in parts, each with its style: a colour, bold, dim or none."""

_CSS = {
    "bold": "font-weight:bold",
    "dim": "opacity:.6",
    "red": "color:#c22",
    "green": "color:#283",
    "cyan": "color:#077",
    "yellow": "color:#960",
}


class RejectedQuery(rows.Row):
    """A query that the vote did not keep."""

    hop: int = Field(description="hop that the query serves, from 1")
    query: str = Field(description="text of the query")
    waiting: bool = Field(description="whether too few engines answered to decide")
    engines: int = Field(description="engines that answered")
    valid_engines: int = Field(description="engines on which the query is valid")
    gold_rank: int | None = Field(description="best rank of a gold passage on any engine; null when none was returned")

    @property
    def verdict(self) -> str:
        """Return why the vote did not keep it."""
        if self.waiting:
            return "it waits for engines that did not answer"
        gold = f"gold at rank {self.gold_rank}" if self.gold_rank else "no gold found"
        return f"{self.valid_engines} of {self.engines} engines, {gold}"


class Trajectory(rows.Trajectory):
    """A row of the table `trajectories`, with its rounds, what the gates say, and the queries that were not kept.

    >>> trajectory = ssd.open("store").trajectory()
    >>> [step.query for step in trajectory.rounds]
    ['The Barber of Seville composer', 'Gioachino Rossini place of birth']
    """

    rounds: list[rows.Round] = Field(description="its searches, in order")
    quality: rows.Quality | None = Field(description="what the gates say; null before they have run on it")
    mark: rows.Mark | None = Field(description="what a reader says of it; null where nobody has said anything")
    rejected: list[RejectedQuery] = Field(description="queries of its hops that the vote did not keep")

    def lines(self) -> Iterator[Line]:
        """Yield the lines of the trajectory as `show` prints it."""
        gates = self.quality
        failed = not self.complete or bool(gates and not gates.passed)
        yield [(self.question, "bold")]
        yield [(f"{self.question_id} · {self.source} · {self.question_type} · {self.hops} hops", "")]
        if failed:
            yield [("\nFailed  ", "bold red"), ("" if self.complete else "a hop has no kept query: not complete", "")]
        if self.mark:
            yield [(f"Marked {self.mark.mark}".rstrip() + "  ", "bold"), (self.mark.note, "")]
        for gate, reason in zip(gates.flags, gates.reasons, strict=True) if gates else ():
            yield [("  ⚑ ", ""), (gate, "red" if failed else "yellow"), (f": {reason}", "")]
        for step in self.rounds:
            yield from self._round(step, failed=failed)
        yield [("\n", ""), ("Answer  ", "bold"), (self.answer, "bold green")]

    def _round(self, step: rows.Round, *, failed: bool) -> Iterator[Line]:
        yield [("\n", ""), (f"Round {step.round}  ", "bold"), (step.sub_question, "")]
        kept = ("kept", "green") if step.kept else ("not kept", "red")
        yield [("  search  ", ""), (step.query, "cyan"), ("  ", ""), kept]
        yield from ([(f"     also  {other}", "dim")] for other in step.alternatives)
        for document in step.documents:
            mark = ("★ gold ", "yellow") if document.is_gold else ("       ", "")
            place = f"{document.rank}. {document.title}  ({document.engine} {document.score:.2f})"
            yield [("  ", ""), mark, (place, "")]
        for other in self.rejected if failed else ():
            if other.hop == step.hop and other.query != step.query:
                yield [(f"     rejected  {other.query}  ({other.verdict})", "dim")]
        yield [("  found   " if step.kept else "  wanted  ", ""), (step.sub_answer, "green")]

    def __str__(self) -> str:
        return "\n".join(visible("".join(text for text, _ in line)) for line in self.lines())

    def _repr_html_(self) -> str:
        told = "\n".join("".join(_span(text, style) for text, style in line) for line in self.lines())
        return f'<pre style="white-space:pre-wrap">{told}</pre>'


def _span(text: str, style: str) -> str:
    css = ";".join(_CSS[word] for word in style.split())
    return f'<span style="{css}">{escape(visible(text))}</span>' if css else escape(visible(text))


def read_trajectory(store: Store, question_id: str | None = None) -> Trajectory:
    """Read the trajectory of a question, or the store's first one. Raises StoreError where there is none."""
    with store.reading() as manifest:

        def rows_of(name: str) -> pl.DataFrame:
            return frame(store, manifest, name).filter(question_id=question_id).collect()

        found = frame(store, manifest, TRAJECTORIES.name)
        whole = (found if question_id is None else found.filter(question_id=question_id)).head(1).collect().to_dicts()
        if not whole:
            faults = rows_of(REJECTS.name).to_dicts() if question_id else []
            of = f" of question {question_id}" if question_id else ""
            why = f": {faults[0]['stage']} rejected it: {faults[0]['reason']}" if faults else ""
            listing = f"stepsearch-data sql --store {shlex.quote(store.name)}"
            raise StoreError(
                f"there is no trajectory{of}{why}", f'list them: {listing} "SELECT question_id FROM trajectories"'
            )
        question_id = whole[0]["question_id"]
        return _together(
            rows.Trajectory(**whole[0]),
            ROUNDS.adapter.validate_python(rows_of(ROUNDS.name).sort("round").to_dicts()),
            QUALITY.adapter.validate_python(rows_of(QUALITY.name).to_dicts() if _fresh(manifest, QUALITY) else []),
            rows_of(QUERIES.name).filter(~pl.col("kept")).sort("hop", "n").to_dicts(),
            store.marks().get(question_id),
        )


def read_checks(store: Store, question_id: str) -> list[rows.Check]:
    """Read what the checks found out about a question; nothing where none was made."""
    with store.reading() as manifest:
        if not _fresh(manifest, CHECKS):
            return []
        found = frame(store, manifest, CHECKS.name).filter(question_id=question_id).collect()
        return CHECKS.adapter.validate_python(found.to_dicts())


def read_trajectories(store: Store) -> Iterator[Trajectory]:
    """Yield every trajectory, in the order of the questions. Raises StoreError for an incomplete store."""
    marks = store.marks()
    with store.reading() as manifest:
        tables = [TRAJECTORIES, ROUNDS, QUERIES, *(table for table in (VOTES, QUALITY) if _fresh(manifest, table))]
        for of in by_question(store.tables(manifest, QUESTIONS, *tables), *tables):
            votes = {vote.query_id: vote for vote in of.get(VOTES)}
            judged = [(query, votes[query.query_id]) for query in of[QUERIES] if query.query_id in votes]
            rejected = [{"query": query.query, **dict(vote)} for query, vote in judged if not vote.kept]
            for whole in of[TRAJECTORIES]:
                yield _together(whole, of[ROUNDS], of.get(QUALITY), rejected, marks.get(whole.question_id))


def _fresh(manifest: Manifest, table: Table[Any]) -> bool:
    """Tell whether a table is there and up to date with the rows that it describes."""
    return manifest.output(table.name) is not None and manifest.writer(table.name) in manifest.fresh


def _together(
    whole: rows.Trajectory,
    rounds: list[rows.Round],
    quality: list[rows.Quality],
    rejected: list[dict[str, Any]],
    mark: rows.Mark | None,
) -> Trajectory:
    kept = RejectedQuery.model_fields
    return Trajectory(
        **dict(whole),
        rounds=rounds,
        quality=next(iter(quality), None),
        mark=mark,
        rejected=[RejectedQuery(**{name: query[name] for name in kept}) for query in rejected],
    )
