"""Other names of answers, by the id of the answer: an official metric accepts them as answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stepsearch_data.core.errors import RowRejected, SourceError
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources import OWN
from stepsearch_data.sources.record import Record
from stepsearch_data.sources.source import Source

Aliases = Mapping[str, tuple[str, ...]]


def read_aliases(source: Source, reject: Callable[[Record, str], None]) -> Aliases:
    """Read names by id; none where the source has no table. Lines that cannot be read are rejected.

    Raises SourceError for a file that is not such a table.
    """
    path, aliases = source.aliases, source.dataset.aliases
    if not path or not aliases:
        return {}
    table: dict[str, tuple[str, ...]] = {}
    for record in Source(OWN, str(path)).records():
        try:
            key, names = aliases.row(record)
        except RowRejected as reason:
            reject(record, f"{path}: {reason}")
        else:
            table[key] = tuple(name for name in names if name.strip())
    if not table:
        raise SourceError(f"{path} holds no line of {aliases.columns}", f"is it the table of {source.kind}?")
    return table


def with_aliases(question: Question, table: Aliases) -> Question:
    """Return the question with all other names of its answer."""
    names = table.get(question.answer_id, ())
    known = dict.fromkeys((question.answer, *question.answer_aliases, *names))
    return question.model_copy(update={"answer_aliases": [*known][1:]}) if names else question
