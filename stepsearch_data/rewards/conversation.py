"""Reading a conversation whose policy calls a tool, so writes no tags but those of its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from stepsearch_data.rewards.rollout import Rollout, Texts, parse, transcript

Message = Mapping[str, Any]
_HEADER = re.compile(r"^\[(\d{1,5})\] (.*)$", re.MULTILINE)


def read_conversation(messages: Sequence[Message]) -> Rollout:
    """Read messages as OpenAI, TRL and verl write them; those before the first of the assistant are the prompt.

    A call's query is the first text among its arguments. What it returned is cut where documents begin, at `[1] Title`,
    `[2] Title`, …, each on a line of its own, as the template `tools` writes them; else it is one document. The answer
    stands in the last message, which calls nothing, between `<answer>` and `</answer>`.
    """
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
            at = _answered(calls, ids, message.get("tool_call_id"))
            last = message
            if at is not None:
                calls[at] = (calls[at][0], list(_documents(_text(message))))
    ended = last.get("role") == "assistant" and not last.get("tool_calls")
    answer = parse(_text(last)).answer if ended else None
    return transcript([(query, documents) for query, documents in calls if query], answer.text if answer else None)


def _answered(calls: Sequence[tuple[str, Any]], ids: Sequence[Any], wanted: Any) -> int | None:
    """Return which call a result belongs to: the one of its id, else the first that has none."""
    open_calls = [at for at, (_, documents) in enumerate(calls) if documents is None]
    return next((at for at in open_calls if wanted is None or ids[at] in {None, wanted}), None)


def _query(call: Mapping[str, Any]) -> str:
    """Return the query of a call, empty where it has none."""
    arguments = (call.get("function") or call).get("arguments")
    with suppress(ValueError):
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    values = list(arguments.values()) if isinstance(arguments, Mapping) else []
    texts = [value[0] if isinstance(value, list) and value else value for value in values]
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
        yield header[2].strip(), text[header.end() : end]
