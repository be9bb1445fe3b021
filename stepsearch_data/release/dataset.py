"""The dataset of a release: what `load_dataset` gives, every row with all that it needs.

A store keeps each text once; a release repeats it where it is read, and says of every row where it comes from
and under which licence it may be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from stepsearch_data.core.text import joined_lines
from stepsearch_data.exports.reading import Played, plays
from stepsearch_data.exports.traces import HARNESS, chat, identify, search_tool, session_lines, session_of
from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.pipeline.questions import QuestionRows, by_question
from stepsearch_data.release.lineage import OTHER, combined
from stepsearch_data.release.record import Record
from stepsearch_data.rewards import read
from stepsearch_data.schemas import tables
from stepsearch_data.schemas.rows import (
    Json,
    Paragraph,
    Passage,
    Quality,
    Query,
    RetrievedDocument,
    Rollout,
    RolloutTurn,
    Round,
    Row,
    SubQuestion,
    Trajectory,
    Vote,
)
from stepsearch_data.sources import CORPUS as OWN_CORPUS
from stepsearch_data.sources import OWN
from stepsearch_data.templates.passages import Passages

R = TypeVar("R", bound=Row)

_DOCUMENTS = (OWN, OWN_CORPUS)  # where documents that belong to no question come from
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


def _like(*stored: type[Row]) -> Callable[[type[R]], type[R]]:
    """Give columns without a meaning the meaning that they have in the first of these rows of a store."""

    def describe(released: type[R]) -> type[R]:
        known = {name: info.description for row in reversed(stored) for name, info in row.model_fields.items()}
        for name, info in released.model_fields.items():
            info.description = info.description or known[name]
        return released

    return describe


class ReleasedDocument(RetrievedDocument):
    """A document that a round shows, with its text."""

    text: str = Field(description="text of the document")


@_like(Round)
class ReleasedRound(Row):
    """A search round: what is asked, searched, shown and found, and what it is worth."""

    round: int
    hop: int
    role: str
    sub_question: str
    sub_answer: str
    query: str
    query_id: str
    kept_queries: list[str] = Field(description="all queries of the hop that passed the vote")
    rejected_queries: list[str] = Field(description="all queries of the hop that the vote dropped")
    gold_rank: int | None
    documents: list[ReleasedDocument]
    gold: list[Paragraph] = Field(description="gold paragraphs of the hop")
    information_gain: float
    redundancy_penalty: float
    step_reward: float


@_like(Trajectory, Quality)
class ReleasedTrajectory(Row):
    """A question, and how to answer it search by search."""

    question_id: str = Field(description="id of the question in its source")
    source: str
    licence: str = Field(description=_LICENCE)
    question_type: str
    question: str
    answer: str
    answer_aliases: list[str]
    answerable: bool
    hops: int
    rounds: list[ReleasedRound] = Field(description="the search rounds, in order")
    rollout: str
    key_reward: float
    answer_reward: float
    difficulty: str
    difficulty_score: float
    pass_rate: float | None = Field(description="mean score of a model's rollouts; null where none were given")
    flags: list[str] = Field(description="gates that flag it without rejecting it")
    split_group: str


@_like(Quality)
class ReleasedSubQuestion(SubQuestion):
    """A hop of a released question."""

    licence: str = Field(description=_LICENCE)
    split_group: str


@_like(SubQuestion, Vote)
class ReleasedQuery(Query):
    """A query that was written for a hop, and the vote on it."""

    source: str
    licence: str = Field(description=_LICENCE)
    sub_question: str
    kept: bool
    waiting: bool
    engines: int
    valid_engines: list[str] = Field(description="names of the engines on which it is valid")
    gold_rank: int | None


@_like(RolloutTurn)
class ReleasedTurn(Row):
    """A turn of a rollout that searches."""

    turn: int
    query: str
    titles: list[str]
    gold_passage_ids: list[str]
    new_gold: int
    repeated: bool
    information_gain: float
    redundancy_penalty: float
    step_reward: float


@_like(Rollout, Quality)
class ReleasedRollout(Row):
    """What a policy did with a question, turn by turn."""

    question_id: str
    source: str
    licence: str = Field(description=_LICENCE)
    policy: str = Field(description="name of the policy, as the publisher calls it")
    sample: int
    answer: str | None
    right: bool
    f1: float
    format_ok: bool
    ended: str
    gold: int
    gold_found: int
    turns: list[ReleasedTurn] = Field(description="its searches, in order")
    response: str
    split_group: str


class ReleasedTrace(Row):
    """A rollout as a session, in the columns in which the Hub's trace viewer has sessions."""

    harness: str = Field(description="program that wrote the session")
    session_id: str = Field(description="id of the question, policy and sample")
    prompt: str = Field(description="question that was asked")
    messages: list[Json] = Field(
        description="the session as chat messages: searches are calls of a function, other calls are text"
    )
    tools: list[Json] = Field(description="definition of the function that searches")
    metadata: Json = Field(description="all columns of the rollout, of its turns and of its question; licence")
    sent_at: str | None = Field(description="time of the first message; null, as rollouts have none")
    num_user_messages: int = Field(description="the question, warnings, and what calls returned that are no search")
    num_tool_calls: int = Field(description="searches; calls of other tools do not count")
    trace: Json = Field(description="the session as JSON Lines, in the Hub's Session Trace Simple Format")
    file_path: str = Field(description="name that the session would have as a file")


