"""Composition by a model: one multi-hop question for a chain of passages, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.core.text import joined_lines
from stepsearch_data.llm.chat import ChatModel, Request
from stepsearch_data.schemas.rows import FAULTY, KEPT, SKIPPED, Composed
from stepsearch_data.stages.composing.checks import faults
from stepsearch_data.stages.composing.drafts import Draft
from stepsearch_data.stages.model.ask import converse
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.prompts import Prompt
from stepsearch_data.stages.model.replies import Composition
from stepsearch_data.stages.model.structured import Invalid, parse_json

_REASON = 500  # characters
_BOTH = "there is a question and a reason in skip: leave skip empty, or hops and texts"


class _Faulty(Invalid):
    """A reply that can be read, with a question that cannot be used."""

    def __init__(self, reply: Composition, complaints: Sequence[str]) -> None:
        super().__init__(complaints)
        self.reply = reply


async def compose(
    model: ChatModel, prompts: Mapping[str, Prompt], draft: Draft, config: ModelConfig, sample: int = 0
) -> Composed:
    """Ask for the question of a chain. Raises RowRejected when no reply can be read."""

    def check(text: str) -> Composition:
        reply = parse_json(text, Composition)
        both = reply.skip and reply.hops and reply.question
        wrong = [_BOTH] if both else [] if reply.skip else faults(reply, draft)
        if wrong:
            raise _Faulty(reply, wrong)
        return reply

    try:
        request = compose_request(prompts, draft, config, sample)
        reply, attempts = await converse(model, request, check, config.repairs)
    except RowRejected as rejected:
        if not isinstance(wrong := rejected.__cause__, _Faulty):
            raise
        return draft.row(FAULTY, str(wrong), rejected.attempts, wrong.reply)
    return draft.row(SKIPPED, reply.skip[:_REASON], attempts) if reply.skip else draft.row(KEPT, "", attempts, reply)


def compose_request(prompts: Mapping[str, Prompt], draft: Draft, config: ModelConfig, sample: int = 0) -> Request:
    """Make the first request for a chain."""
    passages = [
        "\n".join(
            [f"[{number}] {joined_lines(passage.title)}", *(f"({n}) {text}" for n, text in enumerate(said, start=1))]
        )
        for number, (passage, said) in enumerate(zip(draft.passages, draft.sentences, strict=True), start=1)
    ]
    links = [
        f"passage {number} names {mention!r}, which passage {number + 1} is about"
        for number, mention in enumerate(draft.chain.mentions, start=1)
    ]
    shared = "kind: {}, attribute: {}".format(*draft.chain.mentions) if draft.compares else "\n".join(links)
    prompt = prompts["compare" if draft.compares else "compose"]
    return config.request(prompt.render(passages="\n\n".join(passages), links=shared), Composition, sample)
