"""Stages that work question by question: row in → rows out.

All tables keep the order of `questions`, so a question's rows in several tables are found by
reading those tables side by side, a few rows at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.pipeline.errors import RowRejected
from stepsearch_data.schemas.rows import Question, Row
from stepsearch_data.schemas.tables import QUESTIONS, Table

T = TypeVar("T")
U = TypeVar("U")

_IN_FLIGHT = 64


@dataclass(frozen=True)
class Unit:
    """A question and its rows of the other tables that the stage reads, by table name."""

    question: Question
    related: dict[str, list[Any]] = field(default_factory=dict)


def units(inputs: Mapping[str, Path], *tables: Table) -> Iterator[Unit]:
    """Every question with its rows of `tables`, in order; `inputs` are the tables' files by name."""
    readers = {table.name: _ByQuestion(read_rows(inputs[table.name], table)) for table in tables}
    for question in read_rows(inputs[QUESTIONS.name], QUESTIONS):
        yield Unit(question, {name: reader.take(question.question_id) for name, reader in readers.items()})
    assert not any(reader.left for reader in readers.values()), "a table is not in the order of its questions"


def for_each_question(
    context: StageContext,
    function: Callable[[Unit], Awaitable[list[Any]]],
    *tables: Table,
) -> None:
    """Call the function for every question, many at a time, and write its rows in the questions' order.

    Each row goes to the output table that holds rows of its type. A question for which it raises
    RowRejected lands in `rejects`.
    """
    context.meter.expect(context.count(QUESTIONS))

    async def attempt(unit: Unit) -> tuple[Unit, list[Row] | RowRejected]:
        try:
            return unit, await function(unit)
        except RowRejected as reason:
            return unit, reason

    async def run() -> None:
        async for unit, result in ordered(attempt, units(context.inputs, *tables)):
            question = unit.question
            if isinstance(result, RowRejected):
                context.reject(question.source, question.position, question.question_id, str(result), question.question)
                continue
            context.accept(question.source)
            for row in result:
                context.writer_of(row).append(row)

    asyncio.run(run())


async def ordered(
    function: Callable[[T], Awaitable[U]], items: Iterable[T], in_flight: int = _IN_FLIGHT
) -> AsyncIterator[U]:
    """Results in the order of the items, at most `in_flight` of them begun and not yet yielded."""
    running: deque[asyncio.Task[U]] = deque()
    try:
        for item in items:
            running.append(asyncio.ensure_future(function(item)))
            if len(running) >= in_flight:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)  # their errors would be logged when nobody asks


class _ByQuestion:
    """Hands out a table's rows question by question; questions without rows are skipped over."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._groups = groupby(rows, key=lambda row: row.question_id)
        self._next: tuple[str, Iterator[Any]] | None = next(self._groups, None)

    @property
    def left(self) -> bool:
        """Whether rows remain."""
        return self._next is not None

    def take(self, question_id: str) -> list[Any]:
        if self._next is None or self._next[0] != question_id:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows
