from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.audit import audit
from stepsearch_data.core.errors import StoreError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.stages.gates.config import unchecked
from tests.conftest import Run


def test_the_sample_is_good(sample_store: Path) -> None:
    by_source = audit(Store.open(sample_store))["by_source"]
    assert set(by_source) == {"musique", "hotpotqa"}
    for numbers in by_source.values():
        assert numbers["leaks"] == 0
        assert numbers["hop_hit_at_3"] >= 0.95
        assert 0 < numbers["pass_at_1"] <= numbers["pass_at_3"] <= numbers["pass_at_5"] <= 1
        assert 3 <= numbers["queries"] / numbers["hops"] <= 4


def test_parts_add_up_to_their_source(sample_store: Path) -> None:
    measures = audit(Store.open(sample_store))
    for source, numbers in measures["by_source"].items():
        parts = [part for name, part in measures["by_source_and_hops"].items() if name.startswith(f"{source} ")]
        for key in ("questions", "hops", "queries", "complete"):
            assert sum(part[key] for part in parts) == numbers[key]


def test_every_trajectory_of_the_sample_is_in_one_split(sample_store: Path) -> None:
    measures = audit(Store.open(sample_store))
    for source, numbers in measures["by_source"].items():
        counts = {split: numbers_of[source] for split, numbers_of in measures["by_split"].items()}
        assert sum(counts.values()) == numbers["questions"]
        assert counts["rejected"] <= 1
        assert counts["train"] > counts["validation"] > 0
        assert measures["by_gate"]["gold_not_shown"][source] == numbers["questions"] - numbers["complete"]
    assert all(not any(measures["by_gate"][gate].values()) for gate in ("leak", "duplicate", "broken_text", "length"))


def test_numbers_equal_plain_counting(sample_store: Path, cli: Run) -> None:
    """hop_hit_at_3 and pass@k, computed once more from `hits` by SQL of another shape."""
    sql = """
        SELECT avg(CASE WHEN EXISTS (
            FROM hits h JOIN votes v USING (query_id)
            WHERE v.kept AND h.is_gold AND h.rank <= 3 AND h.question_id = s.question_id AND h.hop = s.hop
        ) THEN 1 ELSE 0 END) AS hit
        FROM sub_questions s WHERE source = 'musique'
    """
    found = cli("sql", sql, "--store", sample_store, "--format", "csv")
    expected = audit(Store.open(sample_store))["by_source"]["musique"]["hop_hit_at_3"]
    assert float(found.stdout.splitlines()[1]) == pytest.approx(expected)


def test_a_store_that_is_not_built_to_its_end_says_so(tmp_path: Path, cli: Run) -> None:
    assert cli("build", "--to", "index", "--store", tmp_path / "store").returncode == 0
    with pytest.raises(StoreError, match="not built to its end"):
        audit(Store.open(tmp_path / "store"))


def test_checks_are_counted_by_source_with_intervals_before_anything_else_is_built(tmp_path: Path, cli: Run) -> None:
    assert cli("build", "--to", "decide", "--store", tmp_path / "store").returncode == 0
    measures = audit(Store.open(tmp_path / "store"))
    assert {name for name, parts in measures.items() if parts} == {"by_check"}
    numbers = measures["by_check"]["musique one_search"]
    assert numbers["judge"] == "bm25"
    assert numbers["passages"] == 212
    assert 0 < numbers["failed"] < numbers["asked"] == 39
    assert numbers["low"] < numbers["share"] == numbers["failed"] / numbers["asked"] < numbers["high"]
    printed = cli("audit", "--store", tmp_path / "store").stdout
    assert "musique one_search" in printed


def test_what_is_left_of_documents_is_told_with_intervals(harvest: Path, cli: Run) -> None:
    by_funnel = audit(Store.open(harvest))["by_funnel"]
    assert by_funnel["links"] == {**dict.fromkeys(by_funnel["links"]), "count": 168}
    passed = by_funnel["passed"]
    assert passed["low"] < passed["share"] == passed["count"] / passed["of"] < passed["high"]
    assert passed["dollars_each"] == passed["dollars"] / passed["count"]
    header, *lines = cli("audit", "--store", harvest).stdout.splitlines()
    assert header.split()[3:] == ["count", "of", "share", "low", "high", "dollars", "dollars", "each"]
    assert any(line.startswith("closed_book ") for line in lines)


def test_stores_without_documents_have_no_steps(sample_store: Path, cli: Run) -> None:
    assert audit(Store.open(sample_store))["by_funnel"] == {}
    assert cli("audit", "--store", sample_store).stdout.startswith("source ")


def test_gates_without_evaluation_data_were_not_checked(sample_store: Path, cli: Run) -> None:
    measures = audit(Store.open(sample_store))
    assert measures["unchecked"] == {
        "eval_overlap": "not checked",
        "eval_single_hop": "not checked",
        "unproven": "off",
        "marks": "off",
        "pass_rate": "off",
    }
    assert set(measures["by_gate"]["eval_overlap"].values()) == {None}
    assert set(measures["by_gate"]["leak"].values()) == {0}
    line = next(line for line in cli("audit", "--store", sample_store).stdout.splitlines() if "eval_overlap" in line)
    assert line.split()[1:] == ["not", "checked", "not", "checked"]


@pytest.mark.parametrize(
    ("files", "config", "found"),
    [
        ({"eval_sources 1": "jsonl 12ab"}, {}, {"eval_single_hop": "not checked"}),
        ({"eval_sources 1": "jsonl 12ab", "eval_sources 2": "musique 34cd"}, {}, {}),
        ({"eval_single_hop_ids 1": "12ab"}, {}, {"eval_overlap": "not checked"}),
        ({"rollouts 1": "12ab"}, {"eval_overlap": "off", "length": "off", "eval_single_hop": "off"}, "off"),
    ],
)
def test_which_gates_looked_at_nothing(files: dict[str, str], config: dict[str, str], found: Any) -> None:
    expected = dict.fromkeys(config, "off") if found == "off" else found
    assert unchecked({"config": config, "files": files}) == {**expected, "marks": "off", "pass_rate": "off"}
    asked = {"config": {**config, "marks": "drop-bad", "pass_rate": [0.2, 0.8]}, "files": files}
    assert unchecked(asked) == expected
