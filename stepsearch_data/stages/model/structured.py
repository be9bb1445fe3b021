"""Parsing JSON from a reply, whatever text the model put around it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from stepsearch_data.core.validation import in_words

M = TypeVar("M", bound=BaseModel)

_LONGEST = 1_000_000  # characters; with the number of tries it bounds the work on a hostile reply
_TRIES = 32
_ERRORS = 5
SHOWN = 10  # complaints in one turn
COMPLAINT = 300  # characters of each: it may hold what the model wrote
_OPENING = re.compile(r'\{\s*["}]')  # where a JSON object may begin; prose and LaTeX braces mostly do not match
_DECODER = json.JSONDecoder()


class Invalid(Exception):
    """What is wrong with a reply, in words fit to show to the model."""

    def __init__(self, complaints: Sequence[str]) -> None:
        self.complaints = [
            complaint if len(complaint) <= COMPLAINT else f"{complaint[:COMPLAINT]}…"
            for complaint in complaints[:SHOWN]
        ]
        super().__init__("; ".join(self.complaints))


def parse_json(text: str, model: type[M]) -> M:
    """Return the first object of the reply that fits the model. Raises Invalid.

    Tried in this order: the whole reply, fenced blocks, objects embedded in anything else.
    """
    text = without_thoughts(text)
    if not text:
        raise Invalid(["the reply is empty"])
    if len(text) > _LONGEST:
        raise Invalid([f"the reply is far too long ({len(text)} characters)"])
    reason = ""
    for candidate in islice(_candidates(text), _TRIES):
        try:
            return model.model_validate_json(candidate)
        except ValidationError as error:
            reason = reason or in_words(error, most=_ERRORS)
    raise Invalid([reason or "the reply holds no JSON object"])


def without_thoughts(text: str) -> str:
    """Return the reply after a reasoning model's `<think>…</think>`, or "" when the thoughts never end."""
    text = text.encode("utf-8", "replace").decode().strip()  # lone surrogates cannot be sent or stored
    if text.startswith("{"):
        return text
    _thoughts, end, answer = text.rpartition("</think>")
    if not end and text.startswith("<think>"):
        return ""
    return answer.strip()


def _candidates(text: str) -> Iterator[str]:
    if not text.startswith("{"):
        for block in text.split("```")[1::2]:
            yield from _objects(block)
    yield from _objects(text)


def _objects(text: str) -> Iterator[str]:
    """Yield every outermost object of the text, and a broken one up to the text's end, for the parser's error."""
    at = 0
    while opening := _OPENING.search(text, at):
        start = opening.start()
        try:
            _, at = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
            yield text[start:]
        else:
            yield text[start:at]
