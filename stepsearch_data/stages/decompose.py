"""decompose: `questions` → `sub_questions`, the hops that answer them."""

from __future__ import annotations

from functools import partial

from pydantic import Field

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import QuestionRows, ask_for_each_question, for_each_question
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.schemas.rows import SubQuestion
from stepsearch_data.schemas.tables import QUESTIONS, SUB_QUESTIONS
from stepsearch_data.sources import CORPUS
from stepsearch_data.stages import model, rules


class DecomposeConfig(model.ModelConfig):
    """Who decomposes, and whether a judge looks at it."""

    min_coherence: int | None = Field(
        default=None, ge=1, le=5, description="let the model judge each decomposition (1 to 5), reject those below"
    )
    unanswerable: bool = Field(
        default=False,
        description="decompose MuSiQue-Full's unanswerable twins too, as their file does: their trajectories abstain",
    )

    @property
    def asks(self) -> tuple[str, ...]:
        """Return the names of the prompts that a model gets."""
        return ("decompose", "judge") if self.min_coherence else ("decompose",)


def decompose(context: StageContext) -> None:
    """Decompose every answerable question and, if so configured, its unanswerable twins, whose hops may lack gold."""
    config = context.config(DecomposeConfig)
    by_rules = partial(_by_rules, config)
    llm = context.model
    if llm is None:
        for_each_question(context, by_rules)
        return
    prompts = {name: model.Prompt(name, text) for name, text in context.prompts.items()}

    async def by_model(rows: QuestionRows) -> list[SubQuestion]:
        question, sample = rows.question, context.sample(rows.question.question_id)
        if not question.answerable or question.source == CORPUS:  # a composed one has its hops
            return by_rules(rows)
        hops = await model.decompose(llm, prompts["decompose"], question, config, sample)
        if config.min_coherence:
            score, why = await model.judge(llm, prompts["judge"], question, hops, config, sample)
            if score < config.min_coherence:
                raise RowRejected(f"coherence {score} is below {config.min_coherence}: {why}")
        return hops

    ask_for_each_question(context, by_model)


def _by_rules(config: DecomposeConfig, rows: QuestionRows) -> list[SubQuestion]:
    return rules.decompose(rows.question) if rows.question.answerable or config.unanswerable else []


STAGE = Stage(
    name="decompose",
    doc="split every question into its hops",
    reads=(QUESTIONS,),
    writes=(SUB_QUESTIONS,),
    config=DecomposeConfig,
    run=decompose,
)
