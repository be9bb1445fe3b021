"""The dataset of a release: what `load_dataset` gives, every row with all that it needs.

A store keeps each text once; a release repeats it where it is read, and says of every row where it comes from
and under which licence it may be used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import polars as pl
import pyarrow as pa
from pydantic import Field

from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.pipeline.questions import QuestionRows, by_question
from stepsearch_data.release.lineage import OTHER, combined
from stepsearch_data.schemas import tables
from stepsearch_data.schemas.rows import (
    Paragraph,
    Passage,
    Quality,
    Query,
    RetrievedDocument,
    Round,
    Row,
    SubQuestion,
    Trajectory,
    Vote,
)
from stepsearch_data.sources import OWN
from stepsearch_data.templates.examples import Passages

R = TypeVar("R", bound=Row)

_NO_QUESTION = (OWN,)  # documents that belong to no question come from a user's own corpus
_RELATED = (
    tables.SUB_QUESTIONS,
    tables.QUERIES,
    tables.VOTES,
    tables.ENGINE_VOTES,
    tables.TRAJECTORIES,
    tables.ROUNDS,
    tables.QUALITY,
)
_LICENCE = "licence of the row's texts, as the Hub names it: the strictest of its sources'"
_SPLIT_GROUP = "questions that share gold paragraphs have the same; a group is never split"


def _like(row: type[Row]) -> Callable[[type[R]], type[R]]:
    """Give columns without a meaning the meaning that they have in a store's row."""

    def tell(released: type[R]) -> type[R]:
        for name, info in released.model_fields.items():
            info.description = info.description or row.model_fields[name].description
        return released

    return tell


class ReleasedDocument(RetrievedDocument):
    """A document that a round shows, with its text."""

    text: str = Field(description="text of the document")


@_like(Round)
class ReleasedRound(Row):
    """A search round: what is asked, searched, shown and found, and what it is worth."""

    round: int
    hop: int = Field(description="hop that the round works on, from 1")
    role: str = Field(description="gold, distractor (a search that found nothing) or abstain")
    sub_question: str
    sub_answer: str
    query: str = Field(description="query of the round")
    query_id: str = Field(description="id of that query in the config `queries`")
    kept_queries: list[str] = Field(description="all queries of the hop that passed the vote")
    rejected_queries: list[str] = Field(description="all queries of the hop that the vote dropped")
    gold_rank: int | None = Field(
        description="rank of the first gold passage among `documents`; null when there is none"
    )
    documents: list[ReleasedDocument]
    gold: list[Paragraph] = Field(description="gold paragraphs of the hop")
    information_gain: float = Field(description="G^t of the paper, 0 to 1")
    redundancy_penalty: float = Field(description="P^t of the paper: share of its documents that were shown before")
    step_reward: float


@_like(Trajectory)
class ReleasedTrajectory(Row):
    """A question, and how to answer it search by search."""

    question_id: str = Field(description="id of the question in its source")
    source: str
    licence: str = Field(description=_LICENCE)
    question_type: str
    question: str
    answer: str
    answer_aliases: list[str]
    answerable: bool = Field(description="false for an abstention")
    hops: int = Field(description="number of hops")
    rounds: list[ReleasedRound] = Field(description="the search rounds, in order")
    rollout: str = Field(description="the whole response in the released tags")
    key_reward: float = Field(description="r_key of the paper: how well the queries match the reference search keys")
    answer_reward: float = Field(description="r_answer of the paper: word F1 of the answer")
    difficulty: str = Field(description="easy, medium or hard")
    difficulty_score: float = Field(description="0 (easy) to 1")
    pass_rate: float | None = Field(description="mean score of a model's rollouts; null where none were given")
    flags: list[str] = Field(description="gates that flag it without rejecting it")
    split_group: str = Field(description=_SPLIT_GROUP)


class ReleasedSubQuestion(SubQuestion):
    """A hop of a released question."""

    licence: str = Field(description=_LICENCE)
    split_group: str = Field(description=_SPLIT_GROUP)


