"""The rows of a release: what `load_dataset` gives, every row with all that it needs.

A store keeps each text once; a release repeats it where it is read, and says of every row where it comes from
and under which licence it may be used.
"""

from pydantic import Field

from stepsearch_data.schemas.rows import Paragraph, Passage, Query, Row, SubQuestion

_LICENCE = "licence of the row's texts, as the Hub names it: the strictest of its sources'"
_SPLIT_GROUP = "questions that share gold paragraphs have the same; a group is never split"


class ReleasedDocument(Row):
    """A document that a round shows, with its text."""

    rank: int = Field(description="rank in the engine's answer, from 1")
    passage_id: str | None = Field(description="passage of the corpus; null for a document from elsewhere")
    title: str = Field(description="title of the document")
    text: str = Field(description="text of the document")
    score: float = Field(description="the engine's score")
    engine: str = Field(description="engine that returned it")
    is_gold: bool = Field(description="whether it is a gold passage of the round's hop")


class ReleasedRound(Row):
    """A search round: what is asked, searched, shown and found, and what it is worth."""

    round: int = Field(description="position of the round, from 1")
    hop: int = Field(description="hop that the round works on, from 1")
    role: str = Field(description="gold, distractor (a search that found nothing) or abstain")
    sub_question: str = Field(description="sub-question of the round, earlier answers filled in")
    sub_answer: str = Field(description="what the round finds out; empty where its role is not gold")
    query: str = Field(description="query of the round")
    query_id: str = Field(description="id of that query in the config `queries`")
    kept_queries: list[str] = Field(description="all queries of the hop that passed the vote")
    rejected_queries: list[str] = Field(description="all queries of the hop that the vote dropped")
    gold_rank: int | None = Field(
        description="rank of the first gold passage among `documents`; null when there is none"
    )
    documents: list[ReleasedDocument] = Field(description="documents shown in this round, best first")
    gold: list[Paragraph] = Field(description="gold paragraphs of the hop")
    information_gain: float = Field(description="G^t of the paper, 0 to 1")
    redundancy_penalty: float = Field(description="P^t of the paper: share of its documents that were shown before")
    step_reward: float = Field(description="G^t - P^t, the paper's reward of the round")


class ReleasedTrajectory(Row):
    """A question, and how to answer it search by search."""

    question_id: str = Field(description="id of the question in its source")
    source: str = Field(description="format that the question came from")
    licence: str = Field(description=_LICENCE)
    question_type: str = Field(description="graph shape or reasoning type of the question")
    question: str = Field(description="question text")
    answer: str = Field(description="gold answer; a sentence that abstains where the question is not answerable")
    answer_aliases: list[str] = Field(description="other accepted answers")
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


class ReleasedQuery(Query):
    """A query that was written for a hop, and the vote on it."""

    source: str = Field(description="format that the question came from")
    licence: str = Field(description=_LICENCE)
    sub_question: str = Field(description="sub-question that it was written for")
    kept: bool = Field(description="whether the query passes the vote")
    waiting: bool = Field(description="whether too few engines answered: neither kept nor dropped")
    engines: int = Field(description="M: engines that answered")
    valid_engines: list[str] = Field(description="names of the engines on which it is valid")
    gold_rank: int | None = Field(description="best rank of a gold passage on any engine; null when none was returned")


class ReleasedPassage(Passage):
    """A passage of the corpus that the engines searched."""

    sources: list[str] = Field(description="formats of the questions that come with it")
    licence: str = Field(description=_LICENCE)
