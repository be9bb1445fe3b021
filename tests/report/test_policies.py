"""Policies compared: means, intervals by source and hops, and the questions on which they differ."""

from __future__ import annotations

import pytest

from stepsearch_data.core.intervals import share_interval
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.listing import find
from stepsearch_data.report.records import records
from stepsearch_data.report.shapes import Facts, Record
from tests.report.holds import check
from tests.report.shown import listed, opened, summary_of, told
from tests.report.test_rollouts import BLIND, line, text


@pytest.fixture(scope="module")
def gold(sample: Store) -> list[Record]:
    return list(records(sample, sample.manifest()))


@pytest.fixture(scope="module")
def files(gold: list[Record], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One policy is right but for every third question; the other, of all but ten, for every second."""
    folder = tmp_path_factory.mktemp("rollouts")
    for name, every, rows in (("new", 3, gold), ("b <old>", 2, gold[10:])):
        lines = [line(each, BLIND if gold.index(each) % every == 0 else text(each)) for each in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return [str(folder / "new.jsonl"), str(folder / "b <old>.jsonl")]


@pytest.fixture(scope="module")
def tables(sample: Store, files: list[str]) -> list[Facts]:
    found = summary_of(sample, rollouts=files)
    assert found["policies"] == ["new", "b <old>"]
    for each in found["compared"]:
        check(each, Facts)
    return found["compared"]


def test_without_rollouts_nothing_is_compared(sample: Store) -> None:
    assert summary_of(sample)["compared"] == []


def test_means_are_over_all_rollouts(gold: list[Record], tables: list[Facts]) -> None:
    means = tables[0]
    assert told(means, "Rollouts") == [len(gold), len(gold) - 10]
    right = sum(at % 3 > 0 for at in range(len(gold)))
    assert told(means, "Exact match") == [right / len(gold), pytest.approx(0.5, abs=0.01)]
    searches = sum(len(each["rounds"]) for at, each in enumerate(gold) if at % 3) / len(gold)
    assert told(means, "Searches")[0] == pytest.approx(searches)


def test_shares_have_wilsons_intervals_and_lead_to_their_questions(
    sample: Store, files: list[str], tables: list[Facts]
) -> None:
    by_hops = tables[1]
    assert [row[:3] for row in by_hops["rows"][:4]] == [
        ["all", "all", "new"],
        ["all", "all", "b <old>"],
        ["hotpotqa", 2, "new"],
        ["hotpotqa", 2, "b <old>"],
    ]
    with opened(sample, files) as connection:
        for row, links in zip(by_hops["rows"], by_hops["links"], strict=True):
            questions, right, wrong = row[3:6]
            assert [listed(connection, links[name])["trajectories"] for name in ("questions", "right", "wrong")] == [
                questions,
                right,
                wrong,
            ]
            interval = share_interval(int(right or 0), int(questions or 0))
            assert row[-1] == f"{100 * (interval.low or 0):.1f} – {100 * (interval.high or 0):.1f} %"


def test_what_one_policy_gained_and_another_lost_is_counted_and_listed(
    sample: Store, gold: list[Record], files: list[str], tables: list[Facts]
) -> None:
    regressed = [each["id"] for at, each in enumerate(gold) if at >= 10 and at % 3 == 0 and at % 2]
    differ = tables[2]
    assert [row[:2] for row in differ["rows"]] == [["new", "b <old>"], ["b <old>", "new"]]
    assert differ["rows"][1][2:] == [len(regressed), len(gold) - 10]
    with opened(sample, files) as connection:
        asked = {"policy.new": ["wrong"], "policy.b <old>": ["right"], "limit": ["500"]}
        assert [row["id"] for row in find(connection, asked).rows] == regressed
        for row, links in zip(differ["rows"], differ["links"], strict=True):
            assert [listed(connection, links[name])["trajectories"] for name in ("questions", "of")] == row[2:]
