"""A model's opinion of a decomposition: how coherent its steps are."""

from __future__ import annotations

from collections.abc import Sequence

from stepsearch_data.llm.chat import ChatModel
from stepsearch_data.schemas.rows import Question, SubQuestion
from stepsearch_data.stages.model.ask import ask
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.prompts import Prompt
from stepsearch_data.stages.model.replies import Judgement
from stepsearch_data.stages.model.structured import Invalid, parse_json

_LOWEST, _HIGHEST = 1, 5


async def judge(
    model: ChatModel,
    prompt: Prompt,
    question: Question,
    hops: Sequence[SubQuestion],
    config: ModelConfig,
    sample: int = 0,
) -> tuple[int, str]:
    """Ask for the coherence of a decomposition, from 1 (none) to 5, and the reason. Raises RowRejected."""
    steps = [f"{hop.hop}. {hop.template} → {hop.sub_answer}" for hop in hops]
    messages = prompt.render(question=question.question, answer=question.answer, steps="\n".join(steps))
    reply = await ask(model, config.request(messages, Judgement, sample), _check, config.repairs)
    return reply.score, reply.reason


def _check(text: str) -> Judgement:
    reply = parse_json(text, Judgement)
    wrong = []
    if not _LOWEST <= reply.score <= _HIGHEST:
        wrong.append(f"the score must be {_LOWEST} to {_HIGHEST}, not {reply.score}")
    if not reply.reason:
        wrong.append("the reason is empty")
    if wrong:
        raise Invalid(wrong)
    return reply
