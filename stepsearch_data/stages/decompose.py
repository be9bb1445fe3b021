"""decompose: `questions` → `sub_questions`, the hops that answer them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import Unit, for_each_question
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import SubQuestion
from stepsearch_data.schemas.tables import SUB_QUESTIONS
from stepsearch_data.stages import rules


class DecomposeConfig(StageConfig):
    """Who decomposes."""

    llm: Literal["offline"] = Field(default="offline", description="`offline`: deterministic rules, no model")


def decompose(context: StageContext) -> None:
    """Decompose every answerable question; an unanswerable twin has no gold hops."""
    for_each_question(context, _decompose)


async def _decompose(unit: Unit) -> list[SubQuestion]:
    return rules.decompose(unit.question) if unit.question.answerable else []


STAGE = Stage(
    name="decompose",
    doc="split every question into its hops",
    reads=("questions",),
    writes=(SUB_QUESTIONS,),
    config=DecomposeConfig,
    run=decompose,
)
