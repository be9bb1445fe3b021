"""MuSiQue v1.0, Ans and Full."""

from __future__ import annotations

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.schemas.rows import DecompositionStep, Question
from stepsearch_data.sources import Record
from stepsearch_data.sources.models import MusiqueRow
from stepsearch_data.sources.record import Loaded, check_placeholders, paragraph, supporting, validate


def parse(record: Record) -> Loaded:
    """A MuSiQue row. Raises RowRejected."""
    row = validate(MusiqueRow, record)
    paragraphs = {p.idx: paragraph(p.title, p.paragraph_text) for p in row.paragraphs}
    if len(paragraphs) != len(row.paragraphs):
        raise RowRejected("paragraphs: an idx occurs twice")
    steps = []
    for number, step in enumerate(row.question_decomposition, start=1):
        index = step.paragraph_support_idx
        check_placeholders(step.question, number)
        if index is None and row.answerable:
            raise RowRejected(f"step {number}: paragraph_support_idx is null")
        if index is not None and index not in paragraphs:
            raise RowRejected(f"step {number}: paragraph_support_idx {index} points to no paragraph")
        passage = "" if index is None else paragraphs[index].passage_id
        steps.append(DecompositionStep(text=step.question, answer=step.answer, passage_id=passage))
    if not steps:
        raise RowRejected("question_decomposition is empty")
    gold = dict.fromkeys(
        s.paragraph_support_idx for s in row.question_decomposition if s.paragraph_support_idx is not None
    )
    question = Question(
        question_id=row.id if row.answerable else f"{row.id}__unanswerable",
        source="musique",
        position=record.position,
        question=row.question,
        answer=row.answer,
        answer_aliases=row.answer_aliases,
        answerable=row.answerable,
        question_type=row.id.partition("__")[0],
        level="",
        hops=len(steps),
        paragraph_ids=[p.passage_id for p in paragraphs.values()],
        supporting=[supporting(paragraphs[index]) for index in gold],
        decomposition=steps,
        evidences=[],
    )
    return question, list(paragraphs.values())
