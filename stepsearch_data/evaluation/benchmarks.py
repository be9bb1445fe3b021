"""Questions of files: as builds read them, Bamboogle's, and any others that come with answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from stepsearch_data.core.errors import RowRejected, SourceError
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources.asked import asker
from stepsearch_data.sources.record import Record
from stepsearch_data.sources.source import Source, check_kind, parse_source
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.search_env import Task

_FIRST = 5  # rows that must agree that a file was called by the wrong kind's name


@dataclass
class Files:
    """Files, `KIND=FILE` each; `limit` questions of each. `id_aliases` is a table of other names, if not beside it."""

    texts: Sequence[str]
    template: Template
    limit: int | None = None
    id_aliases: Path | None = None
    rejects: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name the files."""
        return " ".join(self.texts)

    def count(self) -> int:
        """Count the rows of the files, those on the Hub apart."""
        rows = [sum(1 for _ in islice(_records(file), self.limit)) for file in self._files() if not file.is_hub]
        return sum(rows)

    def digest(self) -> str:
        """Return the digest of all files together."""
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
            yield replace(parse_source(text, "--questions", asked=True), id_aliases=self.id_aliases)

    def _read(self, file: Source) -> Iterator[Task]:
        records = _records(file)
        first = list(islice(records, _FIRST))
        check_kind(file, first, "--questions")

        def reject(record: Record, reason: str) -> None:
            self.rejects.append(f"{file.location}, row {record.position}: {reason}")

        parse = asker(file, reject)
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
            support_docs=golds,
            source=question.source,
            hops=question.hops,
        )


def _records(file: Source) -> Iterator[Record]:
    """Read the rows of a file. Raises SourceError where it cannot be read."""
    try:
        yield from file.records()
    except SourceError as error:
        raise SourceError(error.message, error.hint.replace("--source", "--questions")) from error
