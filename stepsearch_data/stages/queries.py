"""queries: `sub_questions` → `queries`, several searches for every hop."""

from __future__ import annotations

import asyncio
from functools import partial

from pydantic import Field

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import QuestionRows, ask_for_each_question, for_each_question
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.schemas.rows import Query, Question, SubQuestion
from stepsearch_data.schemas.tables import QUERIES, QUESTIONS, SUB_QUESTIONS
from stepsearch_data.stages import model, rules


class QueriesConfig(model.ModelConfig):
    """Who writes the queries, and how many."""

    per_sub_question: int = Field(
        default=4, ge=1, le=8, description="N: at most this many distinct queries for each hop"
    )
    given: bool = Field(
        default=True, description="take the queries that the source gives (stepsearch) for a hop, instead of new ones"
    )

    @property
    def asks(self) -> tuple[str, ...]:
        """Return the names of the prompts that a model gets."""
        return ("queries",)


def queries(context: StageContext) -> None:
    """Write the queries of every hop."""
    config = context.config(QueriesConfig)
    llm = context.model
    if llm is None:
        for_each_question(context, partial(_by_rules, config), SUB_QUESTIONS)
        return
    prompt = model.Prompt("queries", context.prompts["queries"])

    async def of_hop(question: Question, hops: list[SubQuestion], hop: SubQuestion) -> list[Query]:
        return _given(config, question, hops, hop) or await model.write_queries(
            llm, prompt, question, hops, hop, config.per_sub_question, config, context.sample(question.question_id)
        )

    async def by_model(rows: QuestionRows) -> list[Query]:
        hops = rows[SUB_QUESTIONS]
        written = await asyncio.gather(
            *(of_hop(rows.question, hops, hop) for hop in hops),
            return_exceptions=True,  # all hops finish, and the first hop's error is the reason
        )
        return [query for queries_of_hop in written for query in _or_raise(queries_of_hop)]

    ask_for_each_question(context, by_model, SUB_QUESTIONS)


def _by_rules(config: QueriesConfig, rows: QuestionRows) -> list[Query]:
    question, hops, count = rows.question, rows[SUB_QUESTIONS], config.per_sub_question
    written = (_given(config, question, hops, hop) or rules.write_queries(question, hops, hop, count) for hop in hops)
    return [query for queries_of_hop in written for query in queries_of_hop]


def _given(config: QueriesConfig, question: Question, hops: list[SubQuestion], hop: SubQuestion) -> list[Query]:
    return rules.given_queries(question, hops, hop, config.per_sub_question) if config.given else []


def _or_raise(written: list[Query] | BaseException) -> list[Query]:
    if isinstance(written, BaseException):
        raise written
    return written


STAGE = Stage(
    name="queries",
    doc="write search queries for every hop",
    reads=(QUESTIONS, SUB_QUESTIONS),
    writes=(QUERIES,),
    config=QueriesConfig,
    run=queries,
)
