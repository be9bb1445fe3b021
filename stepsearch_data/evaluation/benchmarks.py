"""Questions of files: as builds read them, Bamboogle's, and any others that come with answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from stepsearch_data.core.errors import RowRejected, SourceError
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources import ASKED, KINDS, Record, Source, parse_source
from stepsearch_data.sources.models import recognise
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.search_env import Task

_FIRST = 5  # rows that must agree that a file was called by the wrong kind's name

Asker = Callable[[Source, Callable[[Record, str], None]], Callable[[Record], Question | None]]
"""How the questions of a source are read, which raises RowRejected; it rejects what stands beside its rows itself."""


@dataclass
class Files:
    """Files, `KIND=FILE` each; `limit` questions of each. `id_aliases` is 2Wiki's table, if not beside its file."""

    texts: Sequence[str]
    template: Template
    asker: Asker
    limit: int | None = None
    id_aliases: Path | None = None
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

    def __iter__(self) -> Iterator[Task]:
        """See `Questions.__iter__`."""
        for file in self._files():
            found = islice(self._read(file), self.limit)
            first = next(found, None)
            if first is None:
                why = self.rejects[0] if self.rejects else "it holds no row"
                raise SourceError(f"{file.location} holds no question of {file.kind}: {why}", "is it the right file?")
            yield from chain([first], found)

    def _files(self) -> Iterator[Source]:
        for text in self.texts:
            file = parse_source(text, ASKED, "--questions")
            yield replace(file, id_aliases=self.id_aliases if file.kind == "2wiki" else None)

    def _read(self, file: Source) -> Iterator[Task]:
        records = _records(file)
        first = list(islice(records, _FIRST))
        _check_kind(file, first)

        def reject(record: Record, reason: str) -> None:
            self.rejects.append(f"{file.location}, row {record.position}: {reason}")

        parse = self.asker(file, reject)
        for record in chain(first, records):
            try:
                question = parse(record)
            except RowRejected as reason:
                reject(record, str(reason))
                continue
            if question:  # and no document that belongs to none
                yield self._task(question)

    def _task(self, question: Question) -> Task:
        golds = tuple(Paragraph(gold.title, gold.text) for gold in question.supporting)
        answers = (question.answer, *question.answer_aliases)
        prompt = self.template.opening(question.question)
        return Task(
            question.question_id,
            question.question,
            prompt,
            answers,
            golds=golds,
            source=question.source,
            hops=question.hops,
        )


def _records(file: Source) -> Iterator[Record]:
    """The rows of a file. Raises SourceError where it cannot be read."""
    try:
        yield from file.records()
    except SourceError as error:
        raise SourceError(error.message, error.hint.replace("--source", "--questions")) from error


def _check_kind(file: Source, first: Sequence[Record]) -> None:
    """Refuse a file whose first rows are plainly of another kind than it was called."""
    found = {recognise(set(record.fields)) for record in first} - {None}
    if found and file.kind in KINDS and file.kind not in found:
        kind = found.pop()
        raise SourceError(
            f"{file.location} was given as {file.kind}, but its rows are in the format of {kind}",
            f"use --questions {kind}={file.location}",
        )
