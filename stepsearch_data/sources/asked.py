"""Questions with nothing but answers: what an evaluation asks, and what training data is compared with."""

from __future__ import annotations

from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources import Record
from stepsearch_data.sources.models import AskedRow
from stepsearch_data.sources.record import validate

_HOPS = {"bamboogle": 2}


def parse(kind: str, record: Record) -> Question:
    """A question of any kind without its paragraphs; its hops are 0 where nobody knows. Raises RowRejected."""
    row = validate(AskedRow, record)
    answer, *aliases = row.answers
    return Question(
        question_id=f"{kind}-{record.position}" if row.id is None else str(row.id),
        source=kind,
        position=record.position,
        question=row.question,
        answer=answer,
        answer_aliases=[*aliases, *row.answer_aliases],
        answerable=True,
        question_type="",
        level="",
        hops=_HOPS.get(kind, 0),
        paragraph_ids=[],
        supporting=[],
        decomposition=[],
        evidences=[],
        answer_id=row.answer_id or "",
    )
