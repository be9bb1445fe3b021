"""queries: `sub_questions` → `queries`, several searches for every hop."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import Unit, for_each_question
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import Query
from stepsearch_data.schemas.tables import QUERIES, SUB_QUESTIONS
from stepsearch_data.stages import rules


class QueriesConfig(StageConfig):
    """Who writes the queries, and how many."""

    llm: Literal["offline"] = Field(default="offline", description="`offline`: deterministic rules, no model")
    per_sub_question: int = Field(
        default=4, ge=1, le=8, description="N: at most this many distinct queries for each hop"
    )


def queries(context: StageContext) -> None:
    """Write the queries of every hop."""
    config = context.config(QueriesConfig)
    for_each_question(context, partial(_queries, config.per_sub_question), SUB_QUESTIONS)


async def _queries(count: int, unit: Unit) -> list[Query]:
    hops = unit.related[SUB_QUESTIONS.name]
    return [query for hop in hops for query in rules.write_queries(unit.question, hops, hop, count)]


STAGE = Stage(
    name="queries",
    doc="write search queries for every hop",
    reads=("questions", "sub_questions"),
    writes=(QUERIES,),
    config=QueriesConfig,
    run=queries,
)
