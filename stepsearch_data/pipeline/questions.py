"""Stages that work question by question: row in → rows out.

All tables keep the order of `questions`. So a question's rows in several tables are found by reading
these tables in parallel, a range of questions at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.core.arrow import Sent, filtered
from stepsearch_data.core.errors import RowRejected, StoreError
from stepsearch_data.core.lazy import Lazy
from stepsearch_data.core.ordered import IN_FLIGHT, ordered
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.schemas.rows import Question, Row
from stepsearch_data.schemas.tables import QUESTIONS, VERDICTS, Inputs, Rows, Table

if TYPE_CHECKING:
    import pyarrow.compute as pc
else:
    pc = Lazy("pyarrow.compute")

R = TypeVar("R", bound=Row)
U = TypeVar("U")


class Asked(Protocol):
    """What a function is called with: a question, and what is known about it."""

    @property
    def question(self) -> Question:
        """Return the question."""


Q = TypeVar("Q", bound=Asked)

_RANGE = 250  # questions that are sent to a worker at once
_READ_ROWS = 2_000


class QuestionRows:
    """A question and its rows of the other tables that are read: `rows[SUB_QUESTIONS]`."""

    def __init__(self, question: Question, of: Mapping[Table[Any], Sequence[Any]] = {}) -> None:
        self.question = question
        self._of = of
        self._made: dict[Table[Any], list[Any]] = {}

    def __getitem__(self, table: Table[R]) -> list[R]:
        """Return its rows of a table. Raises KeyError for a table that is not read."""
        if table not in self._made:
            self._made[table] = list(self._of[table])
        return self._made[table]

    def get(self, table: Table[R]) -> list[R]:
        """Return its rows of a table, or no rows of a table that is not read."""
        return self[table] if table in self._of else []

    def where(self, table: Table[R], column: str, value: object) -> list[R]:
        """Return its rows of a table with this value in a column: faster than making all where few have it."""
        rows = self._of[table]
        return rows.where(column, value) if isinstance(rows, Rows) else [r for r in rows if getattr(r, column) == value]


def by_question(
    inputs: Inputs, *tables: Table[Any], base: Sequence[Table[Any]] = (QUESTIONS,)
) -> Iterator[QuestionRows]:
    """Yield every question with its rows of `tables`, in order. `inputs` are the files of these tables.

    Here and below, `base` are the tables that hold the questions, one after the other.
    """
    for part in _ranges(inputs, base, tables):
        yield from _questions(part, base, tables)


def for_each_question(
    context: StageContext,
    function: Callable[[QuestionRows], Iterable[Row]],
    *tables: Table[Any],
    base: Sequence[Table[Any]] = (QUESTIONS,),
) -> None:
    """Call the function for every question, in workers where there are many, and write its rows in order.

    Each row goes to the output table that holds rows of its type. A question for which it raises
    RowRejected lands in `rejects`. The function and what it holds are pickled.
    """
    for rows, outcomes in _mapped(context, partial(_written, function, base, tables, context.tables), base, tables):
        for table in context.tables:
            context.writer(table).extend(rows[table.name].table)
        for outcome in outcomes:
            _settle(context, outcome)


def map_questions(
    context: StageContext,
    function: Callable[[QuestionRows], U],
    *tables: Table[Any],
    base: Sequence[Table[Any]] = (QUESTIONS,),
) -> Iterator[U]:
    """Yield what the function returns for every question, in order, called in workers where there are many.

    The function and what it holds are pickled, and so are the results.
    """
    for results in _mapped(context, partial(_returned, function, base, tables), base, tables):
        yield from results


def ask_for_each_question(
    context: StageContext,
    function: Callable[[QuestionRows], Awaitable[list[Any]]],
    *tables: Table[Any],
    base: Sequence[Table[Any]] = (QUESTIONS,),
) -> None:
    """Do what `for_each_question` does with a function that asks a model: many questions wait at a time."""
    questions = partial(by_question, context.inputs, *tables, base=base)
    ask_for_each(context, function, questions, sum(map(context.count, base)))


def ask_for_each(
    context: StageContext,
    function: Callable[[Q], Awaitable[list[Any]]],
    questions: Callable[[], Iterable[Q]],
    count: int,
    finish: Callable[[Any], Row] = lambda row: row,
) -> None:
    """Call a function that asks a model for each of these, and write its rows in their order.

    `questions` may be called several times. `finish` is called with each row before it is written, in order.
    """
    context.meter.expect(count)
    asyncio.run(_ask(context, function, questions, finish))


async def _ask(
    context: StageContext,
    function: Callable[[Q], Awaitable[list[Any]]],
    questions: Callable[[], Iterable[Q]],
    finish: Callable[[Any], Row],
) -> None:
    in_flight = context.model.settings.max_concurrency if context.model else IN_FLIGHT

    def everyone(work: Callable[[Q], Awaitable[U]]) -> AsyncIterator[U]:
        return ordered(work, iter(questions()), in_flight)

    try:
        if context.model and context.model.settings.mode == "batch":
            from stepsearch_data.llm.batch import Batches

            await Batches(context.model, context.meter.say).fill(function, everyone)
        async for outcome, rows in everyone(partial(_attempt, function)):
            if context.model:
                context.meter.note(context.model.describe)
            _settle(context, outcome)
            for row in map(finish, rows):
                context.writer_of(row).append(row)
    finally:
        if context.model:
            await context.model.close()


async def _attempt(function: Callable[[Q], Awaitable[list[Any]]], asked: Q) -> tuple[_Outcome, list[Any]]:
    try:
        return (asked.question.source, None), await function(asked)
    except RowRejected as error:
        return _rejected(asked.question, error), []


_Outcome = tuple[str, tuple[int, str, str, str] | None]
"""What became of a question: its source, and where it was rejected the other arguments of `StageContext.reject`."""


def _rejected(question: Question, error: RowRejected) -> _Outcome:
    replies = f" (after {error.attempts} {'reply' if error.attempts == 1 else 'replies'})" if error.attempts else ""
    raw = error.raw or question.question
    return question.source, (question.position, question.question_id, f"{error}{replies}", raw)


def _settle(context: StageContext, outcome: _Outcome) -> None:
    """Count a question, and write the reason why it was rejected."""
    source, rejected = outcome
    if rejected:
        context.reject(source, *rejected)
    else:
        context.accept(source)


_Range = dict[str, Sent]
"""The rows of consecutive questions, by the name of their table."""


def _mapped(
    context: StageContext, work: Callable[[_Range], U], base: Sequence[Table[Any]], tables: Sequence[Table[Any]]
) -> Iterator[U]:
    """Yield what the work makes of each range of questions."""
    questions = sum(map(context.count, base))
    context.meter.expect(questions)
    return context.executor(questions).map(work, _ranges(context.inputs, base, tables))


def _written(
    function: Callable[[QuestionRows], Iterable[Row]],
    base: Sequence[Table[Any]],
    tables: Sequence[Table[Any]],
    writes: Sequence[Table[Any]],
    part: _Range,
) -> tuple[_Range, list[_Outcome]]:
    """Return the rows that a range of questions adds to each table, and what became of each question."""
    rows: dict[type[Row], list[Row]] = {table.row: [] for table in writes}
    outcomes: list[_Outcome] = []
    for of_question in _questions(part, base, tables):
        try:
            made = function(of_question)
        except RowRejected as error:
            outcomes.append(_rejected(of_question.question, error))
        else:
            outcomes.append((of_question.question.source, None))
            for row in made:
                rows[type(row)].append(row)
    return {table.name: Sent(table.to_arrow(rows[table.row])) for table in writes}, outcomes


def _returned(
    function: Callable[[QuestionRows], U], base: Sequence[Table[Any]], tables: Sequence[Table[Any]], part: _Range
) -> list[U]:
    return [function(rows) for rows in _questions(part, base, tables)]


def _questions(part: _Range, base: Sequence[Table[Any]], tables: Sequence[Table[Any]]) -> Iterator[QuestionRows]:
    """Yield the questions of a range with their rows."""
    groups = {table: _grouped(table.rows(part[table.name].table)) for table in tables}
    (held,) = (table for table in base if table.name in part)
    for question in held.rows(part[held.name].table):
        yield QuestionRows(question, {table: of.pop(question.question_id, ()) for table, of in groups.items()})


def _grouped(rows: Rows[Any]) -> dict[str, Rows[Any]]:
    """Return the rows of each question."""
    groups, start = {}, 0
    for question_id, group in groupby(rows.column("question_id")):
        end = start + sum(1 for _ in group)
        groups[question_id] = rows[start:end]
        start = end
    return groups


def _ranges(inputs: Inputs, base: Sequence[Table[Any]], tables: Sequence[Table[Any]]) -> Iterator[_Range]:
    """Yield all rows of these tables by ranges of questions. Raises StoreError where their orders differ."""
    with ExitStack() as stack:
        files = {table.name: stack.enter_context(pq.ParquetFile(inputs[table])) for table in (*base, *tables)}
        readers = {
            table.name: _ByQuestion(_batches(files[table.name], table, base, inputs), files[table.name].schema_arrow)
            for table in tables
        }
        batches = ((table.name, batch) for table in base for batch in files[table.name].iter_batches(_RANGE))
        for name, batch in batches:
            ids = batch.column("question_id").to_pylist()
            rows = {other: Sent(reader.take(ids)) for other, reader in readers.items()}
            yield {**rows, name: Sent(pa.Table.from_batches([batch]))}
        left = [name for name, reader in readers.items() if reader.next]
    if left:
        raise StoreError(f"{', '.join(left)} does not follow the order of the questions", "build it again with --force")


def _batches(
    file: pq.ParquetFile, table: Table[Any], base: Sequence[Table[Any]], inputs: Inputs
) -> Iterator[pa.RecordBatch]:
    """Yield a table's rows; of verdicts those on the questions that `gather` took, where those are asked for."""
    batches = file.iter_batches(batch_size=_READ_ROWS)
    if table is not VERDICTS or tuple(base) != (QUESTIONS,):
        yield from batches
        return
    taken = pq.read_table(inputs[QUESTIONS], columns=["question_id"])["question_id"]
    known = pc.is_in(file.read(columns=["question_id"])["question_id"].combine_chunks(), value_set=taken)
    yield from filtered(batches, known)


class _ByQuestion:
    """Reads a table's rows by ranges of questions. Questions may have no rows."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        self._batches = batches
        self._rows = schema.empty_table()
        self._runs: deque[list[Any]] = deque()  # each question that rows are of, and their number

    @property
    def next(self) -> str | None:
        """Return the question that the next rows are of, or None after the last row."""
        while len(self._runs) <= 1 and (batch := next(self._batches, None)) is not None:  # the next may go on with it
            self._rows = pa.concat_tables([self._rows, pa.Table.from_batches([batch])])
            runs = pc.run_end_encode(batch.column("question_id"))
            ends = runs.run_ends.to_pylist()
            for question_id, start, end in zip(runs.values.to_pylist(), [0, *ends], ends, strict=False):
                if self._runs and self._runs[-1][0] == question_id:
                    self._runs[-1][1] += end - start
                else:
                    self._runs.append([question_id, end - start])
        return self._runs[0][0] if self._runs else None

    def take(self, question_ids: Iterable[str]) -> pa.Table:
        """Return the next rows, as far as they are of these questions in this order."""
        count = sum(self._runs.popleft()[1] for question_id in question_ids if self.next == question_id)
        taken, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        return taken
