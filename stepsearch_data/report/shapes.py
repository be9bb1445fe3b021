"""What the page is told: the JSON between Python and the browser, each shape written down once.

Python makes these, `page/` reads them. A report is three things: one `Summary`, an `Index` of all trajectories
(what is searched, filtered and sorted, kept small), and for each trajectory a `Record` (what is looked at).
"""

from typing import Any, Literal, TypedDict

Spec = dict[str, Any]
"""A Vega-Lite specification with its data inside."""


class Step(TypedDict):
    """A step of the funnel, or a reason for which rows left it."""

    name: str
    count: int
    note: str  # what is counted, in words; for a reason, the reason
    whole: int | None  # what is 100 %: all rows, hops or queries; null for a reason
    link: str | None  # address of the list of what is counted; null where the page has none
    lost: list["Step"]  # reasons for which rows did not reach the next step, most frequent first


class Chart(TypedDict):
    """A chart, and the same in words and numbers for those who cannot see it."""

    id: str
    title: str
    note: str  # what to look for
    spec: Spec
    columns: list[str]
    rows: list[list[str | float | None]]  # the table behind the chart
    links: list[dict[str, str]]  # as those of `Facts`; a mark leads where the first link of its row does


class Facts(TypedDict):
    """A named list of facts: provenance, cost, gates."""

    title: str
    columns: list[str]
    rows: list[list[str | float | None]]
    links: list[dict[str, str]]  # of each row, the lists of what it counts, by columns; empty where there are none


class Facets(TypedDict):
    """The values that occur in columns of the `Index`, sorted: what the browser's filters offer."""

    source: list[str]
    type: list[str]
    hops: list[int]
    split: list[str]
    difficulty: list[str]
    flags: list[str]
    rejected_by: list[str]
    marks: list[str]


class Said(TypedDict):
    """A part of a sentence."""

    text: str
    link: str | None  # address of the list of what it counts


class Verdict(TypedDict):
    """What is in the store, and whether it is fit for training: the first screen."""

    said: list[Said]  # in a sentence or two
    table: Facts  # by source and hops
    parts: list[Facts]  # splits, difficulty, contamination, what fails most: name, trajectories or what is said


class Summary(TypedDict):
    """All but the trajectories."""

    title: str
    made_with: str  # stepsearch-data 0.x
    store: str  # digest of the manifest
    notes: list[str]  # what is missing or left out, and why
    facets: Facets
    policies: list[str]  # whose rollouts are shown
    verdict: Verdict
    tiles: list[Facts]  # a handful of headline numbers: title, [title], [[value]]
    documents: list[Step]  # from documents to questions that pass their checks; empty without documents
    funnel: list[Step]  # read, questions, hops, queries, kept, trajectories, passed
    checked: list[Facts]  # what checks found, and examples; empty where neither documents nor a model had a part
    marked: list[Facts]  # trajectories by what their reader says, where anything is said
    compared: list[Facts]  # policies, where some are shown
    charts: list[Chart]
    tables: list[Facts]  # agreement, calls and costs, gates, provenance, prompts


class Index(TypedDict):
    """All trajectories, a list per column, in the order of the store. Row i lies in chunk i // chunk_rows."""

    chunk_rows: int
    id: list[str]
    question: list[str]
    answer: list[str]
    source: list[str]
    type: list[str]
    hops: list[int]
    split: list[str]  # train, validation, or empty where it has not passed
    passed: list[bool | None]  # null where no gate has run
    complete: list[bool]
    answerable: list[bool]
    difficulty: list[str]
    flags: list[list[str]]  # gates that it fails
    queries: list[int]  # written for its hops
    kept: list[int]  # of those, kept by the vote
    gain: list[float]  # sum of G over its rounds
    redundancy: list[float]  # sum of P
    reward: list[float]  # sum of G - P
    disagree: list[bool]  # whether its engines disagree on a query
    rejected_by: list[str]  # the first gate that rejects it, or empty
    marks: list[list[str]]  # what its reader says: good or bad, and note where there is one; else none
    words: list[int]  # of the rollout, with its documents
    right: list[list[bool | None]]  # whether each policy is right; null where one has no rollout


