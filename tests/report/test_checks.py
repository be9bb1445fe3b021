"""What checks found, as tables of the report: shares with their intervals, and examples that lead to trajectories."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.audit import audit
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.shapes import Facts
from stepsearch_data.sql import query
from tests.report.shown import summary_of, told


@pytest.fixture(scope="module")
def tables(harvest: Path) -> list[Facts]:
    return summary_of(Store.open(harvest))["checked"]


def test_shares_are_those_of_the_audit(harvest: Path, tables: list[Facts]) -> None:
    measured = audit(Store.open(harvest))["by_check"]
    shares = tables[0]
    assert [f"{source} {check}" for source, check, *_ in shares["rows"]] == [*measured]
    assert told(shares, "failed") == [of["failed"] for of in measured.values()]
    kinds = dict(zip(told(shares, "check"), told(shares, "kind"), strict=True))
    assert (kinds["closed_book"], kinds["one_search"]) == ("gate", "hint")
    assert set(told(shares, "passages of the corpus")) == {168}


def test_up_to_three_questions_show_what_each_check_finds(harvest: Path, tables: list[Facts]) -> None:
    examples = tables[1]
    assert told(examples, "check") == [*["composed"] * 3, *["closed_book"] * 3, *["left_one_out"] * 3]
    for row in examples["rows"]:
        shown = dict(zip(examples["columns"], row, strict=True))
        assert shown["question"]
        assert shown["because"]
        if shown["check"] == "left_one_out":
            assert (shown["the judge's answer"], shown["judged by"]) == (shown["answer"], "mock")
            assert str(shown["answer"]) in str(shown["quoted"])
    sql = "SELECT question FROM composed JOIN verdicts USING (question_id) WHERE list_contains(failed, 'closed_book')"
    with query(Store.open(harvest), sql) as found:
        failed = set(found.read_all()[0].to_pylist())
    assert set(told(examples, "question")[3:6]) <= failed


def test_a_store_that_neither_documents_nor_a_model_had_a_part_in_shows_none(sample: Store) -> None:
    assert summary_of(sample)["checked"] == []
