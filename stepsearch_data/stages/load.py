"""load: official files, Hub datasets and documents → `loaded` questions, distinct `paragraphs` and their `origins`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice, tee
from pathlib import Path
from typing import ClassVar, NamedTuple

import pyarrow as pa
from pydantic import Field

from stepsearch_data.core.arrow import Sent
from stepsearch_data.core.errors import GoldMissing, RowRejected, SourceError
from stepsearch_data.core.text import mentions
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.stage import Needs, Stage, StageConfig
from stepsearch_data.schemas.rows import Origin, Paragraph, Question, SupportingParagraph
from stepsearch_data.schemas.tables import LOADED, ORIGINS, PARAGRAPHS
from stepsearch_data.sources import CORPUS
from stepsearch_data.sources.corpus import cut
from stepsearch_data.sources.dataset import Dataset, dataset_of
from stepsearch_data.sources.passages import identity_of
from stepsearch_data.sources.record import Loaded, Record, paragraph
from stepsearch_data.sources.source import Aliases, Source, check_kind, read_aliases, with_aliases

_FIRST = 5  # rows that must all be of another format before a source's KIND is called wrong
_PEEK = 1_000  # rows that tell a large source from a small one
_PART = 100  # rows that are parsed at once
_NO_GOLD = "questions lack a gold paragraph and are in rejects"


class LoadConfig(StageConfig):
    """Which rows are taken."""

    files: ClassVar[tuple[str, ...]] = ("id_aliases",)

    limit: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="take only the first N questions of each source"
    )
    max_paragraph_chars: int = Field(
        default=100_000, ge=1, le=100_000_000, description="reject questions with a longer paragraph"
    )
    passage_chars: int = Field(
        default=2_000,
        ge=100,
        le=1_000_000,
        description="cut longer documents of a corpus into passages of at most N characters",
    )
    answer_in_paragraph: bool = Field(
        default=True, description="reject questions whose answer (yes and no apart) occurs in none of their paragraphs"
    )
    id_aliases: Path | None = Field(
        default=None, description="table of other names of answers, id_aliases.json, if it is not beside its file"
    )


class _Outcome(NamedTuple):
    """What became of a row: the reason why it was rejected, or its question and the ids of its paragraphs."""

    reason: str = ""
    lacks_gold: bool = False
    question_id: str | None = None
    notes: Sequence[str] = ()
    passage_ids: Sequence[str] = ()


class _Parsed(NamedTuple):
    """The questions and the distinct paragraphs of some rows, and what became of each row.

    `origins` has a row for each of the paragraphs where they are passages of documents, else none.
    """

    questions: Sent
    paragraphs: Sent
    origins: Sent
    outcomes: list[_Outcome]


def _parse(label: str, config: LoadConfig, aliases: Aliases, records: list[Record]) -> _Parsed:
    """Parse and check rows of a source, in a worker."""
    dataset = dataset_of(label.partition("#")[0])
    questions: list[Question] = []
    paragraphs: dict[str, Paragraph] = {}
    origins: dict[str, Origin] = {}
    outcomes = []
    for record in records:
        try:
            question, own = _checked(dataset, config, aliases, record)
        except RowRejected as error:
            outcomes.append(_Outcome(str(error), isinstance(error, GoldMissing)))
            continue
        by_id = {found.passage_id: found for found in own}
        for part, (passage_id, found) in enumerate(by_id.items(), start=1):
            paragraphs.setdefault(passage_id, found)
            if dataset.documents:
                origins.setdefault(passage_id, _origin(label, record, passage_id, part))
        outcome = _Outcome(passage_ids=list(by_id))
        if question:
            questions.append(question)
            outcome = outcome._replace(question_id=question.question_id, notes=question.notes)
        outcomes.append(outcome)
    return _Parsed(
        Sent(LOADED.to_arrow(questions)),
        Sent(PARAGRAPHS.to_arrow(paragraphs.values())),
        Sent(ORIGINS.to_arrow(origins.values())),
        outcomes,
    )


def _checked(dataset: Dataset, config: LoadConfig, aliases: Aliases, record: Record) -> Loaded:
    """Return what a row holds. Raises RowRejected."""
    if record.broken:
        raise RowRejected(record.broken)
    assert dataset.parse  # a dataset without a parser cannot be a source of a build
    question, paragraphs = dataset.parse(record)
    if dataset.documents:
        _check_text("id", identity_of(record.fields) or "")
        most = config.passage_chars
        paragraphs = [paragraph(whole.title, text) for whole in paragraphs for text in cut(whole.text, most)]
    question = question and with_aliases(question, aliases)
    for number, found in enumerate(paragraphs):
        _check_text(f"paragraph {number}", found.title + found.text)
        if not found.text.strip():
            raise RowRejected(f"paragraph {number} is empty")
        if len(found.text) > config.max_paragraph_chars:
            raise RowRejected(f"paragraph {number} is longer than {config.max_paragraph_chars} characters")
    if question:
        _check_question(question, paragraphs, config)
    return question, paragraphs


class _Loader:
    """Reads sources into the stage's tables, each paragraph once."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._config = context.config(LoadConfig)
        self._questions: set[str] = set()
        self._paragraphs: set[str] = set()
        self._origins: set[str] = set()
        self._notes: Counter[str] = Counter()
        self._composes = any(source.dataset.documents for source in context.sources)

    def read(self, source: Source) -> None:
        """Read one source to its end, or to the limit."""
        source = replace(source, id_aliases=self._config.id_aliases)
        aliases = read_aliases(source, partial(self._reject, source))
        parse = partial(_parse, source.label, self._config, aliases)
        self._notes.clear()
        records = source.records()
        first = list(islice(records, min(_PEEK, self._config.limit or _PEEK)))
        if not first:
            raise SourceError(f"{source.location} holds no row")
        check_kind(source, first[:_FIRST])
        rows = chain(first, records)
        kept, sent = tee(iter(lambda: list(islice(rows, _PART)), []))
        taken = 0
        for part, parsed in zip(kept, self._context.executor(len(first)).map(parse, sent), strict=True):
            taken += self._take(source, part, parsed, taken)
            if taken == self._config.limit:
                break
        self._tell(source, taken)

    def _take(self, source: Source, records: list[Record], parsed: _Parsed, before: int) -> int:
        """Write what parsed rows hold, up to the limit of questions. Return the number of questions."""
        places = {passage_id: at for at, passage_id in enumerate(parsed.paragraphs.table["passage_id"].to_pylist())}
        questions: list[int] = []
        paragraphs: list[int] = []
        origins: list[int] = []
        place = 0  # of the next question in its table
        dataset = source.dataset
        for record, outcome in zip(records, parsed.outcomes, strict=True):
            if before + len(questions) == self._config.limit:
                break
            reason = outcome.reason or self._clash(outcome.question_id or "")
            if reason:
                if outcome.lacks_gold:
                    self._notes[_NO_GOLD] += 1
                self._reject(source, record, reason, counts=not outcome.lacks_gold)
            else:
                self._context.accept(source.label)
                new = [passage_id for passage_id in outcome.passage_ids if passage_id not in self._paragraphs]
                self._paragraphs.update(new)
                paragraphs += [places[passage_id] for passage_id in new]
                if dataset.documents:
                    mined = [passage_id for passage_id in outcome.passage_ids if passage_id not in self._origins]
                    self._origins.update(mined)
                    origins += [places[passage_id] for passage_id in mined]
                if outcome.question_id is not None:
                    self._questions.add(outcome.question_id)
                    questions.append(place)
                    told = {dataset.notes.get(note.partition(":")[0]) for note in outcome.notes}
                    self._notes.update(note for note in told if note)
            place += outcome.question_id is not None
        self._context.writer(LOADED).extend(_taken(parsed.questions, questions))
        self._context.writer(PARAGRAPHS).extend(_taken(parsed.paragraphs, paragraphs))
        self._context.writer(ORIGINS).extend(_taken(parsed.origins, origins))
        return len(questions)

    def _clash(self, question_id: str) -> str:
        """Return why a question cannot have this id; empty if it can."""
        if question_id in self._questions:
            return f"duplicate id {question_id}"
        if self._composes and question_id.startswith(f"{CORPUS}__"):
            return f"the id {question_id} is like those that compose gives to questions of the corpus"
        return ""

    def _reject(self, source: Source, record: Record, reason: str, *, counts: bool = False) -> None:
        self._context.reject(source.label, record.position, _id_of(record), reason, record.data, counts=counts)

    def _tell(self, source: Source, taken: int) -> None:
        """Print the notes on a source's questions. Raises SourceError where none has all its gold paragraphs."""
        elsewhere, hint = source.dataset.gold_elsewhere
        for note, count in self._notes.items():
            more = f"; {elsewhere}" if note == _NO_GOLD and elsewhere else ""
            self._context.meter.tell(f"{source.label}: {count:,} {note}{more}")
        if self._notes[_NO_GOLD] and not taken:
            raise SourceError(f"{source.location}: no question comes with all its gold paragraphs", hint)


