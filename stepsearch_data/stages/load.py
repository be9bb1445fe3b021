"""load: official files and Hub datasets → `questions`, and their distinct `paragraphs`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, Field, ValidationError

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.errors import RowRejected, SourceError
from stepsearch_data.pipeline.sources import Record, Source
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import DecompositionStep, Evidence, Paragraph, Question, SupportingParagraph
from stepsearch_data.schemas.sources import (
    HotpotRow,
    JsonlDocument,
    JsonlRow,
    MusiqueRow,
    TwoWikiRow,
    recognise,
)
from stepsearch_data.schemas.tables import PARAGRAPHS, QUESTIONS
from stepsearch_data.text import mentions

_PLACEHOLDER = re.compile(r"#(\d+)")


class LoadConfig(StageConfig):
    """Which rows are taken."""

    limit: int | None = Field(default=None, ge=1, description="take only the first N questions of each source")
    max_paragraph_chars: int = Field(default=100_000, ge=1, description="reject questions with a longer paragraph")
    answer_in_paragraph: bool = Field(
        default=True, description="reject questions whose answer (yes and no apart) occurs in none of their paragraphs"
    )


R = TypeVar("R", bound=BaseModel)
Loaded = tuple[Question | None, list[Paragraph]]


def load(context: StageContext) -> None:
    """Read every source, row by row; what cannot be used becomes a reject."""
    config = context.config(LoadConfig)
    seen_ids: set[str] = set()
    seen_paragraphs: set[str] = set()
    for source in context.sources:
        taken = 0
        for record in source.records():
            if record.position == 1:
                _check_format(source, record)
            try:
                question, paragraphs = _read(source, record, config)
                if question and question.question_id in seen_ids:
                    raise RowRejected(f"duplicate id {question.question_id}")
            except RowRejected as reason:
                context.reject(source.kind, record.position, _id_of(record), str(reason), record.data)
                continue
            for paragraph in paragraphs:
                if paragraph.passage_id not in seen_paragraphs:
                    seen_paragraphs.add(paragraph.passage_id)
                    context.writer(PARAGRAPHS).append(paragraph)
            if question:
                seen_ids.add(question.question_id)
                context.writer(QUESTIONS).append(question)
                taken += 1
            context.accept(source.kind)
            if config.limit and taken >= config.limit:
                break


STAGE = Stage(
    name="load",
    doc="read the sources, check every row, set bad ones aside",
    reads=(),
    writes=(QUESTIONS, PARAGRAPHS),
    config=LoadConfig,
    run=load,
    reads_sources=True,
)


def _check_format(source: Source, record: Record) -> None:
    """Refuse a source whose first row is plainly in another format than it was called."""
    try:
        row = record.data if isinstance(record.data, dict) else orjson.loads(record.data)
    except orjson.JSONDecodeError:
        return
    found = recognise(set(row)) if isinstance(row, dict) else None
    if found and found != source.kind:
        raise SourceError(
            f"{source.location} was given as {source.kind}, but its rows are in the format of {found}",
            f"use --source {found}={source.location}",
        )


def _read(source: Source, record: Record, config: LoadConfig) -> Loaded:
    if record.broken:
        raise RowRejected(record.broken)
    question, paragraphs = _PARSERS[source.kind](record)
    for number, paragraph in enumerate(paragraphs):
        _check_text(f"paragraph {number}", paragraph.title + paragraph.text)
        if not paragraph.text.strip():
            raise RowRejected(f"paragraph {number} is empty")
        if len(paragraph.text) > config.max_paragraph_chars:
            raise RowRejected(f"paragraph {number} is longer than {config.max_paragraph_chars} characters")
    if question:
        _check_question(question, paragraphs, config)
    return question, paragraphs


def _check_question(question: Question, paragraphs: list[Paragraph], config: LoadConfig) -> None:
    for name in ("question_id", "question", "answer"):
        value = getattr(question, name)
        _check_text(name, value)
        if not value.strip():
            raise RowRejected(f"{name} is empty")
    for step in question.decomposition:
        _check_text("decomposition", step.text + step.answer)
    for alias in question.answer_aliases:
        _check_text("answer_aliases", alias)
    answers = (question.answer, *question.answer_aliases)
    if not config.answer_in_paragraph or not question.answerable or question.answer.lower() in ("yes", "no"):
        return
    if not any(mentions(f"{p.title} {p.text}", answer) for p in paragraphs for answer in answers):
        raise RowRejected("the answer occurs in none of the paragraphs")


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        raise RowRejected(f"{name} holds a NUL byte")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowRejected(f"{name} holds a lone surrogate, which is no text") from None


def _validate(model: type[R], record: Record) -> R:
    """The row as its format's model. Raises RowRejected with the first thing that is wrong."""
    try:
        if isinstance(record.data, dict):
            return model.model_validate(record.data)
        return model.model_validate_json(record.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RowRejected(f"{place}: {first['msg']}" if place else first["msg"]) from None
    except ValueError as error:  # a dialect that could not be brought to the official form
        raise RowRejected(str(error)) from None


def _paragraph(title: str, text: str) -> Paragraph:
    key = f"{title}\n{text}".encode("utf-8", "surrogatepass")
    return Paragraph(passage_id=hashlib.blake2b(key, digest_size=8).hexdigest(), title=title, text=text)


def _supporting(paragraph: Paragraph, ends: Iterable[int] = (), sentences: Iterable[int] = ()) -> SupportingParagraph:
    return SupportingParagraph(
        passage_id=paragraph.passage_id,
        title=paragraph.title,
        text=paragraph.text,
        sentence_ends=list(ends),
        supporting_sentences=list(sentences),
    )


def _musique(record: Record) -> Loaded:
    row = _validate(MusiqueRow, record)
    paragraphs = {p.idx: _paragraph(p.title, p.paragraph_text) for p in row.paragraphs}
    if len(paragraphs) != len(row.paragraphs):
        raise RowRejected("paragraphs: an idx occurs twice")
    steps = []
    for number, step in enumerate(row.question_decomposition, start=1):
        index = step.paragraph_support_idx
        _check_placeholders(step.question, number)
        if index is None and row.answerable:
            raise RowRejected(f"step {number}: paragraph_support_idx is null")
        if index is not None and index not in paragraphs:
            raise RowRejected(f"step {number}: paragraph_support_idx {index} points to no paragraph")
        passage = "" if index is None else paragraphs[index].passage_id
        steps.append(DecompositionStep(text=step.question, answer=step.answer, passage_id=passage))
    if not steps:
        raise RowRejected("question_decomposition is empty")
    gold = dict.fromkeys(s.paragraph_support_idx for s in row.question_decomposition if s.paragraph_support_idx is not None)
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
        supporting=[_supporting(paragraphs[index]) for index in gold],
        decomposition=steps,
        evidences=[],
    )
    return question, list(paragraphs.values())