Parts = dict[str, dict[str, list[Any]]]
"""Hops, queries and rounds of all trajectories, a list per column; `place` is the trajectory's row, from 1."""


class Reject(TypedDict):
    """A row that a stage rejected."""

    stage: str
    source: str
    position: int | None  # in its source, from 1
    id: str | None
    reason: str


class Rejects(TypedDict):
    """The first rejected rows, and how many there are."""

    total: int
    rows: list[Reject]


class EngineVote(TypedDict):
    """What an engine said about a query."""

    engine: str
    answered: bool
    valid: bool
    gold_rank: int | None


class Query(TypedDict):
    """A query of a hop, kept or rejected."""

    query: str
    method: str
    verdict: Literal["chosen", "kept", "rejected", "waiting", "not voted"]
    gold_rank: int | None
    engine_votes: list[EngineVote]


class RecordDocument(TypedDict):
    """A document that a round shows."""

    rank: int
    title: str
    text: str
    url: str | None
    engine: str
    score: float | None  # a rollout's text does not tell
    gold: bool  # of the round's own hop; in a rollout, of the question


class Segment(TypedDict):
    """A piece of the rollout's text."""

    kind: Literal["think", "search", "information", "observation", "answer", "warning", "text"]
    text: str
    round: int | None  # position in `Record.rounds`, from 0, of a search and its information


class RecordRound(TypedDict):
    """A search of the trajectory, with what the store knows of it."""

    round: int
    hop: int
    role: str
    sub_question: str
    sub_answer: str
    query: str
    kept: bool
    gold_rank: int | None
    gain: float  # G
    redundancy: float  # P
    reward: float  # G - P
    documents: list[RecordDocument]
    queries: list[Query]  # all queries of its hop, the chosen one first


class Rollout(TypedDict):
    """What a policy did with the question, scored as the paper does."""

    policy: str
    answer: str | None
    right: bool  # exact match
    f1: float
    format_ok: bool
    answer_reward: float  # with the search keys' share
    key_reward: float
    segments: list[Segment]
    rounds: list[RecordRound]  # without hop, votes and queries
    golds: int  # gold paragraphs that its information gain is divided by


class Mark(TypedDict):
    """What a reader says of a trajectory."""

    mark: Literal["good", "bad", ""]
    note: str


class Record(TypedDict):
    """A trajectory as it is looked at."""

    id: str
    question: str
    answer: str
    aliases: list[str]
    source: str
    type: str
    hops: int
    split: str
    passed: bool | None
    complete: bool
    answerable: bool
    difficulty: str
    flags: list[str]
    reasons: list[str]  # one for each flag
    key_reward: float
    answer_reward: float
    gold: list[tuple[str, str]]  # title and text of the supporting paragraphs
    segments: list[Segment]
    rounds: list[RecordRound]
    rollouts: list[Rollout]  # of policies, where some were given
    mark: Mark


class Change(TypedDict):
    """A trajectory that is fit for training in one of two stores, or in both but not the same."""

    id: str
    kind: Literal["lost", "gained", "changed"]  # only A has it; only B has it; both have it, with differences
    question: str
    source: str
    hops: int
    reasons: list[str]  # why the other store lacks it; of a changed one, which parts differ


class Comparison(TypedDict):
    """Two stores, A and B, compared; the report is of B, and has those trajectories of A that changed, too."""

    a: str  # name of a store's folder
    b: str
    fit: tuple[int, int]  # trajectories that are complete and passed by the gates
    kept_share: tuple[float, float]  # of all queries
    tables: list[Facts]  # settings that differ, rows, gates
    changes: list[Change]
    others: list[str]  # ids of the trajectories of A in the chunks from this one on
    first_chunk: int
