"""Questions of files: MuSiQue, HotpotQA, 2WikiMultihopQA and one's own as builds read them, and Bamboogle."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Annotated, Any

import orjson
from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, ValidationError

from stepsearch_data.exports.examples import Paragraph
from stepsearch_data.exports.template import Template
from stepsearch_data.pipeline.errors import ConfigError, RowRejected, SourceError
from stepsearch_data.pipeline.sources import Record, Source, parse_source
from stepsearch_data.pipeline.validation import in_words
from stepsearch_data.schemas.rows import Question
from stepsearch_data.schemas.sources import recognise
from stepsearch_data.trainer.episode import Task
from stepsearch_data.trainer.evaluation.questions import Asked

BAMBOOGLE = "bamboogle"
_FIRST = 5  # rows that must agree that a file was called by the wrong kind's name

Parsers = Mapping[str, Callable[[Record], tuple[Question | None, Sequence[Any]]]]
"""How rows of a source are read, by the source's kind. Each raises RowRejected."""


@dataclass
class Files:
    """Official files, `KIND=FILE` each; `limit` questions of each."""

    texts: Sequence[str]
    template: Template
    parsers: Parsers
    limit: int | None = None
    rejects: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The files."""
        return " ".join(self.texts)

    def count(self) -> int:
        """Rows of the files, those on the Hub apart."""
        rows = [sum(1 for _ in islice(_records(file), self.limit)) for file in self._files() if not file.is_hub]
        return sum(rows)

    def digest(self) -> str:
        """Of all files together."""
        return " ".join(file.digest() for file in self._files())

    def __iter__(self) -> Iterator[Asked]:
        """See `Questions.__iter__`."""
        for file in self._files():
            found = islice(self._read(file), self.limit)
            first = next(found, None)
            if first is None:
                why = self.rejects[0] if self.rejects else "it holds no row"
                raise SourceError(f"{file.location} holds no question of {file.kind}: {why}", "is it the right file?")
            yield from chain([first], found)

    def _files(self) -> Iterator[Source]:
        return map(_file, self.texts)

    def _read(self, file: Source) -> Iterator[Asked]:
        records = _records(file)
        first = list(islice(records, _FIRST))
        _check_kind(file, first)
        parse = _bamboogle if file.kind == BAMBOOGLE else partial(self._official, file.kind)
        for record in chain(first, records):
            try:
                asked = parse(record)
            except RowRejected as reason:
                self.rejects.append(f"{file.location}, row {record.position}: {record.broken or reason}")
                continue
            if asked:
                prompt = self.template.opening(asked.task.question)
                yield Asked(replace(asked.task, prompt=prompt, source=file.kind), asked.hops)

    def _official(self, kind: str, record: Record) -> Asked | None:
        question, _ = self.parsers[kind](record)
        if question is None:  # a paragraph that belongs to no question
            return None
        golds = tuple(Paragraph(gold.title, gold.text) for gold in question.supporting)
        answers = (question.answer, *question.answer_aliases)
        return Asked(Task(question.question_id, question.question, "", answers, golds=golds), question.hops)


class _BamboogleRow(BaseModel):
    """A row of Bamboogle, or of a copy that calls its fields otherwise. All its questions have two hops."""

    id: str | int | None = None
    question: str = Field(validation_alias=AliasChoices("Question", "question"), min_length=1)
    answers: Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = Field(
        validation_alias=AliasChoices("Answer", "answer", "golden_answers"), min_length=1
    )


def _bamboogle(record: Record) -> Asked:
    try:
        data = record.data if isinstance(record.data, dict) else orjson.loads(record.data)
        row = _BamboogleRow.model_validate(data)
    except orjson.JSONDecodeError as error:
        raise RowRejected(f"invalid JSON: {error}") from None
    except ValidationError as error:
        raise RowRejected(in_words(error, most=1)) from None
    identifier = f"{BAMBOOGLE}-{record.position}" if row.id is None else str(row.id)
    return Asked(Task(identifier, row.question, "", tuple(row.answers)), 2)


def _file(text: str) -> Source:
    """`KIND=FILE` as a source. Raises ConfigError."""
    kind, _, location = text.partition("=")
    if kind == BAMBOOGLE and location:
        return Source(kind, location)
    try:
        return parse_source(text)
    except ConfigError as error:
        advice = error.hint.replace("jsonl", f"jsonl, {BAMBOOGLE}")
        raise ConfigError(error.message.replace("--source", "--questions"), advice) from error


def _records(file: Source) -> Iterator[Record]:
    """The rows of a file. Raises SourceError where it cannot be read."""
    if file.path.suffix.lower() != ".csv":
        try:
            yield from file.records()
        except SourceError as error:
            raise SourceError(error.message, error.hint.replace("--source", "--questions")) from error
        return
    try:
        with open(file.path, encoding="utf-8-sig", newline="") as lines:
            for position, row in enumerate(csv.DictReader(lines), start=1):
                yield Record(position, dict(row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceError(f"cannot read {file.location}: {reason}", "check the path after --questions") from error


def _check_kind(file: Source, first: Sequence[Record]) -> None:
    """Refuse a file whose first rows are plainly of another kind than it was called."""
    found = {recognise(set(_fields(record))) for record in first} - {None}
    if found and file.kind not in found:
        kind = found.pop()
        raise SourceError(
            f"{file.location} was given as {file.kind}, but its rows are in the format of {kind}",
            f"use --questions {kind}={file.location}",
        )


def _fields(record: Record) -> dict[str, Any]:
    if isinstance(record.data, dict):
        return record.data
    try:
        row = orjson.loads(record.data)
    except orjson.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}
