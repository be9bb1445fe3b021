"""Asking a model until its reply passes a check, or repairs run out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.llm.chat import ChatModel, Message, Reply, Request
from stepsearch_data.stages.model.structured import COMPLAINT, SHOWN, Invalid, without_thoughts

T = TypeVar("T")

QUOTED = 8_000  # characters of a failed reply that are shown to the model again
_WANTED = """Your reply cannot be used:
{}

Reply again with the complete, corrected JSON object and nothing else."""
COMPLAINTS = len(_WANTED) + SHOWN * (COMPLAINT + len("- …\n"))  # characters of what is said of it, at most
_THOUGHTS = "the model thought and did not answer within {:,} tokens; raise max_tokens, or lower reasoning_effort"
_REFUSALS = {
    "content_filter": "the provider's content filter blocked the reply",
    "refusal": "the model refused to answer",
}


async def ask(model: ChatModel, request: Request, check: Callable[[str], T], repairs: int) -> T:
    """Return the check's result for the first reply that passes it. The check raises Invalid.

    A failing reply is shown to the model with the complaints, at most `repairs` times. Raises RowRejected
    with the last reply after that, because of its Invalid, or immediately when the provider refuses to answer.
    """
    return (await converse(model, request, check, repairs))[0]


async def converse(model: ChatModel, request: Request, check: Callable[[str], T], repairs: int) -> tuple[T, int]:
    """Do what `ask` does, and return how many replies were asked for, too."""
    reply = Reply("")
    for attempt in range(1, repairs + 2):
        try:
            reply = await model.complete(request)
        except RowRejected as refused:  # the reject keeps the reply before
            raise RowRejected(str(refused), raw=refused.raw or reply.text, attempts=attempt - 1) from refused
        if reply.reasoning and not reply.text:  # another try would only think again
            raise RowRejected(_THOUGHTS.format(request.max_tokens), raw=reply.reasoning, attempts=attempt)
        if reply.finish_reason in _REFUSALS:
            raise RowRejected(_REFUSALS[reply.finish_reason], raw=reply.text, attempts=attempt)
        try:
            return _checked(reply, check), attempt
        except Invalid as invalid:
            wrong = invalid
        request = _repair(request, reply, wrong)
    raise RowRejected(str(wrong), raw=reply.text, attempts=attempt) from wrong


def _checked(reply: Reply, check: Callable[[str], T]) -> T:
    if reply.finish_reason == "length":
        raise Invalid(["the reply was cut off; answer more briefly"])
    return check(reply.text)


def _repair(request: Request, reply: Reply, wrong: Invalid) -> Request:
    # Chat templates want turns to alternate, and some servers refuse an empty one.
    said = Message("assistant", without_thoughts(reply.text)[:QUOTED] or "(no answer)")
    listed = "\n".join(f"- {complaint}" for complaint in wrong.complaints)
    return replace(request, messages=(*request.messages, said, Message("user", _WANTED.format(listed))))
