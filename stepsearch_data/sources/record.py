"""What all formats share: the way from a record to a checked `Question` and its paragraphs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.core.validation import in_words
from stepsearch_data.schemas.rows import Paragraph, Question, SupportingParagraph
from stepsearch_data.sources import Record

R = TypeVar("R", bound=BaseModel)
Loaded = tuple[Question | None, list[Paragraph]]
"""A question with all its paragraphs, or paragraphs that belong to no question."""

_PLACEHOLDER = re.compile(r"#(\d{1,9})")


def validate(model: type[R], record: Record) -> R:
    """The row as its format's model. Raises RowRejected with the first thing that is wrong."""
    if record.broken:
        raise RowRejected(record.broken)
    try:
        if isinstance(record.data, dict):
            return model.model_validate(record.data)
        return model.model_validate_json(record.data)
    except ValidationError as error:
        raise RowRejected(in_words(error, most=1)) from None
    except ValueError as error:  # a dialect that could not be brought to the official form
        raise RowRejected(str(error)) from None


def paragraph(title: str, text: str) -> Paragraph:
    """A paragraph under the digest of its title and text."""
    key = f"{title}\n{text}".encode("utf-8", "surrogatepass")
    return Paragraph(passage_id=hashlib.blake2b(key, digest_size=8).hexdigest(), title=title, text=text)


def supporting(
    of: Paragraph, ends: Iterable[int] = (), sentences: Iterable[int] = (), queries: Iterable[str] = ()
) -> SupportingParagraph:
    """A gold paragraph: where its sentences end, which of them are supporting facts, and the queries given for it."""
    return SupportingParagraph(
        passage_id=of.passage_id,
        title=of.title,
        text=of.text,
        sentence_ends=list(ends),
        supporting_sentences=list(sentences),
        queries=list(dict.fromkeys(queries)),
    )


def check_placeholders(text: str, step: int) -> None:
    """Every `#k` must point to an earlier step. Raises RowRejected."""
    for number in map(int, _PLACEHOLDER.findall(text)):
        if not 1 <= number < step:
            raise RowRejected(f"step {step}: #{number} points to no earlier step")
