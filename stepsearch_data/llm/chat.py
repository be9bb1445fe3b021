"""The interface to language models: a request, a reply, and who answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import orjson

_YOUNGER = {"reasoning_effort", "extra_body"}  # newer than many paid replies, whose requests keep their names


Call = dict[str, Any]
"""A call of a function: `{"id", "type": "function", "function": {"name", "arguments"}}`, the arguments as JSON text."""


@dataclass(frozen=True)
class Message:
    """A turn of a conversation: role (system, user or assistant) and text."""

    role: str
    content: str

    def as_sent(self) -> dict[str, Any]:
        """Return it as OpenAI's API has it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class CallMessage(Message):
    """A turn of a conversation with tools: the calls of the assistant, or the result of the call of that id.

    A class of its own, as `digest` names a request by all fields of its messages.
    """

    tool_calls: Sequence[Call] = ()
    tool_call_id: str = ""

    def as_sent(self) -> dict[str, Any]:
        """See `Message.as_sent`."""
        more = {"tool_calls": list(self.tool_calls), "tool_call_id": self.tool_call_id}
        return super().as_sent() | {name: value for name, value in more.items() if value}


@dataclass(frozen=True)
class Request:
    """Everything that decides a reply. `schema` is the JSON schema that the reply must fit.

    `sample` tells repeated draws of the same conversation apart; it is sent as the seed. `extra_body` holds what else
    is sent, as the server names it.
    """

    model: str
    messages: tuple[Message, ...]
    schema: dict[str, Any] | None = None
    temperature: float = 0.0
    max_tokens: int = 1024
    sample: int = 0
    reasoning_effort: str = ""
    extra_body: dict[str, Any] | None = None

    def digest(self, endpoint: str) -> str:
        """Return the name of the request at an endpoint: SHA-256, 64 hexadecimal digits."""
        decides = {}
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if value or field_.name not in _YOUNGER:
                decides[field_.name] = orjson.Fragment(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        return hashlib.sha256(orjson.dumps([endpoint, decides])).hexdigest()


@dataclass(frozen=True)
class TurnRequest(Request):
    """A request for one turn of an episode: the reply ends before any of the texts in `stop`.

    `raw` has the server continue the only message's text, without a chat template (`/completions`).
    A class of its own, as `digest` names a request by all of its fields.
    """

    stop: tuple[str, ...] = ()
    raw: bool = False


@dataclass(frozen=True)
class ToolRequest(Request):
    """A request whose reply may call these functions, each as its definition."""

    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens that a call was billed for."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total(self) -> int:
        """Return the tokens of prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


@dataclass(frozen=True)
class Reply:
    """What came back. `cached` replies cost nothing; `latency` is in seconds, `attempts` counts what was sent.

    `reasoning` is what a model thought, where its server tells that apart from `text`. `calls` are of a `ToolRequest`.
    """

    text: str
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)
    latency: float = 0.0
    attempts: int = 1
    cached: bool = False
    reasoning: str = ""
    calls: Sequence[Call] = ()


class ChatModel(Protocol):
    """Answers requests, many at a time.

    Raises RowRejected for a request that this provider will never answer, and ProviderError or
    BudgetError when the build has to stop.
    """

    async def complete(self, request: Request) -> Reply:
        """Return the reply to one request."""
