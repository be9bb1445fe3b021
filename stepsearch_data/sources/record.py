"""What the readers of all datasets share: from a row of a file to a checked `Question` and its paragraphs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.core.validation import in_words
from stepsearch_data.schemas.rows import Paragraph, Question, SupportingParagraph
from stepsearch_data.sources.files import Broken

R = TypeVar("R", bound=BaseModel)
Loaded = tuple[Question | None, list[Paragraph]]
"""A question with all its paragraphs, or paragraphs that belong to no question."""

_PLACEHOLDER = re.compile(r"#(\d{1,9})")


@dataclass(frozen=True)
class Record:
    """One row as its source holds it: JSON bytes, or a table's dict; `broken` says why it is neither."""

    position: int
    data: bytes | dict[str, Any]
    broken: str = ""

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Return the row's fields; none where it is not a JSON object."""
        if isinstance(self.data, dict):
            return self.data
        try:
            row = orjson.loads(self.data)
        except orjson.JSONDecodeError:
            return {}
        return row if isinstance(row, dict) else {}


def numbered(rows: Iterable[dict[str, Any] | bytes | Broken]) -> Iterator[Record]:
    """Yield the rows of a file with their positions, from 1, without blank lines."""
    for position, row in enumerate(rows, start=1):
        if isinstance(row, Broken):
            yield Record(position, row.raw, row.reason)
        elif row != b"":
            yield Record(position, row)


class SourceRow(BaseModel):
    """Base of the rows of files: unknown fields are ignored, missing or mistyped ones are errors.

    The Hub's dialects are converted to the official form before validation, by `records` and `tuples`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


def records(value: Any) -> Any:
    """Parse JSON text; turn a record of lists into a list of records."""
    if isinstance(value, str):
        value = orjson.loads(value)
    if isinstance(value, dict) and value and all(isinstance(items, list) for items in value.values()):
        names = list(value)
        return [dict(zip(names, items, strict=True)) for items in zip(*value.values(), strict=True)]
    return value


def tuples(*orders: tuple[str, ...]) -> BeforeValidator:
    """Turn records into tuples, by the first order of field names that fits."""

    def convert(value: Any) -> Any:
        found = records(value)
        if not isinstance(found, list):
            return found
        return [_tuple(record) if isinstance(record, dict) else record for record in found]

    def _tuple(record: dict[str, Any]) -> tuple[Any, ...]:
        order = next((names for names in orders if set(names) <= record.keys()), None)
        if order is None:
            raise ValueError(f"expected the fields {' or '.join(map(str, orders))}, got {sorted(record)}")
        return tuple(record[name] for name in order)

    return BeforeValidator(convert)


def fields_of(record: Record) -> dict[str, Any]:
    """Return the fields of a row that is a JSON object. Raises RowRejected for any other."""
    if isinstance(record.data, dict):
        return record.data
    try:
        value = orjson.loads(record.data)
    except orjson.JSONDecodeError as error:
        raise RowRejected(f"Invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise RowRejected("the row is no JSON object")
    return value


def validate(model: type[R], record: Record) -> R:
    """Read the row as its dataset's model. Raises RowRejected with the first thing that is wrong."""
    if record.broken:
        raise RowRejected(record.broken)
    try:
        if isinstance(record.data, dict):
            return model.model_validate(record.data)
        return model.model_validate_json(record.data)
    except ValidationError as error:
        raise RowRejected(in_words(error, most=1)) from None
    except ValueError as error:  # a dialect that could not be converted to the official form
        raise RowRejected(str(error)) from None


def paragraph(title: str, text: str) -> Paragraph:
    """Return a paragraph under the digest of its title and text."""
    key = f"{title}\n{text}".encode("utf-8", "surrogatepass")
    return Paragraph(passage_id=hashlib.blake2b(key, digest_size=8).hexdigest(), title=title, text=text)


def supporting(
    of: Paragraph, ends: Iterable[int] = (), sentences: Iterable[int] = (), queries: Iterable[str] = ()
) -> SupportingParagraph:
    """Return a gold paragraph: where its sentences end, which are supporting facts, and the queries given for it."""
    return SupportingParagraph(
        **dict(of),
        sentence_ends=list(ends),
        supporting_sentences=list(sentences),
        queries=list(dict.fromkeys(queries)),
    )


def check_placeholders(text: str, step: int) -> None:
    """Check that every `#k` points to an earlier step. Raises RowRejected."""
    for number in map(int, _PLACEHOLDER.findall(text)):
        if not 1 <= number < step:
            raise RowRejected(f"step {step}: #{number} points to no earlier step")