def _check_placeholders(text: str, step: int) -> None:
    for number in map(int, _PLACEHOLDER.findall(text)):
        if not 1 <= number < step:
            raise RowRejected(f"step {step}: #{number} points to no earlier step")


def _hotpot(record: Record) -> Loaded:
    return _from_context(record, _validate(HotpotRow, record), "hotpotqa", [])


def _two_wiki(record: Record) -> Loaded:
    row = _validate(TwoWikiRow, record)
    return _from_context(record, row, "2wiki", [Evidence(subject=s, relation=r, object=o) for s, r, o in row.evidences])


def _from_context(record: Record, row: HotpotRow, source: str, evidences: list[Evidence]) -> Loaded:
    paragraphs = [_paragraph(title, "".join(sentences)) for title, sentences in row.context]
    facts: dict[str, list[int]] = {}
    for title, sentence in row.supporting_facts:
        facts.setdefault(title, []).append(sentence)
    if not facts:
        raise RowRejected("supporting_facts is empty")
    supporting = []
    for title, cited in facts.items():
        at = _find_paragraph(row.context, title, cited)
        ends = accumulate(len(sentence) for sentence in row.context[at][1])
        supporting.append(_supporting(paragraphs[at], ends, cited))
    question = Question(
        question_id=row.id,
        source=source,
        position=record.position,
        question=row.question,
        answer=row.answer,
        answer_aliases=[],
        answerable=True,
        question_type=row.type,
        level=row.level,
        hops=len(supporting),
        paragraph_ids=list(dict.fromkeys(p.passage_id for p in paragraphs)),
        supporting=supporting,
        decomposition=[],
        evidences=evidences,
    )
    return question, paragraphs


def _find_paragraph(context: list[tuple[str, list[str]]], title: str, cited: list[int]) -> int:
    """Position of the paragraph that the supporting facts cite: titles may repeat, sentences decide."""
    named = [at for at, (name, _) in enumerate(context) if name == title]
    if not named:
        raise RowRejected(f"supporting_facts: no paragraph is called {title!r}")
    for at in named:
        if all(0 <= sentence < len(context[at][1]) for sentence in cited):
            return at
    raise RowRejected(f"supporting_facts: {title!r} has no sentence {max(cited)}")


def _jsonl(record: Record) -> Loaded:
    fields = record.data if isinstance(record.data, dict) else _object(record.data)
    if "question" not in fields:
        document = _validate(JsonlDocument, record)
        return None, [_paragraph(document.title, document.text)]
    row = _validate(JsonlRow, record)
    paragraphs = [_paragraph(p.title, p.text) for p in row.paragraphs]
    for number, hop in enumerate(row.hops, start=1):
        _check_placeholders(hop.question, number)
        if not 0 <= hop.paragraph < len(paragraphs):
            raise RowRejected(f"hop {number}: paragraph {hop.paragraph} does not exist")
    marked = [at for at, paragraph in enumerate(row.paragraphs) if paragraph.supporting]
    gold = list(dict.fromkeys([hop.paragraph for hop in row.hops] or marked))
    if not gold:
        raise RowRejected("no paragraph is marked as supporting, and no hop names one")
    question = Question(
        question_id=row.id,
        source="jsonl",
        position=record.position,
        question=row.question,
        answer=row.answer,
        answer_aliases=row.answer_aliases,
        answerable=True,
        question_type=row.type,
        level="",
        hops=len(row.hops) or len(gold),
        paragraph_ids=list(dict.fromkeys(p.passage_id for p in paragraphs)),
        supporting=[_supporting(paragraphs[at]) for at in gold],
        decomposition=[
            DecompositionStep(text=h.question, answer=h.answer, passage_id=paragraphs[h.paragraph].passage_id) for h in row.hops
        ],
        evidences=[],
    )
    return question, paragraphs


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RowRejected(f"Invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise RowRejected("the row is no JSON object")
    return value


_PARSERS: dict[str, Callable[[Record], Loaded]] = {
    "musique": _musique,
    "hotpotqa": _hotpot,
    "2wiki": _two_wiki,
    "jsonl": _jsonl,
}


def _id_of(record: Record) -> str | None:
    """The row's id, as far as it can be made out."""
    try:
        row = record.data if isinstance(record.data, dict) else orjson.loads(record.data)
    except orjson.JSONDecodeError:
        return None
    identifier = row.get("_id", row.get("id")) if isinstance(row, dict) else None
    return identifier if isinstance(identifier, str) else None
