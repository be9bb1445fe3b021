"""Stages that work question by question keep the order, bound what is in flight, and put bad questions aside."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import RowRejected, StoreError
from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.pipeline.questions import QuestionRows, by_question, for_each_question, ordered
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.schemas.rows import Question, SubQuestion
from stepsearch_data.schemas.tables import QUERIES, QUESTIONS, REJECTS, SUB_QUESTIONS, Table
from tests.builders import query, question, sub_question
from tests.pipeline.tiny import Plain


def write(folder: Path, table: Table[Any], rows: list[Any]) -> Path:
    path = folder / f"{table.name}.parquet"
    pq.write_table(table.to_arrow(rows), path)
    return path


def merged(folder: Path, queries: list[str]) -> list[tuple[str, list[int], list[str]]]:
    """Questions q1, q2, q3 with two hops of q1 and q3 each, and one query of each question in `queries`."""
    inputs = {
        QUESTIONS: write(folder, QUESTIONS, [question(name) for name in ("q1", "q2", "q3")]),
        SUB_QUESTIONS: write(
            folder, SUB_QUESTIONS, [sub_question(hop, question_id=name) for name in ("q1", "q3") for hop in (1, 2)]
        ),
        QUERIES: write(folder, QUERIES, [query(question_id=name) for name in queries]),
    }
    return [
        (
            rows.question.question_id,
            [row.hop for row in rows[SUB_QUESTIONS]],
            [row.query_id for row in rows[QUERIES]],
        )
        for rows in by_question(inputs, SUB_QUESTIONS, QUERIES)
    ]


def test_the_type_of_a_question_s_rows_is_that_of_the_table() -> None:
    rows = QuestionRows(question(), {SUB_QUESTIONS: [sub_question()]})
    assert_type(rows[SUB_QUESTIONS], list[SubQuestion])
    assert rows.get(QUERIES) == []
    with pytest.raises(KeyError):
        rows[QUERIES]


def test_a_question_meets_its_rows_of_other_tables(tmp_path: Path) -> None:
    assert merged(tmp_path, ["q2", "q3", "q3"]) == [
        ("q1", [1, 2], []),
        ("q2", [], ["q2/1/1"]),
        ("q3", [1, 2], ["q3/1/1", "q3/1/1"]),
    ]


@pytest.mark.parametrize("queries", [["q2", "q1"], ["q1", "q2", "q1"], ["q9"]])
def test_a_table_out_of_order_is_noticed(tmp_path: Path, queries: list[str]) -> None:
    with pytest.raises(StoreError, match="does not follow the order"):
        merged(tmp_path, queries)


def run_ordered(delays: list[float], in_flight: int) -> tuple[list[int], int]:
    """Results of calls that take these seconds, and how many ever ran at once."""
    running = most = 0

    async def work(at: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(delays[at])
        running -= 1
        return at

    async def main() -> list[int]:
        return [result async for result in ordered(work, range(len(delays)), in_flight)]

    return asyncio.run(main()), most


def test_results_keep_the_order_of_the_items() -> None:
    results, _ = run_ordered([0.02, 0.01, 0, 0.015, 0], in_flight=5)
    assert results == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_bounded_number_is_in_flight(in_flight: int) -> None:
    results, most = run_ordered([0.001] * 20, in_flight)
    assert results == list(range(20))
    assert most == in_flight


def test_items_are_not_taken_far_ahead_of_an_unused_result(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for item in range(10**9):
            taken.append(item)
            yield item

    async def slow_first(item: int) -> int:
        await asyncio.sleep(0.05 if item == 0 else 0)
        return item

    async def first() -> int:
        results = ordered(slow_first, endless(), 4)
        try:
            return await anext(results)
        finally:
            await results.aclose()  # type: ignore[attr-defined]  # an async generator, as AsyncIterator says not

    assert asyncio.run(first()) == 0
    assert len(taken) < 100
    gc.collect()
    assert caplog.records == []


def test_a_fault_of_the_items_is_raised_after_what_precedes_it() -> None:
    def two_and_a_fault() -> Iterator[int]:
        yield from (0, 1)
        raise ZeroDivisionError

    async def work(item: int) -> int:
        return item

    async def main(seen: list[int]) -> None:
        async for result in ordered(work, two_and_a_fault(), 3):
            seen.append(result)  # noqa: PERF401 - a comprehension would lose them with the fault

    seen: list[int] = []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(main(seen))
    assert seen == [0, 1]


def test_the_first_failure_ends_all_and_the_others_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(item: int) -> None:
        raise ValueError(item)

    async def main() -> None:
        async for _ in ordered(fail, range(100), 10):
            pass

    with pytest.raises(ValueError, match=r"^0$"):
        asyncio.run(main())
    gc.collect()
    assert caplog.records == []


def test_rows_go_to_the_table_of_their_type_and_rejected_questions_to_rejects(tmp_path: Path) -> None:
    async def ask(rows: QuestionRows) -> list[Any]:
        name = rows.question.question_id
        if name == "q2":
            raise RowRejected("no way")
        await asyncio.sleep(0.01 if name == "q1" else 0)
        return [query(question_id=name), sub_question(question_id=name)]

    stage = Stage(
        "ask", "", (QUESTIONS,), (QUERIES, SUB_QUESTIONS), Plain, lambda context: for_each_question(context, ask)
    )
    questions: list[Question] = [question(f"q{n}", position=n) for n in (1, 2, 3)]
    (tmp_path / "out").mkdir()
    inputs = {QUESTIONS: write(tmp_path, QUESTIONS, questions)}
    context = StageContext(stage.name, stage.writes, Plain(), inputs, tmp_path / "out", max_reject_share=0.5)
    stage.run(context)
    assert context.finish() == {"queries": 2, "sub_questions": 2, "rejects": 1}
    outputs: tuple[Table[Any], ...] = (QUERIES, SUB_QUESTIONS, REJECTS)
    written = {t: list(read_rows(tmp_path / "out" / f"{t.name}.parquet", t)) for t in outputs}
    assert [row.question_id for row in written[QUERIES]] == ["q1", "q3"]
    assert [row.question_id for row in written[SUB_QUESTIONS]] == ["q1", "q3"]
    (reject,) = written[REJECTS]
    assert (reject.stage, reject.source, reject.position, reject.question_id) == ("ask", "musique", 2, "q2")
    assert (reject.reason, reject.raw) == ("no way", question().question)
