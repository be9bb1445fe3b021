"""A trajectory with its rounds, however it is reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import stepsearch_data as ssd
from tests import rows
from tests.conftest import Run


def test_a_trajectory_is_the_same_alone_and_among_all(tmp_path: Path) -> None:
    """With twins, distractors and queries that no engine found: also where it failed."""
    store = ssd.build(tmp_path / "store", settings={"filter.k": 1, "trajectories.distractors": 1}, progress=False)
    found = list(ssd.load_trajectories(tmp_path / "store"))
    assert [one.question_id for one in found] == store.table("trajectories").collect()["question_id"].to_list()
    assert any(one.rejected for one in found)
    assert all(store.trajectory(one.question_id) == one for one in found[::5])


def test_it_is_told_as_show_tells_it(sample_store: Path, cli: Run) -> None:
    shown = ssd.open(sample_store).trajectory()
    assert str(shown) == cli("show", "--store", sample_store).stdout.rstrip("\n")
    as_json = json.loads(cli("show", "--store", sample_store, "--json").stdout)
    checks = as_json.pop("checks")
    assert as_json == shown.model_dump()
    assert {check["question_id"] for check in checks} == {shown.question_id}


def test_what_speaks_against_its_question_is_told_too(sample_store: Path, cli: Run) -> None:
    (row,) = ssd.open(sample_store).sql("SELECT * FROM checks WHERE outcome = 'failed' LIMIT 1").to_pylist()
    told = cli("show", row["question_id"], "--store", sample_store).stdout
    assert "\n\nChecks  rules, bm25\n" in told
    assert f"  {row['check']}  {row['reason']}\n" in told


def test_a_question_without_a_trajectory_is_told_with_its_fault(tmp_path: Path) -> None:
    file = rows.write_lines(tmp_path / "rows.jsonl", [rows.musique("q1"), {**rows.musique("q2"), "answer": 7}])
    some = {"run.max_reject_share": 1}
    store = ssd.build(tmp_path / "store", sources=f"musique={file}", settings=some, progress=False)
    for key, says in (("q2", "question q2: load rejected it: answer"), ("q3", "question q3$")):
        with pytest.raises(ssd.errors.StoreError, match=f"there is no trajectory of {says}"):
            store.trajectory(key)
