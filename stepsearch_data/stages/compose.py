"""compose: `chains` and their paragraphs → `composed`: questions that nobody has verified yet.

A chain without a good question is no fault: its row says so (`status`). Only replies that cannot be read are rejects.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stepsearch_data.core.text import normalise
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.demonstrations import TEMPLATE
from stepsearch_data.pipeline.questions import ask_for_each
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.schemas.rows import FAULTY, KEPT, Composed
from stepsearch_data.schemas.tables import CHAINS, COMPOSED, PARAGRAPHS
from stepsearch_data.stages import model
from stepsearch_data.stages.composing.drafts import Draft, Drafts
from stepsearch_data.stages.composing.templates import by_template

_BY_TEMPLATES = "questions by templates are demonstrations, which exports and releases refuse; a model: --llm MODEL"


class ComposeConfig(model.ModelConfig):
    """Who writes the questions: a model, or templates, whose questions are for tests and demonstrations."""

    @property
    def asks(self) -> tuple[str, ...]:
        """Return the names of the prompts that a model gets."""
        return ("compose", "compare")


@dataclass
class _Distinct:
    """Finds questions that repeat an earlier one."""

    seen: dict[str, str] = field(default_factory=dict)

    def check(self, row: Composed) -> Composed:
        """Return the row, as a faulty one where an earlier question has the same words."""
        if row.status != KEPT:
            return row
        first = self.seen.setdefault(normalise(row.question), row.question_id)
        if first == row.question_id:
            return row
        repeats = {"status": FAULTY, "reason": f"it repeats the question {first}", "decomposition": []}
        return row.model_copy(update=repeats)


def compose(context: StageContext) -> None:
    """Write a question for every chain, or why there is none."""
    config, llm = context.config(ComposeConfig), context.model
    drafts, distinct = Drafts(context.inputs, context.scratch), _Distinct()
    if llm is None:
        context.meter.expect(len(drafts))
        context.meter.tell(_BY_TEMPLATES)
        for draft in drafts:
            row = distinct.check(by_template(draft, model.Composition))
            context.writer(COMPOSED).append(row.model_copy(update={"notes": [TEMPLATE]}))
            context.accept(row.source)
        return
    prompts = {name: model.Prompt(name, text) for name, text in context.prompts.items()}

    async def by_model(draft: Draft) -> list[Composed]:
        sample = context.sample(draft.question.question_id)
        return [await model.compose(llm, prompts, draft, config, sample)]

    ask_for_each(context, by_model, lambda: drafts, len(drafts), distinct.check)


STAGE = Stage(
    name="compose",
    doc="write a question for every chain",
    reads=(CHAINS, PARAGRAPHS),
    writes=(COMPOSED,),
    config=ComposeConfig,
    run=compose,
    version=2,
    only_with=CHAINS,
)
