"""Reading a conversation: its policy calls a tool, so writes no tags but those of its answer, or writes all in tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT, Places, Rollout, Texts, parse, transcript

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
_DONE = object()  # in place of the id of a call that has its result
_HEADER = re.compile(r"^\[(\d{1,5})\] (.*)$", re.MULTILINE)
_ID = re.compile(r" \(id d\d{1,5}(?:, page 1 of \d{1,5})?\)\Z")  # beside a title, where documents can be opened


def read_conversation(messages: Sequence[Message], *, lazy: bool = False, keep_next_label: bool = False) -> Rollout:
    """Read messages as OpenAI, TRL and verl write them; those before the first of the assistant are the prompt.

    A call's query is the first text among its arguments. What it returned is cut where documents begin, at `[1] Title`,
    `[2] Title`, …, each on a line of its own, as the template `tools` writes them; else it is one document. A call that
    was refused is no search, nor is one of `open` and `find`, and one that failed has no result. The answer stands in
    the last message, which calls nothing, between `<answer>` and `</answer>`.

    Where no tool is called and a result stands in tags, the messages are one text, which is parsed as `parse` does.
    What others than the assistant say in between, the environment wrote.
    """
    joined = in_tags(messages)
    if joined and "<information>" in joined[0]:
        return parse(joined[0], lazy=lazy, keep_next_label=keep_next_label, observations=joined[1])
    calls: list[tuple[str, Texts | None]] = []
    ids: list[Any] = []
    last: Message = {}
    for message in messages:
        if message.get("role") == "assistant":
            last = message
            for call in message.get("tool_calls") or ():
                calls.append((_query(call), None))
                ids.append(call.get("id"))
        elif message.get("role") in {"tool", "function"}:
            at = _answered(ids, message.get("tool_call_id"))
            last = message
            if at is not None:
                said = _text(message).strip()
                ids[at] = _DONE
                query = "" if _REFUSED.match(said) else calls[at][0]
                calls[at] = (query, None if _FAILED.match(said) else list(_documents(_text(message))))
    ended = last.get("role") == "assistant" and not last.get("tool_calls")
    answer = parse(_text(last)).answer if ended else None
    return transcript([(query, documents) for query, documents in calls if query], answer.text if answer else None)


def in_tags(messages: Sequence[Message]) -> tuple[str, Places | None] | None:
    """Return what follows the prompt as one text, and which parts the assistant did not write, if any.

    None where a tool is called: what was searched for is then not in a text.
    """
    if any(message.get("tool_calls") for message in messages):
        return None
    text, observations = "", []
    for message in messages:
        said = _text(message)
        if message.get("role") == "assistant":
            text += said
        elif text:
            observations.append((len(text), len(text) + len(said)))
            text += said
    return text, observations or None


def _answered(ids: Sequence[Any], wanted: Any) -> int | None:
    """Return which call a result belongs to: the one of its id, else the first that has none."""
    waiting = [at for at, identity in enumerate(ids) if identity is not _DONE]
    return next((at for at in waiting if wanted is None or ids[at] in {None, wanted}), None)


def _query(call: Mapping[str, Any]) -> str:
    """Return the query of a call, empty where it has none, or reads what a search has shown."""
    function = call.get("function") or call
    arguments = function.get("arguments")
    with suppress(ValueError):
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(arguments, Mapping) or arguments.keys() <= _READING.get(str(function.get("name")), set()):
        return ""
    texts = [value[0] if isinstance(value, list) and value else value for value in arguments.values()]
    return next((text.strip() for text in texts if isinstance(text, str)), "")


def _text(message: Message) -> str:
    """Return what a message says, also where it is given in parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _documents(text: str) -> Iterator[tuple[str, str]]:
    """Yield titles and texts of documents. A line that looks like a header but has another number is text."""
    headers: list[re.Match[str]] = []
    for header in _HEADER.finditer(text):
        if int(header[1]) == len(headers) + 1:
            headers.append(header)
    if not headers and text.strip():
        yield "", text
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=False):
        yield _ID.sub("", header[2].strip()), text[header.end() : end]
