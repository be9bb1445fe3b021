"""Questions with answers alone: what an evaluation asks, and what training data is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import orjson
from pydantic import AliasChoices, BeforeValidator, Field, StrictInt

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources.dataset import Dataset, dataset_of
from stepsearch_data.sources.record import Record, SourceRow, records, validate
from stepsearch_data.sources.source import Source, read_aliases, with_aliases
from stepsearch_data.sources.stepsearch import with_reference_names


def _listed(value: Any) -> Any:
    """Return one answer as a list of it; JSON text of a list, as CSV files hold it, as the list."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return [value]
    return [value] if isinstance(value, str) else value


class AskedRow(SourceRow):
    """A question and its answers, under the names that FlashRAG, Search-R1, Bamboogle and official files have."""

    id: str | StrictInt | None = Field(default=None, validation_alias=AliasChoices("_id", "id"))
    question: str = Field(validation_alias=AliasChoices("question", "Question"), min_length=1)
    answers: Annotated[list[str], BeforeValidator(_listed)] = Field(
        validation_alias=AliasChoices("golden_answers", "Answer", "answer", "final_answer"), min_length=1
    )
    answer_aliases: Annotated[list[str], BeforeValidator(records)] = Field(default_factory=list)
    answer_id: str | None = None


def parse_asked(kind: str, record: Record) -> Question | None:
    """Read a question that is asked or compared with, not built from: it may lack gold paragraphs.

    None for a document that belongs to no question. Raises RowRejected.
    """
    if record.broken:
        raise RowRejected(record.broken)
    dataset = dataset_of(kind)
    if dataset.parse is None:
        return _parse(dataset, record)
    try:
        return dataset.parse(record)[0]
    except RowRejected as reason:
        try:
            return _parse(dataset, with_reference_names(record))
        except RowRejected:
            raise reason from None


def asker(source: Source, reject: Callable[[Record, str], None]) -> Callable[[Record], Question | None]:
    """Return a reader of a source's questions to ask, with all answers that its official script accepts."""
    table = read_aliases(source, reject)

    def parse(record: Record) -> Question | None:
        question = parse_asked(source.kind, record)
        return question and with_aliases(question, table)

    return parse


def _parse(dataset: Dataset, record: Record) -> Question:
    """Read a question of any dataset without its paragraphs. Raises RowRejected."""
    row = validate(AskedRow, record)
    answer, *aliases = row.answers
    return Question(
        question_id=f"{dataset.name}-{record.position}" if row.id is None else str(row.id),
        source=dataset.name,
        position=record.position,
        question=row.question,
        answer=answer,
        answer_aliases=[*aliases, *row.answer_aliases],
        hops=dataset.hops,
        paragraph_ids=[],
        supporting=[],
        answer_id=row.answer_id or "",
    )


DATASET = Dataset(name="qa", doc="any questions with golden_answers, as FlashRAG and Search-R1 have them")
