"""From a record of a source to a `Question` and its paragraphs: one file a format."""

from __future__ import annotations

from collections.abc import Callable

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources import Record, Source, asked, hotpotqa, jsonl, musique, stepsearch
from stepsearch_data.sources.aliases import Aliases, read_aliases, with_aliases
from stepsearch_data.sources.record import Loaded

PARSERS: dict[str, Callable[[Record], Loaded]] = {
    "musique": musique.parse,
    "hotpotqa": hotpotqa.parse_hotpotqa,
    "2wiki": hotpotqa.parse_two_wiki,
    "stepsearch": stepsearch.parse,
    "jsonl": jsonl.parse,
}


def parse_asked(kind: str, record: Record) -> Question | None:
    """A question that is asked or compared with, not built from: without gold paragraphs where the row lacks some.

    None for a document that belongs to no question. Raises RowRejected.
    """
    if record.broken:
        raise RowRejected(record.broken)
    if kind not in PARSERS:
        return asked.parse(kind, record)
    try:
        return PARSERS[kind](record)[0]
    except RowRejected as reason:
        try:
            return asked.parse(kind, stepsearch.released(record))
        except RowRejected:
            raise reason from None


def asker(source: Source, reject: Callable[[Record, str], None]) -> Callable[[Record], Question | None]:
    """How the questions of a source are read to be asked: with all answers that its official script accepts."""
    table = read_aliases(source, reject)

    def parse(record: Record) -> Question | None:
        question = parse_asked(source.kind, record)
        return question and with_aliases(question, table)

    return parse


__all__ = ["PARSERS", "Aliases", "Loaded", "asker", "parse_asked", "read_aliases", "with_aliases"]
