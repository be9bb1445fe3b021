"""How an episode is written: with tags in one text, with tags in messages of a chat, or with calls of a tool.

What the policy has sampled is never written anew: a form reads the text of a turn, and makes the tokens that follow it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.rewards.conversation import NO_QUERY, NO_TOOL
from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT
from stepsearch_data.templates.template import Message, Template, Turn
from stepsearch_data.trainer.stops import STOPS, Encode

_QUERY = re.compile(r"<search>((?:(?!<search>).)*)</search>\s*\Z", re.DOTALL)
_TRY_AGAIN = (
    "\n<warning> This is neither a search nor an answer. Write <search> a query </search> or "
    "<answer> the answer </answer>. </warning>\n"
)


class Said(NamedTuple):
    """What the policy said in a turn: a query, an answer, or neither, and then what it is told."""

    query: str | None = None
    answers: bool = False
    warning: str = ""
    called: bool = False
    """Whether the warning answers a call of a tool."""


class Form(Protocol):
    """The form of an episode."""

    stops: tuple[str, ...]
    """Texts that a turn ends with."""
    by_messages: bool
    """Whether a token that ends a text ends a message only, so that the episode goes on."""
    by_calls: bool
    """Whether searches are calls, and rewards read these instead of tags."""

    def prompt(self, question: str, text: str) -> list[int]:
        """Return the tokens of a prompt: of a question, or of its text by a template with tags."""

    def read(self, text: str) -> Said:
        """Read a turn, without the tokens that end it."""

    def write(self, turn: Turn) -> tuple[str, list[int]]:
        """Return what a demonstration writes in a turn: its text, and the tokens that end it."""

    def follow(self, text: str, last: int | None, *, called: bool) -> list[int]:
        """Return the tokens of an observation or a warning, after the policy's last token; `called` as in `Said`."""

    def no_search_left(self) -> str:
        """Return what an observation ends with when no search is left."""


class Tags:
    """One text: what the engine found stands between tags, within what the policy writes."""

    stops: tuple[str, ...] = STOPS
    by_messages = by_calls = False

    def __init__(self, encode: Encode, encode_prompt: Encode | None = None) -> None:
        self._encode, self._encode_prompt = encode, encode_prompt or encode

    def prompt(self, question: str, text: str) -> list[int]:  # noqa: ARG002 - see Form
        """See `Form.prompt`."""
        return self._encode_prompt(text)

    def read(self, text: str) -> Said:
        """See `Form.read`."""
        if text.rstrip().endswith("</answer>"):
            return Said(answers=True)
        if (match := _QUERY.search(text)) and match[1].strip():
            return Said(match[1].strip())
        return Said(warning=_TRY_AGAIN)

    def write(self, turn: Turn) -> tuple[str, list[int]]:
        """See `Form.write`."""
        return turn.text, []

    def follow(self, text: str, last: int | None, *, called: bool) -> list[int]:  # noqa: ARG002 - see Form
        """See `Form.follow`."""
        return self._encode(text)

    def no_search_left(self) -> str:
        """See `Form.no_search_left`."""
        return f"<warning> {NO_SEARCH_LEFT} </warning>\n"


class Conversation(Protocol):
    """A tokenizer's chat template: `trainer.chat.ChatFormat`."""

    @property
    def turn_end(self) -> int | None:
        """See `ChatFormat.turn_end`."""

    def prompt(self, messages: Sequence[Any], tools: Sequence[Any] | None = None) -> str:
        """See `ChatFormat.prompt`."""

    def after(self, message: Any) -> str:
        """See `ChatFormat.after`."""

    def call(self, name: str, argument: str) -> str:
        """See `ChatFormat.call`."""


class TagMessages(Tags):
    """Messages of a chat: the policy writes tags as the assistant, and what the engine found comes from the user."""

    by_messages = True

    def __init__(self, encode: Encode, encode_prompt: Encode, chat: Conversation) -> None:
        super().__init__(encode, encode_prompt)
        self._chat = chat

    def follow(self, text: str, last: int | None, *, called: bool) -> list[int]:  # noqa: ARG002 - see Form
        """See `Form.follow`."""
        return after(self._encode, self._chat, {"role": "user", "content": text.strip()}, last)


def after(encode: Encode, chat: Conversation, message: Message, last: int | None) -> list[int]:
    """Return the tokens of a message that follows the policy's, up to where it begins its next.

    They begin with the end of the policy's message, unless that is what it wrote last.
    """
    tokens = encode(chat.after(message))
    return tokens[1:] if tokens and tokens[0] == chat.turn_end == last else tokens