@_like(Vote)
class ReleasedQuery(Query):
    """A query that was written for a hop, and the vote on it."""

    source: str = Field(description="format that the question came from")
    licence: str = Field(description=_LICENCE)
    sub_question: str = Field(description="sub-question that it was written for")
    kept: bool
    waiting: bool = Field(description="whether too few engines answered: neither kept nor dropped")
    engines: int
    valid_engines: list[str] = Field(description="names of the engines on which it is valid")
    gold_rank: int | None


class ReleasedPassage(Passage):
    """A passage of the corpus that the engines searched."""

    sources: list[str] = Field(description="formats of the questions that come with it")
    licence: str = Field(description=_LICENCE)


@dataclass(frozen=True)
class Config(tables.Table[Any]):
    """A config of the dataset: a table whose files tell `datasets` their features."""

    @cached_property
    def schema(self) -> pa.Schema:
        """Return the Arrow schema, the meaning of each column and the features of all of them in its metadata."""
        plain = super().schema
        info = {"info": {"features": {field.name: _feature(field.type) for field in plain}}}
        return plain.with_metadata({"huggingface": json.dumps(info)})

    @property
    def features(self) -> list[dict[str, Any]]:
        """Return the same features as a card's `dataset_info` lists them."""
        return [_listed(field) for field in self.schema]


def _feature(kind: pa.DataType) -> Any:
    """Describe a feature; a list is written `[…]`, which `datasets` of all versions reads."""
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": dtype(kind), "_type": "Value"}


def _listed(field: pa.Field) -> dict[str, Any]:
    if not pa.types.is_list(field.type):
        return {"name": field.name, "dtype": dtype(field.type)}
    inner = field.type.value_type
    return {
        "name": field.name,
        "list": [_listed(part) for part in inner] if pa.types.is_struct(inner) else dtype(inner),
    }


def dtype(kind: pa.DataType) -> str:
    """Name a type as `datasets` does."""
    return {pa.float64(): "float64", pa.bool_(): "bool"}.get(kind) or str(kind)


TRAJECTORIES = Config("trajectories", ReleasedTrajectory, rows_per_group=200)
SUB_QUESTIONS = Config("sub_questions", ReleasedSubQuestion, rows_per_group=5_000)
QUERIES = Config("queries", ReleasedQuery, rows_per_group=10_000)
CORPUS = Config("corpus", ReleasedPassage, rows_per_group=5_000)
CONFIGS = (TRAJECTORIES, SUB_QUESTIONS, QUERIES, CORPUS)
"""The first is the default."""


class Item(NamedTuple):
    """A row of a release, and where it goes."""

    config: Config
    split: str
    row: Row


class Corpus:
    """The corpus of a store: texts by passage id, and the sources whose questions come with them."""

    def __init__(self, inputs: tables.Inputs, licences: Mapping[str, str]) -> None:
        self._path = inputs[tables.PASSAGES]
        self._passages = Passages(self._path)
        self._licences = licences
        self._sources: dict[str, tuple[str, ...]] = {}
        known: dict[tuple[str, ...], tuple[str, ...]] = {}  # a handful of combinations, each kept once
        shown = pl.read_parquet(inputs[tables.QUESTIONS], glob=False, columns=["source", "paragraph_ids"])
        shown = shown.explode("paragraph_ids")
        of = shown.unique().group_by("paragraph_ids").agg(pl.col("source").sort())
        for passage_id, sources in of.iter_rows():
            self._sources[passage_id] = known.setdefault(tuple(sources), tuple(sources))

    def passage(self, passage_id: str) -> Paragraph:
        """Return a passage with its texts."""
        found = self._passages[passage_id]
        return Paragraph(passage_id=passage_id, title=found.title, text=found.text)

    def document(self, document: RetrievedDocument) -> ReleasedDocument:
        """Return a round's document with its texts."""
        shown = self._passages.shown(document)
        return ReleasedDocument(**{**document.model_dump(), "title": shown.title, "text": shown.text})

    def sources(self, passage_id: str) -> tuple[str, ...]:
        """Return the sources of the questions that come with a passage."""
        return self._sources.get(passage_id, _NO_QUESTION)

    def licence(self, source: str, passage_ids: Sequence[str | None] = ()) -> str:
        """Return the licence of a row of this source that holds these passages.

        None stands for a text from elsewhere.
        """
        sources = {source}.union(*(self.sources(passage_id) for passage_id in passage_ids if passage_id))
        found = {self._licences.get(name, OTHER) for name in sources}
        return combined(found | ({OTHER} if None in passage_ids else set()))

    def rows(self) -> Iterator[ReleasedPassage]:
        """Yield all passages, in order."""
        for passage in read_rows(self._path, tables.PASSAGES):
            sources = self.sources(passage.passage_id)
            licence = combined(self._licences.get(source, OTHER) for source in sources)
            yield ReleasedPassage(**passage.model_dump(), sources=list(sources), licence=licence)


