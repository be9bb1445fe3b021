"""Stages that work question by question: row in → rows out.

All tables keep the order of `questions`. So a question's rows in several tables are found by reading
these tables in parallel, a few rows at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

from stepsearch_data.core.errors import RowRejected, StoreError
from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.schemas.rows import Question, Row
from stepsearch_data.schemas.tables import QUESTIONS, Inputs, Table

R = TypeVar("R", bound=Row)
T = TypeVar("T")
U = TypeVar("U")

_IN_FLIGHT = 64
_AHEAD = 16


@dataclass(frozen=True)
class QuestionRows:
    """A question and its rows of the other tables that are read: `rows[SUB_QUESTIONS]`."""

    question: Question
    _of: Mapping[Table[Any], list[Any]] = field(default_factory=dict)

    def __getitem__(self, table: Table[R]) -> list[R]:
        """Return its rows of a table. Raises KeyError for a table that is not read."""
        return self._of[table]

    def get(self, table: Table[R]) -> list[R]:
        """Return its rows of a table, or no rows of a table that is not read."""
        return self._of.get(table, [])


def by_question(inputs: Inputs, *tables: Table[Any]) -> Iterator[QuestionRows]:
    """Yield every question with its rows of `tables`, in order. `inputs` are the files of these tables."""
    readers = {table: _ByQuestion(read_rows(inputs[table], table)) for table in tables}
    for question in read_rows(inputs[QUESTIONS], QUESTIONS):
        yield QuestionRows(question, {table: reader.take(question.question_id) for table, reader in readers.items()})
    left = [table.name for table, reader in readers.items() if reader.left]
    if left:
        raise StoreError(f"{', '.join(left)} does not follow the order of the questions", "build anew, with --force")


def for_each_question(
    context: StageContext,
    function: Callable[[QuestionRows], Awaitable[list[Any]]],
    *tables: Table[Any],
) -> None:
    """Call the function for every question, many at a time, and write its rows in the questions' order.

    Each row goes to the output table that holds rows of its type. A question for which it raises
    RowRejected lands in `rejects`.
    """
    context.meter.expect(context.count(QUESTIONS))
    asyncio.run(_run(context, function, tables))


async def _run(
    context: StageContext, function: Callable[[QuestionRows], Awaitable[list[Any]]], tables: Sequence[Table[Any]]
) -> None:
    in_flight = context.model.settings.max_concurrency if context.model else _IN_FLIGHT

    def everyone(work: Callable[[QuestionRows], Awaitable[U]]) -> AsyncIterator[U]:
        return ordered(work, by_question(context.inputs, *tables), in_flight)

    try:
        if context.model and context.model.settings.mode == "batch":
            from stepsearch_data.llm.batch import Batches

            await Batches(context.model, context.meter.say).fill(function, everyone)
        async for rows, result in everyone(partial(_attempt, function)):
            if context.model:
                context.meter.note(context.model.describe)
            _settle(context, rows.question, result)
    finally:
        if context.model:
            await context.model.close()


async def _attempt(
    function: Callable[[QuestionRows], Awaitable[list[Any]]], rows: QuestionRows
) -> tuple[QuestionRows, list[Row] | RowRejected]:
    try:
        return rows, await function(rows)
    except RowRejected as reason:
        return rows, reason


def _settle(context: StageContext, question: Question, result: list[Row] | RowRejected) -> None:
    """Write the rows of a question, or the reason why there are none."""
    if isinstance(result, RowRejected):
        replies = f" (after {result.attempts} {'reply' if result.attempts == 1 else 'replies'})"
        reason = f"{result}{replies}" if result.attempts else str(result)
        raw = result.raw or question.question
        context.reject(question.source, question.position, question.question_id, reason, raw)
        return
    context.accept(question.source)
    for row in result:
        context.writer_of(row).append(row)


async def ordered(
    function: Callable[[T], Awaitable[U]], items: Iterable[T], in_flight: int = _IN_FLIGHT
) -> AsyncIterator[U]:
    """Yield the results in the order of the items.

    `in_flight` workers take the next item as soon as they are free, so a slow item delays no other.
    At most sixteen times as many results wait for an earlier one.
    """
    pending = enumerate(items)
    finished: dict[int, asyncio.Future[U]] = {}
    room = asyncio.Semaphore(_AHEAD * in_flight)
    news = asyncio.Event()

    async def work() -> None:
        while True:
            await room.acquire()
            entry = next(pending, None)
            if entry is None:
                room.release()
                return
            place, item = entry
            finished[place] = await _outcome(function, item)
            news.set()

    workers = [asyncio.create_task(work()) for _ in range(in_flight)]
    everyone = asyncio.gather(*workers)
    everyone.add_done_callback(lambda _: news.set())
    place = 0
    try:
        while True:
            while place in finished:
                yield finished.pop(place).result()
                place += 1
                room.release()
            if everyone.done() and not finished:
                await everyone  # raises an error of the items' iterator
                return
            await news.wait()
            news.clear()
    finally:
        everyone.cancel()
        await asyncio.gather(everyone, return_exceptions=True)


async def _outcome(function: Callable[[T], Awaitable[U]], item: T) -> asyncio.Future[U]:
    """Return the result or the exception of one call, to be raised in its turn."""
    outcome: asyncio.Future[U] = asyncio.get_running_loop().create_future()
    try:
        outcome.set_result(await function(item))
    except Exception as error:  # noqa: BLE001 - raised again by result()
        outcome.set_exception(error)
        outcome.exception()  # marks it as retrieved, as the build may stop before its turn
    return outcome


class _ByQuestion:
    """Reads a table's rows question by question. Questions may have no rows."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._groups = groupby(rows, key=lambda row: row.question_id)
        self._next: tuple[str, Iterator[Any]] | None = next(self._groups, None)

    @property
    def left(self) -> bool:
        """Tell whether rows remain."""
        return self._next is not None

    def take(self, question_id: str) -> list[Any]:
        if self._next is None or self._next[0] != question_id:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows
