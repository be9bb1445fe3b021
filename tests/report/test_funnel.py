"""The funnel: every step, what was lost after it, and the lists that its counts lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.shapes import Step, Summary
from tests.report.shown import build_rows, listed, opened, question_row, summary_of

UNITS = {"hops": "hops", "queries": "queries", "kept": "queries", "voted out": "queries"}


@pytest.fixture(scope="module")
def summary(rich: Store) -> Summary:
    return summary_of(rich)


def steps(found: Summary) -> dict[str, Step]:
    return {step["name"]: step for step in found["funnel"]}


def lost(step: Step) -> int:
    return sum(reason["count"] for reason in step["lost"])


def test_what_is_lost_is_the_difference_to_the_next_step(summary: Summary) -> None:
    found = steps(summary)
    assert [*found] == ["read", "questions", "hops", "queries", "kept", "trajectories", "passed"]
    for step, following in (("read", "questions"), ("queries", "kept"), ("trajectories", "passed")):
        assert found[step]["count"] - lost(found[step]) == found[following]["count"]
    assert found["questions"]["count"] == found["trajectories"]["count"] + lost(found["kept"])


def test_rejects_are_told_with_their_reasons(hostile: Store) -> None:
    found = steps(summary_of(hostile))
    assert (found["read"]["count"], found["questions"]["count"]) == (2, 1)
    (reason,) = found["read"]["lost"]
    assert (reason["name"], reason["count"], reason["note"]) == (
        "load",
        1,
        "the answer occurs in none of the paragraphs",
    )


def test_reasons_that_differ_in_names_and_numbers_are_one(tmp_path: Path) -> None:
    rows = [question_row(f"q{number}") for number in range(30)]
    store = build_rows(tmp_path, rows + rows, "--set", "run.max_reject_share=1", "--to", "load")
    (reason,) = steps(summary_of(store))["read"]["lost"]
    assert (reason["count"], reason["note"]) == (30, "duplicate id q…")


def test_unanswerable_questions_that_are_left_out_are_told(sample: Store) -> None:
    (reason,) = steps(summary_of(sample))["questions"]["lost"]
    assert (reason["name"], reason["count"]) == ("unanswerable", 4)


def test_questions_hops_and_queries_each_have_their_own_whole(summary: Summary) -> None:
    found = steps(summary)
    of_rows = ("read", "questions", "trajectories", "passed")
    assert {found[name]["whole"] for name in of_rows} == {found["read"]["count"]}
    assert found["hops"]["whole"] == found["hops"]["count"]
    assert {found[name]["whole"] for name in ("queries", "kept")} == {found["queries"]["count"]}


def test_every_count_leads_to_a_list_of_that_length(rich: Store, summary: Summary) -> None:
    counted = [each for step in summary["funnel"] for each in (step, *step["lost"]) if each["link"]]
    names = [each["name"] for each in counted]
    assert names[:5] == ["questions", "hops", "queries", "voted out", "kept"]
    assert names[5:] == ["trajectories", "gold_not_found", "passed"]
    with opened(rich) as connection:
        for each in counted:
            found = listed(connection, each["link"] or "")
            assert found[UNITS.get(each["name"], "trajectories")] == each["count"], each


def test_questions_lead_nowhere_where_some_have_no_trajectory(sample: Store) -> None:
    found = steps(summary_of(sample))
    assert found["questions"]["count"] == found["trajectories"]["count"] + 4
    assert found["questions"]["link"] is None
