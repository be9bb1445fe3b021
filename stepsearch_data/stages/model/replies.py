"""The shapes of replies. Their JSON schemas are sent with the requests, so they hold nothing but shape."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


def _one_line(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return " ".join(text.split())


def _shape_only(schema: dict[str, Any]) -> None:
    """Close objects, as strict servers want it, and drop wording, so that it does not change a request's cache key."""
    schema["additionalProperties"] = False
    for part in (schema, *schema.get("properties", {}).values()):
        part.pop("title", None)
        part.pop("description", None)


Line = Annotated[str, AfterValidator(_one_line)]


class _Reply(BaseModel):
    # Servers without structured output may add fields, and often write a year as a number.
    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True, json_schema_extra=_shape_only)


class Step(_Reply):
    """A step of a decomposition; `paragraph` counts from 1, as the prompt shows them."""

    question: Line
    answer: Line
    depends_on: list[int]
    paragraph: int


class Decomposition(_Reply):
    """A reply to the prompt `decompose`."""

    steps: list[Step]


class QueryList(_Reply):
    """A reply to the prompt `queries`."""

    queries: list[Line]


class Judgement(_Reply):
    """A reply to the prompt `judge`; the reason comes first, so that the score follows from it."""

    reason: Line
    score: int


class Hop(_Reply):
    """A hop of a composed question; `paragraph` and `sentence` count from 1, as the prompt shows them."""

    question: Line
    answer: Line
    aliases: list[Line]
    paragraph: int
    sentence: int
    relation: Line
    one_valued: bool


class Composition(_Reply):
    """A reply to the prompts `compose` and `compare`: a question, or the reason why there is none."""

    skip: Line
    hops: list[Hop]
    question: Line
    answer: Line
    answer_type: Line


class Recollection(_Reply):
    """A reply to the prompt `recall`."""

    answer: Line
    sure: bool


class Quote(_Reply):
    """Words of a passage; `passage` counts from 1, as the prompt shows them."""

    passage: int
    text: Line


class Reading(_Reply):
    """A reply to the prompt `read`; the quotes come first, so that the answer follows from them."""

    quotes: list[Quote]
    answer: Line


class Readings(_Reply):
    """A reply to the prompt `unique`: every answer that the passages support."""

    answers: list[Reading]


class Sameness(_Reply):
    """A reply to the prompt `same`."""

    same: bool


@cache
def schema_of(reply: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a reply. It is cached, as making it takes most of the local time of a call."""
    return reply.model_json_schema()