class ToolCalls:
    """Messages of a chat in which the policy calls the tool of a template, as its chat template writes calls.

    A turn holds one call. The answer is in tags. Raises ConfigError where the chat template writes no calls, or in a
    form that is not known: an object of JSON with the name and the arguments, alone or within a tag.
    """

    by_messages = by_calls = True

    def __init__(self, template: Template, encode: Encode, chat: Conversation) -> None:
        assert template.tool is not None
        self._template, self._encode, self._chat = template, encode, chat
        self._name: str = template.tool["name"]
        self._argument, self._many = template.argument
        before, self._key, closing = _form_of_calls(chat.call(self._name, self._argument), self._name)
        self._opening, self._closing = before, closing
        tools, question = [{"type": "function", "function": template.tool}], template.prompt("?")
        if (not closing and chat.turn_end is None) or chat.prompt(question, tools) == chat.prompt(question):
            raise _no_calls()
        self._tools = tools
        self.stops = ("</answer>", *([closing] if closing else []))

    def prompt(self, question: str, text: str) -> list[int]:  # noqa: ARG002 - see Form
        """See `Form.prompt`."""
        return self._encode(self._chat.prompt(self._template.prompt(question), self._tools))

    def read(self, text: str) -> Said:
        """See `Form.read`."""
        said = text.rstrip()
        if said.endswith("</answer>"):
            return Said(answers=True)
        _, call = self._split(said)
        if call is None:
            warning = f"This is neither a call of {self._name} nor an answer. Call {self._name}, or write "
            return Said(warning=f"{warning}<answer> the answer </answer>.")
        try:
            found = json.loads(call)
            name, given = found["name"], found[self._key]
            given = json.loads(given) if isinstance(given, str) else given
            query = given[self._argument]
            query = query[0] if isinstance(query, list) and query else query
        except (ValueError, TypeError, KeyError, RecursionError):
            example = json.dumps({"name": self._name, self._key: {self._argument: "a query"}})
            return Said(warning=f"This call cannot be read. Write it as {example}.", called=True)
        if name != self._name:
            return Said(warning=NO_TOOL.format(str(name)[:50], self._name), called=True)
        if not isinstance(query, str) or not query.strip():
            return Said(warning=NO_QUERY, called=True)
        return Said(query.strip())

    def write(self, turn: Turn) -> tuple[str, list[int]]:
        """See `Form.write`."""
        if turn.query is None:
            return turn.text, []
        query = [turn.query] if self._many else turn.query
        call = json.dumps({"name": self._name, self._key: {self._argument: query}}, ensure_ascii=False)
        if self._closing:
            return f"{turn.text}\n{self._opening}\n{call}\n{self._closing}", []
        end = self._chat.turn_end
        return call, [] if end is None else [end]  # such a template leaves out what is said beside a call

    def follow(self, text: str, last: int | None, *, called: bool) -> list[int]:
        """See `Form.follow`."""
        message = {"role": "tool" if called else "user", "content": text.strip()}
        return after(self._encode, self._chat, message, last)

    def no_search_left(self) -> str:
        """See `Form.no_search_left`."""
        return f"\n{NO_SEARCH_LEFT}\n"

    def message(self, text: str) -> Message:
        """Return a turn as a message: with its call where it searches, else as it was written."""
        query = self.read(text).query
        if query is None:
            return {"role": "assistant", "content": text}
        beside, _ = self._split(text.rstrip())
        arguments = json.dumps({self._argument: [query] if self._many else query}, ensure_ascii=False)
        call = {"type": "function", "function": {"name": self._name, "arguments": arguments}}
        return {"role": "assistant", "content": beside.strip(), "tool_calls": [call]}

    def _split(self, said: str) -> tuple[str, str | None]:
        """Return what is said beside a call, and its JSON, None without one; a call that is cut off cannot be read."""
        if self._closing:
            beside, opened, call = said.rpartition(self._opening)
            return (beside, call.removesuffix(self._closing)) if opened else (said, None)
        at = said.find('{"name"')
        at = 0 if at < 0 and said.startswith("{") else at
        return (said[:at], said[at:]) if at >= 0 else (said, None)


def _form_of_calls(written: str, name: str) -> tuple[str, str, str]:
    """Return what opens a call, the key of its arguments, and what closes it; from a call as a template writes it."""
    found = re.search(rf'\{{"name": "{re.escape(name)}", "(\w+)": ', written)
    if not found:
        raise _no_calls()
    try:
        _, end = json.JSONDecoder().raw_decode(written, found.start())
    except ValueError:
        raise _no_calls() from None
    closing = re.match(r"\s*</(\w+)>", written[end:])
    if not closing:
        return "", found[1], ""
    return f"<{closing[1]}>", found[1], f"</{closing[1]}>"


def _no_calls() -> ConfigError:
    return ConfigError("the model's chat template does not write calls of tools in a known form", "template musique")
