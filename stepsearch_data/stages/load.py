"""load: official files and Hub datasets → `questions`, and their distinct `paragraphs`."""

from __future__ import annotations

import orjson
from pydantic import Field

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.errors import RowRejected, SourceError
from stepsearch_data.pipeline.sources import Record, Source
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import Paragraph, Question
from stepsearch_data.schemas.sources import recognise
from stepsearch_data.schemas.tables import PARAGRAPHS, QUESTIONS
from stepsearch_data.stages.formats import PARSERS, Loaded
from stepsearch_data.text import mentions


class LoadConfig(StageConfig):
    """Which rows are taken."""

    limit: int | None = Field(default=None, ge=1, description="take only the first N questions of each source")
    max_paragraph_chars: int = Field(default=100_000, ge=1, description="reject questions with a longer paragraph")
    answer_in_paragraph: bool = Field(
        default=True, description="reject questions whose answer (yes and no apart) occurs in none of their paragraphs"
    )


class _Loader:
    """Reads sources into the stage's tables, each paragraph once."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._config = context.config(LoadConfig)
        self._questions: set[str] = set()
        self._paragraphs: set[str] = set()

    def read(self, source: Source) -> None:
        """Read one source to its end, or to the limit."""
        taken = 0
        for record in source.records():
            if record.position == 1:
                _check_format(source, record)
            try:
                taken += self._take(source, record)
            except RowRejected as reason:
                self._context.reject(source.kind, record.position, _id_of(record), str(reason), record.data)
            else:
                self._context.accept(source.kind)
            if taken == self._config.limit:
                break

    def _take(self, source: Source, record: Record) -> bool:
        """Write what a record holds; whether it was a question. Raises RowRejected."""
        question, paragraphs = _parse(source, record, self._config)
        if question:
            if question.question_id in self._questions:
                raise RowRejected(f"duplicate id {question.question_id}")
            self._questions.add(question.question_id)
            self._context.writer(QUESTIONS).append(question)
        for paragraph in paragraphs:
            if paragraph.passage_id not in self._paragraphs:
                self._paragraphs.add(paragraph.passage_id)
                self._context.writer(PARAGRAPHS).append(paragraph)
        return question is not None


def load(context: StageContext) -> None:
    """Read every source, row by row; what cannot be used becomes a reject."""
    loader = _Loader(context)
    for source in context.sources:
        loader.read(source)


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


def _parse(source: Source, record: Record, config: LoadConfig) -> Loaded:
    if record.broken:
        raise RowRejected(record.broken)
    question, paragraphs = PARSERS[source.kind](record)
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


def _id_of(record: Record) -> str | None:
    """The row's id, as far as it can be made out."""
    try:
        row = record.data if isinstance(record.data, dict) else orjson.loads(record.data)
    except orjson.JSONDecodeError:
        return None
    identifier = row.get("_id", row.get("id")) if isinstance(row, dict) else None
    return identifier if isinstance(identifier, str) else None
