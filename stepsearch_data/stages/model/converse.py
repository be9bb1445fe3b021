"""A conversation that goes on until the reply passes its check, or repairs run out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.llm.chat import ChatModel, Message, Reply, Request
from stepsearch_data.stages.model.structured import Unreadable, without_thoughts

T = TypeVar("T")

_QUOTED = 8_000  # characters of a failed reply that are shown to the model again
_SHOWN = 10  # complaints in one turn
_COMPLAINT = 300  # characters of each: it may hold what the model wrote
_THOUGHTS = "the model thought and did not answer within {:,} tokens; raise max_tokens, or lower reasoning_effort"
_REFUSALS = {
    "content_filter": "the provider's content filter blocked the reply",
    "refusal": "the model refused to answer",
}


class Invalid(Exception):
    """A check's verdict on a reply: what is wrong with it, in words fit to show to the model."""

    def __init__(self, complaints: Sequence[str]) -> None:
        self.complaints = [_shortened(complaint) for complaint in complaints[:_SHOWN]]
        super().__init__("; ".join(self.complaints))


@dataclass(frozen=True)
class ModelSettings:
    """What is asked of a model beside the prompt. `repairs` is how many more turns a failing reply gets."""

    model: str
    temperature: float = 0.0
    max_tokens: int = 1024
    sample: int = 0
    repairs: int = 2
    reasoning_effort: str = ""
    extra_body: dict[str, Any] | None = None

    def request(self, messages: tuple[Message, ...], schema: dict[str, Any]) -> Request:
        """Make the first request of a conversation."""
        return Request(
            self.model,
            messages,
            schema,
            self.temperature,
            self.max_tokens,
            self.sample,
            self.reasoning_effort,
            self.extra_body,
        )


async def converse(model: ChatModel, request: Request, check: Callable[[str], T], repairs: int) -> T:
    """Return the check's result for the first reply that passes it. The check raises Invalid or Unreadable.

    A failing reply is shown to the model with the complaints, at most `repairs` times. Raises RowRejected
    with the last reply after that, or immediately when the provider refuses to answer.
    """
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
            return _checked(reply, check)
        except Unreadable as unreadable:
            wrong = Invalid([unreadable.reason])
        except Invalid as invalid:
            wrong = invalid
        request = _ask_again(request, reply, wrong)
    raise RowRejected(str(wrong), raw=reply.text, attempts=attempt)


def _checked(reply: Reply, check: Callable[[str], T]) -> T:
    if reply.finish_reason == "length":
        raise Invalid(["the reply was cut off; answer more briefly"])
    return check(reply.text)


def _ask_again(request: Request, reply: Reply, wrong: Invalid) -> Request:
    # Chat templates want turns to alternate, and some servers refuse an empty one.
    said = Message("assistant", without_thoughts(reply.text)[:_QUOTED] or "(no answer)")
    listed = "\n".join(f"- {complaint}" for complaint in wrong.complaints)
    wanted = (
        f"Your reply cannot be used:\n{listed}\n\n"
        "Reply again with the complete, corrected JSON object and nothing else."
    )
    return replace(request, messages=(*request.messages, said, Message("user", wanted)))


def _shortened(complaint: str) -> str:
    return complaint if len(complaint) <= _COMPLAINT else f"{complaint[:_COMPLAINT]}…"