def load(context: StageContext) -> None:
    """Read every source, row by row; what cannot be used becomes a reject."""
    loader = _Loader(context)
    for source in context.sources:
        loader.read(source)


STAGE = Stage(
    name="load",
    doc="read the sources, check every row, reject bad ones",
    reads=(),
    writes=(LOADED, PARAGRAPHS, ORIGINS),
    config=LoadConfig,
    run=load,
    needs=Needs.SOURCES,
)


def _check_question(question: Question, paragraphs: list[Paragraph], config: LoadConfig) -> None:
    for name in ("question_id", "question", "answer"):
        if not getattr(question, name).strip():
            raise RowRejected(f"{name} is empty")
    for name, text in _texts(question):
        _check_text(name, text)
    for number, step in enumerate(question.decomposition, start=1):
        if not (step.answer.strip() and all(part.strip() for part in step.text.split(">>"))):
            raise RowRejected(f"step {number}: the sub-question or its answer is empty")
    if config.answer_in_paragraph and question.answerable:
        _check_answer(question, paragraphs)


def _check_answer(question: Question, paragraphs: list[Paragraph]) -> None:
    answers = (question.answer, *question.answer_aliases)
    if question.answer.lower() in ("yes", "no"):
        return
    likely_first: list[Paragraph | SupportingParagraph] = [*reversed(question.supporting), *paragraphs]
    if not any(mentions(f"{p.title} {p.text}", answer) for p in likely_first for answer in answers):
        raise RowRejected("the answer occurs in none of the paragraphs")


def _texts(question: Question) -> Iterator[tuple[str, str]]:
    """Yield all texts of a question except its paragraphs, each with the name of its column."""
    for name in ("question_id", "question", "answer", "question_type", "level", "answer_id"):
        yield name, getattr(question, name)
    yield from (("answer_aliases", alias) for alias in question.answer_aliases)
    yield from (("decomposition", step.text + step.answer) for step in question.decomposition)
    yield from (("evidences", "".join(triple.model_dump().values())) for triple in question.evidences)
    yield from (("queries", query) for paragraph in question.supporting for query in paragraph.queries)


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        raise RowRejected(f"{name} holds a NUL byte")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowRejected(f"{name} holds a lone surrogate, which is no text") from None


def _taken(rows: Sent, places: list[int]) -> pa.Table:
    return rows.table.take(pa.array(places, pa.int64()))


def _origin(label: str, record: Record, passage_id: str, part: int) -> Origin:
    document = identity_of(record.fields) or ""
    return Origin(passage_id=passage_id, source=label, position=record.position, document=document, part=part)


def _id_of(record: Record) -> str | None:
    """Return the row's id, or None where it has none."""
    identifier = record.fields.get("_id", record.fields.get("id"))
    return identifier if isinstance(identifier, str) else None
