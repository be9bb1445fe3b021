"""A user's own questions and documents, one JSON object per line (docs/sources.md)."""

from __future__ import annotations

from pydantic import Field, StrictBool, StrictInt

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.schemas.rows import DecompositionStep, Question
from stepsearch_data.sources import OWN
from stepsearch_data.sources.dataset import Dataset
from stepsearch_data.sources.record import (
    Loaded,
    Record,
    SourceRow,
    check_placeholders,
    fields_of,
    paragraph,
    supporting,
    validate,
)


class JsonlParagraph(SourceRow):
    """A paragraph that comes with a user's question."""

    title: str
    text: str
    supporting: StrictBool = False


class JsonlHop(SourceRow):
    """A hop of a user's question; `paragraph` is a position in `paragraphs`, from 0."""

    question: str
    answer: str
    paragraph: StrictInt


class JsonlRow(SourceRow):
    """A user's own question: at least one paragraph must be marked as supporting, or named by a hop."""

    id: str
    question: str
    answer: str
    answer_aliases: list[str] = Field(default_factory=list)
    paragraphs: list[JsonlParagraph]
    hops: list[JsonlHop] = Field(default_factory=list)
    type: str = ""


class JsonlDocument(SourceRow):
    """A line of a user's corpus that belongs to no question."""

    title: str
    text: str


def parse(record: Record) -> Loaded:
    """Read a question, or a document that belongs to none. Raises RowRejected."""
    if "question" not in fields_of(record):
        document = validate(JsonlDocument, record)
        return None, [paragraph(document.title, document.text)]
    row = validate(JsonlRow, record)
    paragraphs = [paragraph(p.title, p.text) for p in row.paragraphs]
    for number, hop in enumerate(row.hops, start=1):
        check_placeholders(hop.question, number)
        if not 0 <= hop.paragraph < len(paragraphs):
            raise RowRejected(f"hop {number}: paragraph {hop.paragraph} does not exist")
    marked = [at for at, paragraph in enumerate(row.paragraphs) if paragraph.supporting]
    gold = list(dict.fromkeys([hop.paragraph for hop in row.hops] or marked))
    if not gold:
        raise RowRejected("no paragraph is marked as supporting, and no hop names one")
    question = Question(
        question_id=row.id,
        source=OWN,
        position=record.position,
        question=row.question,
        answer=row.answer,
        answer_aliases=row.answer_aliases,
        question_type=row.type,
        hops=len(row.hops) or len(gold),
        paragraph_ids=list(dict.fromkeys(p.passage_id for p in paragraphs)),
        supporting=[supporting(paragraphs[at]) for at in gold],
        decomposition=[
            DecompositionStep(text=h.question, answer=h.answer, passage_id=paragraphs[h.paragraph].passage_id)
            for h in row.hops
        ],
    )
    return question, paragraphs


DATASET = Dataset(
    name=OWN,
    doc="your own questions and documents",
    parse=parse,
    signatures=(frozenset({"question", "paragraphs"}), frozenset({"title", "text"})),
    suffix="jsonl",
)
