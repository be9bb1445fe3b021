"""pairs: rounds of the trajectories → `pairs`, each against a worse round, for preference learning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from pydantic import Field

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import QuestionRows, for_each_question
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import Pair, Round
from stepsearch_data.schemas.tables import HITS, PAIRS, PASSAGES, QUERIES, QUESTIONS, ROUNDS, SUB_QUESTIONS, VOTES
from stepsearch_data.templates import shown
from stepsearch_data.templates.examples import Example, Search
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.passages import Passages
from stepsearch_data.templates.template import Template

Kind = Literal["redundant", "missed", "rejected-query"]


class PairsConfig(StageConfig):
    """Which pairs are made: none by default, as the paper needs none."""

    kinds: tuple[Kind, ...] = Field(
        default=(), description="kinds of pairs, at most one of each per round: redundant, missed, rejected-query"
    )
    documents: int = Field(default=3, ge=1, le=100, description="documents that the worse round shows")


def pairs(context: StageContext) -> None:
    """Pair every good round with worse ones: the same thought, another query, and what this query really found."""
    config = context.config(PairsConfig)
    if config.kinds:
        passages, template = Passages(context.inputs[PASSAGES], context.scratch), load_template(shown.TEMPLATE)
        build = partial(_build, passages, template, config)
        for_each_question(context, build, SUB_QUESTIONS, QUERIES, VOTES, HITS, ROUNDS)


def _build(passages: Passages, template: Template, config: PairsConfig, rows: QuestionRows) -> list[Pair]:
    rounds = rows[ROUNDS]
    example = shown.example(rows.question, len(rows[SUB_QUESTIONS]), rounds, passages)
    made = []
    for at, good in enumerate(rounds):
        if good.role != "gold" or not example.steps[at].search.good:
            continue
        context, chosen = _written(template, example, at)
        worse = _worse(passages, config.documents, rows, rounds[: at + 1])
        made += [
            Pair(
                question_id=rows.question.question_id,
                round=good.round,
                kind=kind,
                context=context,
                chosen=chosen,
                rejected=_written(template, example, at, worse[kind])[1],
                chosen_query=good.query,
                rejected_query=worse[kind].query,
            )
            for kind in config.kinds
            if kind in worse
        ]
    return made


def _written(template: Template, example: Example, at: int, search: Search | None = None) -> tuple[str, str]:
    """Return the rollout before a round's thought, and the round's think, search and information as text."""
    whole = template.rounds(example, at) + template.turn(example, at, search).text
    before, think, query = whole.rpartition("<think>")
    found = template.observation((search or example.steps[at].search).documents)
    return before.removesuffix("\n"), f"{think}{query}\n{found}"


def _worse(passages: Passages, limit: int, rows: QuestionRows, rounds: Sequence[Round]) -> dict[str, Search]:
    """Return the first worse search of each kind for the last of the rounds. The others come before it."""
    *earlier, good = rounds
    votes = {vote.query_id: vote for vote in rows[VOTES]}
    used = {step.query_id for step in rounds}
    worse: dict[str, Search] = {}
    if earlier and earlier[-1].query != good.query:
        worse["redundant"] = passages.search(earlier[-1].query, earlier[-1].documents)
    for query in rows[QUERIES]:
        if query.hop == good.hop and query.query_id not in used and votes[query.query_id].dropped:
            hits = rows.where(HITS, "query_id", query.query_id)
            documents = shown.documents(passages, limit, hits)
            if shown.shows_gold(documents):
                worse.setdefault("rejected-query", passages.search(query.query, documents))
            elif documents and not shown.says(passages, documents, [good.sub_answer]):
                worse.setdefault("missed", passages.search(query.query, documents))
    return worse


STAGE = Stage(
    name="pairs",
    doc="pair good rounds with worse ones, for preference learning",
    reads=(QUESTIONS, SUB_QUESTIONS, PASSAGES, QUERIES, VOTES, HITS, ROUNDS),
    writes=(PAIRS,),
    config=PairsConfig,
    run=pairs,
)
