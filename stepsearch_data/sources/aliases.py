"""2Wiki's official table of other names, by Wikidata id: its metric takes them for right answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stepsearch_data.core.errors import RowRejected, SourceError
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources import Record, Source
from stepsearch_data.sources.models import AliasesRow
from stepsearch_data.sources.record import validate

Aliases = Mapping[str, tuple[str, ...]]


def read_aliases(source: Source, reject: Callable[[Record, str], None]) -> Aliases:
    """Aliases and demonyms by id; none where the source has no table. Lines that cannot be read are rejected.

    Raises SourceError for a file that is no such table.
    """
    table: dict[str, tuple[str, ...]] = {}
    for record in Source("jsonl", str(source.aliases)).records() if source.aliases else ():
        try:
            row = validate(AliasesRow, record)
        except RowRejected as reason:
            reject(record, f"{source.aliases}: {reason}")
        else:
            table[row.id] = tuple(name for name in (*row.aliases, *row.demonyms) if name.strip())
    if source.aliases and not table:
        raise SourceError(f"{source.aliases} holds no line of Q_id, aliases and demonyms", "is it 2Wiki's table?")
    return table


def with_aliases(question: Question, table: Aliases) -> Question:
    """The question with all other names of its answer."""
    names = table.get(question.answer_id, ())
    known = dict.fromkeys((question.answer, *question.answer_aliases, *names))
    return question.model_copy(update={"answer_aliases": [*known][1:]}) if names else question
