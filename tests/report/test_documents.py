"""The funnel from documents to questions: every step, what was lost after it, and the lists that its counts lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.shapes import Step, Summary
from tests.conftest import run_cli
from tests.report.shown import listed, opened, summary_of

MINED = ["documents", "passages", "links", "chains", "drawn"]


@pytest.fixture(scope="module")
def summary(harvest: Path) -> Summary:
    return summary_of(Store.open(harvest))


def steps(found: Summary) -> dict[str, Step]:
    return {step["name"]: step for step in found["documents"]}


def lost(step: Step) -> int:
    return sum(reason["count"] for reason in step["lost"])


def test_what_is_lost_is_the_difference_to_the_next_step(summary: Summary) -> None:
    found = steps(summary)
    assert [*found] == [*MINED, "composed", "passed", "trajectories", "complete", "fit"]
    for step, following in (("drawn", "composed"), ("composed", "passed"), ("passed", "trajectories")):
        assert found[step]["count"] - lost(found[step]) == found[following]["count"]
    assert [reason["name"] for reason in found["composed"]["lost"]] == [
        "closed_book",
        "left_one_out",
        "without a verdict",
    ]


def test_chains_without_a_question_are_told_by_what_was_said_of_them(summary: Summary) -> None:
    reasons = steps(summary)["drawn"]["lost"]
    assert {"faulty", "skipped", "compose"} == {reason["name"] for reason in reasons}
    assert "the question gives away …" in {reason["note"] for reason in reasons}
    (unread,) = (reason for reason in reasons if reason["name"] == "compose")
    assert (unread["link"] or "").startswith("#/r?stage=compose&reason=")


def test_steps_are_told_with_who_wrote_and_what_it_cost(summary: Summary) -> None:
    found = steps(summary)
    assert found["composed"]["note"].startswith("questions written by mock: $0.01 up to here, $0.0")
    assert found["passed"]["note"].startswith("questions that pass their checks: $0.0")
    assert found["passed"]["whole"] == found["drawn"]["count"]


def test_every_count_leads_to_a_list_of_that_length(harvest: Path, summary: Summary) -> None:
    leading = [step for step in summary["documents"] if step["link"]]
    assert [step["name"] for step in leading] == ["trajectories", "complete", "fit"]
    with opened(Store.open(harvest)) as connection:
        for step in leading:
            assert listed(connection, step["link"] or "")["trajectories"] == step["count"]


def test_the_other_funnel_begins_with_the_questions_that_passed(summary: Summary) -> None:
    read, questions, *_ = summary["funnel"]
    assert read["count"] == questions["count"] == steps(summary)["passed"]["count"]
    assert read["note"] == "questions, of documents too"
    assert read["lost"] == []


def test_documents_that_cannot_be_read_are_lost_before_all(tmp_path: Path) -> None:
    rows = '{"title": "Lodi", "text": "Lodi is a town."}\n{"title": "Pavia"}\n'
    (tmp_path / "documents.jsonl").write_text(rows)
    given = ("--source", f"corpus={tmp_path / 'documents.jsonl'}", "--set", "run.max_reject_share=1", "--to", "mine")
    assert run_cli("build", "--quiet", "--store", tmp_path / "store", *given).returncode == 3
    found = summary_of(Store.open(tmp_path / "store"))
    first, second = found["documents"][:2]
    assert (first["count"], lost(first), second["count"]) == (2, 1, 1)
    assert [*steps(found)] == MINED
    assert found["funnel"] == []
    assert found["title"] == "Search trajectories of corpus"


def test_a_store_without_documents_has_no_such_steps(sample: Store) -> None:
    assert summary_of(sample)["documents"] == []
