"""Reading a conversation: its policy calls a tool, so writes no tags but those of its answer, or writes all in tags."""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Any

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.core.text import NOTHING_FOUND, joined_lines
from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT, TAG, Places, Rollout, Span, Texts, parse, transcript

Message = Mapping[str, Any]
NO_QUERY = "There is no query. Search for a few words."
OVER = "The question has been answered. Nothing more can be searched."
TOO_MANY = "This call was not run: a turn has {} at most. Call again in your next turn."
NO_TOOL = 'There is no tool "{}". Call {}.'
# What is said of a call that no engine has seen: by the environments here, TRL and verl.
_REFUSED = re.compile(
    "|".join(
        [
            *(rf"{re.escape(said)}\s*\Z" for said in (NO_SEARCH_LEFT, NO_QUERY, OVER)),
            rf"{re.escape(TOO_MANY)}\s*\Z".replace(r"\{\}", r"\d+"),
            rf"{re.escape(NO_TOOL)}\s*\Z".replace(r"\{\}", ".{0,200}"),
            r"\{'error': .\w*\.?(?:open|find)\(\) (?:missing|got an unexpected|takes) ",
            r"\{'error': .(?:Tool .{1,200} not found\.|Unsupported tool call type: )",
            "Unknown function '",
            "Invalid JSON in arguments for '",
        ]
    )
)
_FAILED = re.compile(r"\{'error': |Error executing tool '")
_READING = {"open": {"id", "page"}, "find": {"id", "words"}}
"""Functions that read what a search has shown, and their arguments. Another program's search may have such a name."""
_TITLE = 400  # characters of a title, as those of `Doc 1<## Title: … ##>` are bounded
_HEADER = re.compile(r"^\[(\d{1,5})\] (.*)$", re.MULTILINE)
_ID = re.compile(r" \(id d\d{1,5}(?:, page 1 of \d{1,5})?\)\Z")  # beside a title, where documents can be opened


def read_conversation(
    messages: Sequence[Message],
    *,
    lazy: bool = False,
    keep_next_label: bool = False,
    observations: Places | None = None,
) -> Rollout:
    """Read messages as OpenAI, TRL and verl write them; those before the first of the assistant are the prompt.

    A call's query is the first text among its arguments. What it returned is cut where documents begin, at `[1] Title`,
    `[2] Title`, …, each on a line of its own, as the template `tools` writes them; else it is one document. A call that
    was refused is no search, nor is one of `open` and `find`, and one that failed has no result. The answer stands in
    the last message, which calls nothing, between `<answer>` and `</answer>`.

    Where no tool is called and a result stands in tags, the messages are one text, which is parsed as `parse` does.
    What others than the assistant say in between, the environment wrote. But `observations` (empty, as no text of the
    assistant is the environment's) say that the policy searches by calls alone: what it writes in tags is then no
    search, and no result. Raises RowRejected for calls of another shape.
    """
    text, others = _joined(messages)
    if observations is None and "<information>" in text and not _calls(messages):
        return parse(text, lazy=lazy, keep_next_label=keep_next_label, observations=others)
    said, answer = _read(messages)
    calls = (call for message in said for call in message.calls)
    return transcript([(call.query, call.documents) for call in calls if call.query], answer.text if answer else None)


def in_tags(messages: Sequence[Message], observations: Places | None = None) -> tuple[str, Places | None]:
    """Write a conversation as one text with tags, and tell which parts of it the policy did not write, if any.

    Where no tool is called, it is what the messages say, without `observations`. Else `parse` reads of it what
    `read_conversation` reads of the messages: a round is a search with what it showed. What a message says is a
    thought, an empty one where it only calls. Calls that are no search stand as text, with what they returned. Raises
    RowRejected as `read_conversation` does.
    """
    if observations is None and not _calls(messages):
        return _joined(messages)
    parts: list[tuple[str, bool]] = []  # texts, and whether the environment wrote them
    said, answer = _read(messages)
    for at, message in enumerate(said):
        own = message.text
        if answer and at == len(said) - 1:
            own = own[: answer.start].rpartition("<answer>")[0] + own[answer.end :].partition("</answer>")[2]
        parts.append((f"<think> {_inert(own).strip()} </think>\n", False))
        for call in message.calls:
            parts += [(f"{text}\n", theirs) for text, theirs in _tagged(call)]
    if answer:
        parts.append((f"<answer> {answer.text} </answer>", False))
    ends = list(accumulate(len(part) for part, _ in parts))
    places = [(end - len(part), end) for end, (part, theirs) in zip(ends, parts, strict=True) if theirs]
    return "".join(part for part, _ in parts), places


@dataclass
class _Call:
    """A call: its query, if it is a search that was run, as it was written, and what it returned, if anything."""

    at: int
    query: str
    written: str
    result: str | None = None
    documents: Texts | None = None


@dataclass
class _Said:
    """A message of the assistant with its calls."""

    text: str
    calls: list[_Call]


