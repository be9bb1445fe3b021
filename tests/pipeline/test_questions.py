"""Stages that work question by question keep the order, and reject bad questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import RowRejected, StoreError
from stepsearch_data.executors import INLINE
from stepsearch_data.executors.processes import Processes
from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.pipeline.questions import (
    QuestionRows,
    ask_for_each_question,
    by_question,
    for_each_question,
    map_questions,
)
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.schemas.rows import Question, SubQuestion
from stepsearch_data.schemas.tables import LOADED, QUERIES, QUESTIONS, REJECTS, SUB_QUESTIONS, VERDICTS, Table
from tests.builders import query, question, sub_question, verdict
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


def test_questions_may_be_those_of_several_tables(tmp_path: Path) -> None:
    inputs = {
        LOADED: write(tmp_path, LOADED, [question("q1"), question("q2")]),
        QUESTIONS: write(tmp_path, QUESTIONS, [question("q3")]),
        QUERIES: write(tmp_path, QUERIES, [query(question_id=name) for name in ("q2", "q3")]),
    }
    found = by_question(inputs, QUERIES, base=(LOADED, QUESTIONS))
    assert [(rows.question.question_id, len(rows[QUERIES])) for rows in found] == [("q1", 0), ("q2", 1), ("q3", 1)]


def test_verdicts_on_questions_that_were_not_taken_are_no_rows_of_others(tmp_path: Path) -> None:
    names = [f"q{number}" for number in range(5_000)]
    taken = [name for name in names if not name.endswith("7")]
    inputs = {
        QUESTIONS: write(tmp_path, QUESTIONS, [question(name) for name in taken]),
        VERDICTS: write(tmp_path, VERDICTS, [verdict(question_id=name) for name in names]),
    }
    found = [
        (rows.question.question_id, [of.question_id for of in rows[VERDICTS]]) for rows in by_question(inputs, VERDICTS)
    ]
    assert found == [(name, [name]) for name in taken]


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


def rows_of(rows: QuestionRows) -> list[Any]:
    name = rows.question.question_id
    if name == "q2":
        raise RowRejected("no way")
    return [query(question_id=name), sub_question(question_id=name)]


async def later(rows: QuestionRows) -> list[Any]:
    await asyncio.sleep(0.01 if rows.question.question_id == "q1" else 0)
    return rows_of(rows)


RUNS: list[Callable[[StageContext], None]] = [
    lambda context: for_each_question(context, rows_of),
    lambda context: ask_for_each_question(context, later),
]


@pytest.mark.parametrize("run", RUNS, ids=["worked out", "asked"])
def test_rows_go_to_the_table_of_their_type_and_rejected_questions_to_rejects(
    run: Callable[[StageContext], None], tmp_path: Path
) -> None:
    stage = Stage("ask", "", (QUESTIONS,), (QUERIES, SUB_QUESTIONS), Plain, run)
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


def number_of(rows: QuestionRows) -> tuple[str, int]:
    return rows.question.question_id, len(rows[SUB_QUESTIONS])


def odd_ones_rejected(rows: QuestionRows) -> list[Any]:
    if rows.question.position % 7 == 0:
        raise RowRejected(f"{rows.question.position} is no good", raw="raw")
    return [query(n=n, question_id=rows.question.question_id) for n in range(1, 1 + rows.question.position % 3)]


def test_workers_write_the_same_bytes_as_this_process(tmp_path: Path) -> None:
    """Ranges of questions end in the middle of what the writer holds back, and some questions have no rows."""
    questions = [question(f"q{n}", position=n, answer_aliases=["x"] * (n % 2)) for n in range(1_300)]
    hops = [sub_question(hop, question_id=f"q{n}") for n in range(0, 1_300, 3) for hop in range(1, 2 + n % 4)]
    inputs = {QUESTIONS: write(tmp_path, QUESTIONS, questions), SUB_QUESTIONS: write(tmp_path, SUB_QUESTIONS, hops)}
    written = []
    for executor in (INLINE, Processes(2)):
        folder = tmp_path / type(executor).__name__
        folder.mkdir()
        context = StageContext("s", (QUERIES,), Plain(), inputs, folder, executor=executor, max_reject_share=0.5)
        for_each_question(context, odd_ones_rejected, SUB_QUESTIONS)
        counted = list(map_questions(context, number_of, SUB_QUESTIONS))
        assert counted == [(f"q{n}", 1 + n % 4 if n % 3 == 0 else 0) for n in range(1_300)]
        assert context.finish()["rejects"] == 186
        written.append([(folder / f"{name}.parquet").read_bytes() for name in ("queries", "rejects")])
    assert written[0] == written[1]