class ReleasedPassage(Passage):
    """A passage of the corpus that the engines searched."""

    sources: list[str] = Field(description="formats of the questions that come with it")
    licence: str = Field(description=_LICENCE)


Config = tables.Table[Any]
"""A config of the dataset."""
TRAJECTORIES = Config("trajectories", ReleasedTrajectory, rows_per_group=200)
SUB_QUESTIONS = Config("sub_questions", ReleasedSubQuestion, rows_per_group=5_000)
QUERIES = Config("queries", ReleasedQuery, rows_per_group=10_000)
CORPUS = Config("corpus", ReleasedPassage, rows_per_group=5_000)
CONFIGS = (TRAJECTORIES, SUB_QUESTIONS, QUERIES, CORPUS)
"""The first is the default."""
ROLLOUTS = Config("rollouts", ReleasedRollout, rows_per_group=200)
"""A config of those stores that keep rollouts."""
TRACES = Config("traces", ReleasedTrace, rows_per_group=200)
"""A config of those releases that are to show them in the Hub's trace viewer."""


def configs_of(record: Record) -> list[Config]:
    """Return the configs that a release has."""
    return [*CONFIGS, *(config for config in (ROLLOUTS, TRACES) if config.name in record.configs)]


class Item(NamedTuple):
    """A row of a release, and where it goes."""

    config: Config
    split: str
    row: Row


def _hash(title: str) -> np.uint64:
    return np.uint64(hash(title.strip()) % (1 << 64))


class Corpus:
    """The corpus of a store: texts by passage id, and the sources whose questions come with them."""

    def __init__(self, inputs: tables.Inputs, licences: Mapping[str, str]) -> None:
        self._path = inputs[tables.PASSAGES]
        self._passages = Passages(self._path)
        self._licences = licences
        self._unasked = tuple(source for source in _DOCUMENTS if source in licences) or (OWN,)
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
        return self._sources.get(passage_id, self._unasked)

    def licence(self, source: str, passage_ids: Sequence[str | None] = ()) -> str:
        """Return the licence of a row of this source that holds these passages.

        None stands for a text from elsewhere.
        """
        sources = {source}.union(*(self.sources(passage_id) for passage_id in passage_ids if passage_id))
        found = {self._licences.get(name, OTHER) for name in sources}
        return combined(found | ({OTHER} if None in passage_ids else set()))

    def find(self, title: str, text: str) -> list[str | None]:
        """Return the passages of this title that begin so, as a policy may see the first part; None where none does."""
        hashes, ids = self._titles
        first, after = (hashes.searchsorted(_hash(title), side) for side in ("left", "right"))
        named = ids[first:after].to_list()
        begun = joined_lines(text)
        return [each for each in named if joined_lines(self._passages[each].text).startswith(begun)] or [None]

    @cached_property
    def _titles(self) -> tuple[NDArray[np.uint64], pl.Series]:
        """Return the hashes of the passages' titles, ascending, and their ids."""
        table = pl.read_parquet(self._path, glob=False, columns=["title", "passage_id"])
        hashes = np.fromiter(map(_hash, table["title"]), np.uint64, len(table))
        order = hashes.argsort(kind="stable")
        return hashes[order], table["passage_id"].gather(order)

    def rows(self) -> Iterator[ReleasedPassage]:
        """Yield all passages, in order."""
        for passage in read_rows(self._path, tables.PASSAGES):
            sources = self.sources(passage.passage_id)
            licence = combined(self._licences.get(source, OTHER) for source in sources)
            yield ReleasedPassage(**passage.model_dump(), sources=list(sources), licence=licence)


def items(inputs: tables.Inputs, corpus: Corpus, *, traces: bool = False) -> Iterator[list[Item]]:
    """Yield, for every question, its rows of all configs but the corpus; those of `traces` where they are wanted.

    The list is empty where its trajectory is not fit for training.
    """
    kept = [table for table in tables.OPTIONAL if table in inputs]
    for rows in by_question(inputs, *_RELATED, *kept):
        quality = rows[tables.QUALITY]
        trajectories = rows[tables.TRAJECTORIES]
        fit = trajectories and trajectories[0].complete and quality and quality[0].passed
        yield _rows_of(rows, quality[0], corpus, traces=traces) if fit else []


