"""A release's rows out of a store: its tables read side by side, one question at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from stepsearch_data.exports.reading import Passages
from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.pipeline.questions import Unit, units
from stepsearch_data.release import tables as release
from stepsearch_data.release.licences import OTHER, combined
from stepsearch_data.release.rows import (
    ReleasedDocument,
    ReleasedPassage,
    ReleasedQuery,
    ReleasedRound,
    ReleasedSubQuestion,
    ReleasedTrajectory,
)
from stepsearch_data.release.tables import Config
from stepsearch_data.schemas.rows import Ballot, Document, Paragraph, Quality, Query, Round, Row, SubQuestion, Vote
from stepsearch_data.schemas.tables import (
    BALLOTS,
    PASSAGES,
    QUALITY,
    QUERIES,
    QUESTIONS,
    ROUNDS,
    SUB_QUESTIONS,
    TRAJECTORIES,
    VOTES,
)

RELATED = (SUB_QUESTIONS, QUERIES, VOTES, BALLOTS, TRAJECTORIES, ROUNDS, QUALITY)
_NO_QUESTION = ("jsonl",)  # documents that belong to no question come from a user's own corpus


class Item(NamedTuple):
    """A row of a release, and where it goes."""

    config: Config
    split: str
    row: Row


class Corpus:
    """The corpus of a store: texts by passage id, and the sources whose questions come with them."""

    def __init__(self, inputs: Mapping[str, Path], licences: Mapping[str, str]) -> None:
        self._path = inputs[PASSAGES.name]
        self._passages = Passages(self._path)
        self._licences = licences
        self._sources: dict[str, tuple[str, ...]] = {}
        known: dict[tuple[str, ...], tuple[str, ...]] = {}  # a handful of combinations, each kept once
        shown = pl.read_parquet(inputs[QUESTIONS.name], glob=False, columns=["source", "paragraph_ids"])
        shown = shown.explode("paragraph_ids")
        of = shown.unique().group_by("paragraph_ids").agg(pl.col("source").sort())
        for passage_id, sources in of.iter_rows():
            self._sources[passage_id] = known.setdefault(tuple(sources), tuple(sources))

    def passage(self, passage_id: str) -> Paragraph:
        """A passage with its texts."""
        found = self._passages[passage_id]
        return Paragraph(passage_id=passage_id, title=found.title, text=found.text)

    def document(self, document: Document) -> ReleasedDocument:
        """A round's document with its texts."""
        shown = self._passages.shown(document)
        return ReleasedDocument(**{**document.model_dump(), "title": shown.title, "text": shown.text})

    def sources(self, passage_id: str) -> tuple[str, ...]:
        """The formats of the questions that come with a passage."""
        return self._sources.get(passage_id, _NO_QUESTION)

    def licence(self, source: str, passage_ids: Sequence[str | None] = ()) -> str:
        """The licence of a row of this source that holds these passages; None is a text from elsewhere."""
        sources = {source}.union(*(self.sources(passage_id) for passage_id in passage_ids if passage_id))
        found = {self._licences.get(name, OTHER) for name in sources}
        return combined(found | ({OTHER} if None in passage_ids else set()))

    def rows(self) -> Iterator[ReleasedPassage]:
        """All passages, in order."""
        for passage in read_rows(self._path, PASSAGES):
            sources = self.sources(passage.passage_id)
            licence = combined(self._licences.get(source, OTHER) for source in sources)
            yield ReleasedPassage(**passage.model_dump(), sources=list(sources), licence=licence)


def items(inputs: Mapping[str, Path], corpus: Corpus) -> Iterator[list[Item]]:
    """For every question its rows of all configs but the corpus: none where its trajectory is not fit for training."""
    for unit in units(inputs, *RELATED):
        quality: list[Quality] = unit.related[QUALITY.name]
        trajectories = unit.related[TRAJECTORIES.name]
        fit = trajectories and trajectories[0].complete and quality and quality[0].passed
        yield _rows_of(unit, quality[0], corpus) if fit else []


def _rows_of(unit: Unit, quality: Quality, corpus: Corpus) -> list[Item]:
    licence = corpus.licence(unit.question.source)  # of questions and queries; a trajectory shows passages too
    return [
        Item(release.TRAJECTORIES, quality.split, _trajectory(unit, quality, corpus)),
        *(Item(release.SUB_QUESTIONS, quality.split, row) for row in _sub_questions(unit, quality, licence)),
        *(Item(release.QUERIES, quality.split, row) for row in _queries(unit, licence)),
    ]


def _trajectory(unit: Unit, quality: Quality, corpus: Corpus) -> ReleasedTrajectory:
    trajectory = unit.related[TRAJECTORIES.name][0]
    rounds = [_round(step, unit, corpus) for step in unit.related[ROUNDS.name]]
    documents = [document.passage_id for step in rounds for document in step.documents]
    gold = [paragraph.passage_id for step in rounds for paragraph in step.gold]
    own: dict[str, Any] = {
        "licence": corpus.licence(trajectory.source, [*documents, *gold]),
        "rounds": rounds,
        **quality.model_dump(include={"difficulty", "difficulty_score", "pass_rate", "flags", "split_group"}),
    }
    return ReleasedTrajectory(**trajectory.model_dump(exclude={"complete"}), **own)


def _round(step: Round, unit: Unit, corpus: Corpus) -> ReleasedRound:
    votes: dict[str, Vote] = {vote.query_id: vote for vote in unit.related[VOTES.name]}
    queries: list[Query] = [query for query in unit.related[QUERIES.name] if query.hop == step.hop]
    hops: list[SubQuestion] = unit.related[SUB_QUESTIONS.name]
    gold = next((hop.gold_passage_ids for hop in hops if hop.hop == step.hop), [])
    own: dict[str, Any] = {
        "kept_queries": [query.query for query in queries if votes[query.query_id].kept],
        "rejected_queries": [query.query for query in queries if votes[query.query_id].dropped],
        "documents": [corpus.document(document) for document in step.documents],
        "gold": [corpus.passage(passage_id) for passage_id in gold],
    }
    return ReleasedRound(**step.model_dump(exclude={"question_id", "kept", "alternatives", "documents"}), **own)


def _sub_questions(unit: Unit, quality: Quality, licence: str) -> Iterator[ReleasedSubQuestion]:
    for hop in unit.related[SUB_QUESTIONS.name]:
        yield ReleasedSubQuestion(**hop.model_dump(), licence=licence, split_group=quality.split_group)


def _queries(unit: Unit, licence: str) -> Iterator[ReleasedQuery]:
    votes: dict[str, Vote] = {vote.query_id: vote for vote in unit.related[VOTES.name]}
    ballots: list[Ballot] = unit.related[BALLOTS.name]
    asked = {hop.hop: hop.sub_question for hop in unit.related[SUB_QUESTIONS.name]}
    for query in unit.related[QUERIES.name]:
        own: dict[str, Any] = {
            **votes[query.query_id].model_dump(include={"kept", "waiting", "engines", "gold_rank"}),
            "valid_engines": [b.engine for b in ballots if b.query_id == query.query_id and b.valid],
            "source": unit.question.source,
            "licence": licence,
            "sub_question": asked[query.hop],
        }
        yield ReleasedQuery(**query.model_dump(), **own)