def items(inputs: tables.Inputs, corpus: Corpus) -> Iterator[list[Item]]:
    """Yield, for every question, its rows of all configs but the corpus.

    The list is empty where its trajectory is not fit for training.
    """
    for rows in by_question(inputs, *_RELATED):
        quality = rows[tables.QUALITY]
        trajectories = rows[tables.TRAJECTORIES]
        fit = trajectories and trajectories[0].complete and quality and quality[0].passed
        yield _rows_of(rows, quality[0], corpus) if fit else []


def _rows_of(rows: QuestionRows, quality: Quality, corpus: Corpus) -> list[Item]:
    licence = corpus.licence(rows.question.source)  # of questions and queries; a trajectory shows passages too
    return [
        Item(TRAJECTORIES, quality.split, _trajectory(rows, quality, corpus)),
        *(Item(SUB_QUESTIONS, quality.split, row) for row in _sub_questions(rows, quality, licence)),
        *(Item(QUERIES, quality.split, row) for row in _queries(rows, licence)),
    ]


def _trajectory(rows: QuestionRows, quality: Quality, corpus: Corpus) -> ReleasedTrajectory:
    trajectory = rows[tables.TRAJECTORIES][0]
    rounds = [_round(step, rows, corpus) for step in rows[tables.ROUNDS]]
    documents = [document.passage_id for step in rounds for document in step.documents]
    gold = [paragraph.passage_id for step in rounds for paragraph in step.gold]
    own: dict[str, Any] = {
        "licence": corpus.licence(trajectory.source, [*documents, *gold]),
        "rounds": rounds,
        **quality.model_dump(include={"difficulty", "difficulty_score", "pass_rate", "flags", "split_group"}),
    }
    return ReleasedTrajectory(**trajectory.model_dump(exclude={"complete"}), **own)


def _round(step: Round, rows: QuestionRows, corpus: Corpus) -> ReleasedRound:
    votes = {vote.query_id: vote for vote in rows[tables.VOTES]}
    queries = [query for query in rows[tables.QUERIES] if query.hop == step.hop]
    hops = rows[tables.SUB_QUESTIONS]
    gold = next((hop.gold_passage_ids for hop in hops if hop.hop == step.hop), [])
    own: dict[str, Any] = {
        "kept_queries": [query.query for query in queries if votes[query.query_id].kept],
        "rejected_queries": [query.query for query in queries if votes[query.query_id].dropped],
        "documents": [corpus.document(document) for document in step.documents],
        "gold": [corpus.passage(passage_id) for passage_id in gold],
    }
    return ReleasedRound(**step.model_dump(exclude={"question_id", "kept", "alternatives", "documents"}), **own)


def _sub_questions(rows: QuestionRows, quality: Quality, licence: str) -> Iterator[ReleasedSubQuestion]:
    for hop in rows[tables.SUB_QUESTIONS]:
        yield ReleasedSubQuestion(**hop.model_dump(), licence=licence, split_group=quality.split_group)


def _queries(rows: QuestionRows, licence: str) -> Iterator[ReleasedQuery]:
    votes = {vote.query_id: vote for vote in rows[tables.VOTES]}
    engine_votes = rows[tables.ENGINE_VOTES]
    asked = {hop.hop: hop.sub_question for hop in rows[tables.SUB_QUESTIONS]}
    for query in rows[tables.QUERIES]:
        own: dict[str, Any] = {
            **votes[query.query_id].model_dump(include={"kept", "waiting", "engines", "gold_rank"}),
            "valid_engines": [b.engine for b in engine_votes if b.query_id == query.query_id and b.valid],
            "source": rows.question.source,
            "licence": licence,
            "sub_question": asked[query.hop],
        }
        yield ReleasedQuery(**query.model_dump(), **own)