def _rows_of(rows: QuestionRows, quality: Quality, corpus: Corpus, *, traces: bool) -> list[Item]:
    votes = {vote.query_id: vote for vote in rows[tables.VOTES]}
    rounds = [_round(step, rows, votes, corpus) for step in rows[tables.ROUNDS]]
    documents = [document.passage_id for step in rounds for document in step.documents]
    gold = [paragraph.passage_id for step in rounds for paragraph in step.gold]
    source, trajectory, hops = rows.question.source, rows[tables.TRAJECTORIES][0], rows[tables.SUB_QUESTIONS]
    licence = corpus.licence(source)  # of questions and queries; a trajectory shows passages too
    of_trajectory: dict[str, Any] = {
        **trajectory.model_dump(exclude={"complete"}),
        "licence": corpus.licence(source, [*documents, *gold]),
        "rounds": rounds,
        **quality.model_dump(include={"difficulty", "difficulty_score", "pass_rate", "flags", "split_group"}),
    }
    asked = {hop.hop: hop.sub_question for hop in hops}
    valid = [(vote.query_id, vote.engine) for vote in rows[tables.ENGINE_VOTES] if vote.valid]

    def of_query(query: Query) -> dict[str, Any]:
        return {
            **query.model_dump(),
            **votes[query.query_id].model_dump(include={"kept", "waiting", "engines", "gold_rank"}),
            "valid_engines": [engine for query_id, engine in valid if query_id == query.query_id],
            "source": source,
            "licence": licence,
            "sub_question": asked[query.hop],
        }

    of_hop = {"licence": licence, "split_group": quality.split_group}
    played = [(one, _rollout(one, quality, corpus)) for one in plays(rows, quality.split)]
    released: list[tuple[Config, Row]] = [
        (TRAJECTORIES, ReleasedTrajectory(**of_trajectory)),
        *((SUB_QUESTIONS, ReleasedSubQuestion(**hop.model_dump(), **of_hop)) for hop in hops),
        *((QUERIES, ReleasedQuery(**of_query(query))) for query in rows[tables.QUERIES]),
        *((ROLLOUTS, rollout) for _, rollout in played),
        *((TRACES, _trace(one, rollout)) for one, rollout in played if traces),
    ]
    return [Item(config, quality.split, row) for config, row in released]


def _rollout(played: Played, quality: Quality, corpus: Corpus) -> ReleasedRollout:
    """Return a rollout with its turns, under the licence of its question and of all that it shows."""
    rollout = played.rollout
    turns = [ReleasedTurn(**turn.model_dump(exclude={"question_id", "policy", "sample"})) for turn in played.turns]
    own = rollout.model_dump(include=ReleasedRollout.model_fields.keys() - {"turns", "licence", "split_group"})
    parsed = read(rollout.response, observations=rollout.places)
    shown = [corpus.find(each.title, each.span.text) for found in parsed.rounds for each in found.documents]
    licence = corpus.licence(rollout.source, [passage_id for found in shown for passage_id in found])
    return ReleasedRollout(**own, turns=turns, licence=licence, split_group=quality.split_group)


def _trace(played: Played, released: ReleasedRollout) -> ReleasedTrace:
    """Return a rollout as `datasets` makes a row of a session's file, which the viewer then reads."""
    session, messages, row = identify(played), chat(played), session_of(played)
    about = {**row["session"], "licence": released.licence, "split_group": released.split_group}
    return ReleasedTrace(
        harness=HARNESS,
        session_id=session,
        prompt=played.question.question,
        messages=[_json(message) for message in messages],
        tools=[_json(tool) for tool in search_tool()],
        metadata=_json(about),
        sent_at=None,
        num_user_messages=sum(message["role"] == "user" for message in messages),
        num_tool_calls=len(played.turns),
        trace=_json(session_lines(row).decode()),
        file_path=f"{session}.jsonl",
    )


def _json(value: object) -> Json:
    return Json(orjson.dumps(value).decode())


def _round(step: Round, rows: QuestionRows, votes: Mapping[str, Vote], corpus: Corpus) -> ReleasedRound:
    queries = [query for query in rows[tables.QUERIES] if query.hop == step.hop]
    gold = next((hop.gold_passage_ids for hop in rows[tables.SUB_QUESTIONS] if hop.hop == step.hop), [])
    own: dict[str, Any] = {
        "kept_queries": [query.query for query in queries if votes[query.query_id].kept],
        "rejected_queries": [query.query for query in queries if votes[query.query_id].dropped],
        "documents": [corpus.document(document) for document in step.documents],
        "gold": [corpus.passage(passage_id) for passage_id in gold],
    }
    return ReleasedRound(**step.model_dump(exclude={"question_id", "kept", "alternatives", "documents"}), **own)
