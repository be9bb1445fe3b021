"""decide: `checks` → `verdicts`. Another rule decides anew, and asks nothing."""

from __future__ import annotations

from functools import partial

from pydantic import Field, field_validator

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import QuestionRows, for_each_question
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import Verdict
from stepsearch_data.schemas.tables import CANDIDATES, CHECKS, PARAGRAPHS, VERDICTS
from stepsearch_data.stages.proof import decision


class DecideConfig(StageConfig):
    """What a question must not fail, and how many samples decide."""

    gates: tuple[str, ...] = Field(
        default=decision.GATES, description="checks that a question must not fail; the others are hints"
    )
    need: int | None = Field(
        default=None, ge=1, le=100, description="samples of a reading that decide; the default is more than half"
    )

    @field_validator("gates")
    @classmethod
    def _are_checks(cls, gates: tuple[str, ...]) -> tuple[str, ...]:
        return decision.check_names(gates)


def decide(context: StageContext) -> None:
    """Decide on every question that was checked."""
    decided = partial(_verdict, context.config(DecideConfig), context.count(PARAGRAPHS))
    for_each_question(context, decided, CHECKS, base=CANDIDATES)


def _verdict(config: DecideConfig, passages: int, rows: QuestionRows) -> list[Verdict]:
    checks = rows[CHECKS]
    return [decision.decide(rows.question, checks, config.gates, config.need, passages)] if checks else []


STAGE = Stage(
    name="decide",
    doc="decide by the checks which questions pass",
    reads=(*CANDIDATES, PARAGRAPHS, CHECKS),
    writes=(VERDICTS,),
    config=DecideConfig,
    run=decide,
)
