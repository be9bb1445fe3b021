"""A model's opinion of a decomposition: how coherent its steps are."""

from __future__ import annotations

from collections.abc import Sequence

from stepsearch_data.llm.chat import ChatModel, Request
from stepsearch_data.schemas.rows import Question, SubQuestion
from stepsearch_data.stages.model.converse import Invalid, ModelSettings, converse
from stepsearch_data.stages.model.prompts import Prompt
from stepsearch_data.stages.model.replies import Judgement, schema_of
from stepsearch_data.stages.model.structured import parse_json

_LOWEST, _HIGHEST = 1, 5


async def judge(
    model: ChatModel, prompt: Prompt, question: Question, hops: Sequence[SubQuestion], settings: ModelSettings
) -> tuple[int, str]:
    """Ask for the coherence of a decomposition, from 1 (none) to 5, and the reason. Raises RowRejected."""
    reply = await converse(model, judge_request(prompt, question, hops, settings), _check, settings.repairs)
    return reply.score, reply.reason


def judge_request(prompt: Prompt, question: Question, hops: Sequence[SubQuestion], settings: ModelSettings) -> Request:
    """Make the first request for a decomposition."""
    steps = [f"{hop.hop}. {hop.template} → {hop.sub_answer}" for hop in hops]
    messages = prompt.render(question=question.question, answer=question.answer, steps="\n".join(steps))
    return settings.request(messages, schema_of(Judgement))


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
