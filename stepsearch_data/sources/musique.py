"""MuSiQue v1.0, Ans and Full."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, StrictBool, StrictInt

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.schemas.rows import DecompositionStep, Question
from stepsearch_data.sources.dataset import Dataset, Publication
from stepsearch_data.sources.record import (
    Loaded,
    Record,
    SourceRow,
    check_placeholders,
    paragraph,
    records,
    supporting,
    validate,
)

_ID = re.compile(r"\dhop\d?__([\d_]+?)(?:__unanswerable)?")


class MusiqueParagraph(SourceRow):
    """A candidate paragraph of a MuSiQue question."""

    idx: StrictInt
    title: str
    paragraph_text: str
    is_supporting: StrictBool


class MusiqueStep(SourceRow):
    """A step of MuSiQue's official decomposition."""

    question: str
    answer: str
    paragraph_support_idx: StrictInt | None = None


class MusiqueRow(SourceRow):
    """MuSiQue v1.0, Ans and Full."""

    id: str
    paragraphs: Annotated[list[MusiqueParagraph], BeforeValidator(records)]
    question: str
    question_decomposition: Annotated[list[MusiqueStep], BeforeValidator(records)]
    answer: str
    answer_aliases: Annotated[list[str], BeforeValidator(records)] = Field(default_factory=list)
    answerable: StrictBool = True


def parse(record: Record) -> Loaded:
    """Read a MuSiQue row. Raises RowRejected."""
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
        hops=len(steps),
        paragraph_ids=[p.passage_id for p in paragraphs.values()],
        supporting=[supporting(paragraphs[index]) for index in gold],
        decomposition=steps,
    )
    return question, list(paragraphs.values())


def single_hops(question_id: str) -> list[str]:
    """Return the ids of the single-hop questions that a question is made of: `2hop__482757_12019`."""
    found = _ID.fullmatch(question_id)
    return found[1].split("_") if found else []


DATASET = Dataset(
    name="musique",
    doc="MuSiQue v1.0, Ans and Full",
    parse=parse,
    signatures=(frozenset({"question", "question_decomposition", "paragraphs"}),),
    publication=Publication(
        credit="MuSiQue by Trivedi, Balasubramanian, Khot and Sabharwal "
        "(https://github.com/StonyBrookNLP/musique), CC BY 4.0",
        licence="cc-by-4.0",
        bibtex="""\
@article{musique,
  title   = {MuSiQue: Multihop Questions via Single-hop Question Composition},
  author  = {Trivedi, Harsh and Balasubramanian, Niranjan and Khot, Tushar and Sabharwal, Ashish},
  journal = {Transactions of the Association for Computational Linguistics},
  year    = {2022}
}""",
        tag="extended|other-musique",
    ),
    hub="hf:dgslibisey/MuSiQue:validation",
    suffix="jsonl",
    sample="musique.sample.jsonl",
    single_hops=single_hops,
)