class _Waiting:
    """Calls that have no result yet, in order."""

    def __init__(self) -> None:
        self._all: deque[_Call] = deque()
        self._by_id: defaultdict[Any, deque[_Call]] = defaultdict(deque)

    def add(self, call: _Call, identity: Any) -> None:
        self._all.append(call)
        self._by_id[identity].append(call)

    def answered(self, wanted: Any) -> _Call | None:
        """Return the first call that a result may belong to: of its id or of none, where it has one."""
        queues = [self._all] if wanted is None else [self._by_id[wanted], self._by_id[None]]
        for queue in queues:
            while queue and queue[0].result is not None:
                queue.popleft()
        return min((queue[0] for queue in queues if queue), key=lambda call: call.at, default=None)


def _read(messages: Sequence[Message]) -> tuple[list[_Said], Span | None]:
    """Return what the assistant said and called, and the answer that the last message gives. Raises RowRejected."""
    said: list[_Said] = []
    last: Message = {}
    numbers, waiting = count(), _Waiting()
    for message in messages:
        role = message.get("role")
        if role == "assistant":
            last = message
            said.append(_Said(_text(message), []))
            for call in _calls_of(message):
                said[-1].calls.append(_Call(next(numbers), _query(call), _written(call)))
                waiting.add(said[-1].calls[-1], _identity(call, "id"))
        elif role in ("tool", "function"):
            last = message
            if found := waiting.answered(_identity(message, "tool_call_id")):
                found.result = _text(message)
                stripped = found.result.strip()
                found.query = "" if _REFUSED.match(stripped) else found.query
                found.documents = None if _FAILED.match(stripped) else list(documents_in(found.result))
    ended = last.get("role") == "assistant" and not last.get("tool_calls")
    return said, parse(_text(last)).answer if ended else None


def _calls(messages: Sequence[Message]) -> bool:
    return any(message.get("tool_calls") for message in messages)


def _calls_of(message: Message) -> Sequence[Mapping[str, Any]]:
    """Return the calls of a message. Raises RowRejected where they are none."""
    calls = message.get("tool_calls") or ()
    if not (isinstance(calls, list | tuple) and all(isinstance(call, Mapping) for call in calls)):
        raise RowRejected("tool_calls: expected a list of objects")
    return calls


def _function(call: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the name of the function that is called, and its arguments. Raises RowRejected."""
    function = call.get("function") or call
    name = function.get("name") if isinstance(function, Mapping) else function
    if not (isinstance(function, Mapping) and isinstance(name, str | None)):
        raise RowRejected("tool_calls: expected a function with the text name")
    return str(name), function.get("arguments")


def _identity(found: Mapping[str, Any], name: str) -> str | int | None:
    identity = found.get(name)
    if not isinstance(identity, str | int | None):
        raise RowRejected(f"{name}: expected a text")
    return identity


def _tagged(call: _Call) -> Iterator[tuple[str, bool]]:
    """Yield a call as text, and what it returned, if anything; each with whether the environment wrote it."""
    if not call.query:
        yield _inert(call.written), False
        if call.result is not None:
            yield _inert(call.result), True
        return
    yield f"<search> {_inert(call.query)} </search>", False
    if call.documents is not None:
        shown = "".join(
            f"Doc {number}<## Title: {joined_lines(title).replace('##>', '')[:_TITLE]} ##> {body}\n"
            for number, (title, body) in enumerate(call.documents, start=1)
        )
        yield f"<information> {shown} </information>", True


def _inert(text: str) -> str:
    """Return a text without the angle brackets of tags."""
    while (clean := TAG.sub(r"\1\2", text)) != text:
        text = clean
    return text


def _written(call: Mapping[str, Any]) -> str:
    """Return a call as text. Raises RowRejected."""
    name, arguments = _function(call)
    try:
        return f"{name}({arguments if isinstance(arguments, str) else json.dumps(arguments)})"
    except (TypeError, ValueError, RecursionError):
        raise RowRejected("tool_calls: the arguments are no JSON, or too deep") from None


def _joined(messages: Sequence[Message]) -> tuple[str, Places | None]:
    """Return what follows the prompt as one text, and which parts of it the assistant did not write, if any."""
    text, observations = "", []
    for message in messages:
        said = _text(message)
        if message.get("role") == "assistant":
            text += said
        elif text:
            observations.append((len(text), len(text) + len(said)))
            text += said
    return text, observations or None


def _query(call: Mapping[str, Any]) -> str:
    """Return the query of a call, empty where it has none, or reads what a search has shown. Raises RowRejected."""
    name, arguments = _function(call)
    with suppress(ValueError, RecursionError):
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(arguments, Mapping) or arguments.keys() <= _READING.get(name, set()):
        return ""
    texts = [value[0] if isinstance(value, list) and value else value for value in arguments.values()]
    query = next((text.strip() for text in texts if isinstance(text, str)), "")
    return query.encode(errors="replace").decode()  # JSON may escape half a character


def _text(message: Message) -> str:
    """Return what a message says, also where it is given in parts."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def documents_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield titles and texts of documents. A line that looks like a header but has another number is text."""
    headers: list[re.Match[str]] = []
    for header in _HEADER.finditer(text):
        if int(header[1]) == len(headers) + 1:
            headers.append(header)
    if not headers and text.strip() not in {"", NOTHING_FOUND}:
        yield "", text
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=False):
        yield _ID.sub("", header[2].strip()), text[header.end() : end]
