"""The first screen: a sentence, a table by source and hops, and what stands beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.audit import audit
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report.shapes import Facts, Verdict
from stepsearch_data.stages import STAGES
from tests.report.holds import check
from tests.report.shown import build_rows, listed, opened, question_row, summary_of, told


@pytest.fixture(scope="module")
def found(rich: Store) -> Verdict:
    return summary_of(rich)["verdict"]


def part(verdict: Verdict, title: str) -> Facts:
    return next(each for each in verdict["parts"] if each["title"] == title)


def rows(facts: Facts) -> dict[Any, Any]:
    return {row[0]: row[1] for row in facts["rows"]}


def test_a_sentence_says_how_many_are_fit_and_leads_to_them(rich: Store, found: Verdict) -> None:
    check(found, Verdict)
    counted, *rest = found["said"]
    with opened(rich) as connection:
        sql = "SELECT count(*) FILTER (complete AND passed), count(*) FROM listing"
        ((fit, total),) = connection.execute(sql).fetchall()
        assert listed(connection, counted["link"] or "")["trajectories"] == fit
    assert counted["text"] == f"{fit} of {total} trajectories"
    assert [each["text"] for each in rest] == [
        " are fit for training: complete, and passed by the gates.",
        " Contamination was not checked.",
    ]


def test_the_table_says_what_audit_says(rich: Store, found: Verdict) -> None:
    audited = audit(rich)["by_source_and_hops"]
    table = found["table"]
    parts = [f"{source} {hops} hops" for source, hops, *_ in table["rows"]]
    assert parts == [*audited]
    assert told(table, "hops found") == [f"{100 * audited[name]['hop_hit_at_3']:.1f} %" for name in parts]
    assert told(table, "queries kept") == [f"{100 * audited[name]['kept_share']:.1f} %" for name in parts]
    complete = [
        all_ - not_ for all_, not_ in zip(told(table, "trajectories"), told(table, "not complete"), strict=True)
    ]
    assert complete == [audited[name]["complete"] for name in parts]


def test_shares_lead_to_the_hops_and_queries_that_they_count(rich: Store, found: Verdict) -> None:
    audited = audit(rich)["by_source_and_hops"]
    with opened(rich) as connection:
        for (source, hops, *_), links in zip(found["table"]["rows"], found["table"]["links"], strict=True):
            numbers = audited[f"{source} {hops} hops"]
            for column, unit, share in (
                ("hops found", "hops", "hop_hit_at_3"),
                ("queries kept", "queries", "kept_share"),
            ):
                counted = listed(connection, links[column])[unit]
                assert counted == pytest.approx(numbers[share] * numbers[unit])


def test_splits_difficulty_and_what_fails_most_are_counted(rich: Store, found: Verdict) -> None:
    with opened(rich) as connection:
        total = connection.execute("SELECT count(*) FROM listing").fetchall()[0][0]
    assert [*rows(part(found, "Split"))] == ["train", "validation", "rejected"]
    assert sum(rows(part(found, "Split")).values()) == sum(rows(part(found, "Difficulty")).values()) == total
    failing = told(part(found, "Fails most"), "trajectories")
    assert failing == sorted(failing, reverse=True)
    assert len(failing) <= 4


def test_contamination_is_counted_where_it_was_checked(found: Verdict, tmp_path: Path) -> None:
    assert rows(part(found, "Contamination")) == {
        "evaluation data": "not checked",
        "MuSiQue's single hops": "not checked",
    }
    held_out = tmp_path / "held out.jsonl"
    held_out.write_text(json.dumps(question_row("other")))
    store = build_rows(tmp_path, [question_row("q")], "--set", f'quality.eval_sources=["jsonl={held_out}"]')
    checked = summary_of(store)["verdict"]
    assert rows(part(checked, "Contamination")) == {"evaluation data": 1, "MuSiQue's single hops": "not checked"}
    assert checked["said"][0]["text"] == "0 of 1 trajectories"
    assert len(checked["said"]) == 2
    with opened(store) as connection:
        assert listed(connection, part(checked, "Contamination")["links"][0]["trajectories"])["trajectories"] == 1


@pytest.mark.parametrize(
    ("last", "said", "columns"),
    [("filter", [], 0), ("trajectories", ["70 trajectories, which no gate has checked yet."], 5)],
)
def test_what_was_not_built_is_not_judged(
    sample: Store, tmp_path: Path, last: str, said: list[str], columns: int
) -> None:
    shutil.copytree(sample.root, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    names = [stage.name for stage in STAGES if not stage.optional]
    stages = {name: store.manifest().stages[name] for name in names[: names.index(last) + 1]}
    store.write_text("manifest.json", Manifest(stages=stages).model_dump_json())
    found = summary_of(store)["verdict"]
    assert [each["text"] for each in found["said"]] == said
    assert found["parts"] == []
    assert len(found["table"]["rows"][0] if found["table"]["rows"] else []) == columns
