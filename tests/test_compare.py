"""compare: what differs between two stores, with every trajectory named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stepsearch_data as ssd
from tests import rows
from tests.conftest import Run
from tests.releases import build

FIT = """
SELECT question_id FROM trajectories JOIN quality USING (question_id) WHERE complete AND passed ORDER BY question_id
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssd.Store, ssd.Store]:
    """Two builds of the sample that differ in one setting: fewer queries are valid in the second."""
    folder = tmp_path_factory.mktemp("compared")
    built = [build(folder / f"k{k}", "queries.per_sub_question=1", f"filter.k={k}") for k in (3, 1)]
    return ssd.open(built[0].root), ssd.open(built[1].root)


def column(store: ssd.Store, sql: str) -> list[Any]:
    values: list[Any] = store.sql(sql)[0].to_pylist()
    return values


def test_one_setting_is_named_and_every_trajectory_that_it_costs(stores: tuple[ssd.Store, ssd.Store]) -> None:
    ours, theirs = stores
    before, after = column(ours, FIT), column(theirs, FIT)
    found = ours.compare(theirs)
    assert found["settings"] == {"filter.k": (3, 1)}
    assert [one["question_id"] for one in found["lost"]] == sorted(set(before) - set(after))
    assert found["lost"]
    assert found["gained"] == []
    reasons = dict(theirs.sql("SELECT question_id, array_to_string(reasons, '; ') FROM quality").to_pandas().to_numpy())
    assert {one["question_id"]: one["why"] for one in found["lost"]} == {
        one["question_id"]: reasons[one["question_id"]] for one in found["lost"]
    }
    back = theirs.compare(ours)
    assert [one["question_id"] for one in back["gained"]] == [one["question_id"] for one in found["lost"]]
    assert back["lost"] == []


@pytest.mark.long
def test_counts_are_those_of_sql(stores: tuple[ssd.Store, ssd.Store]) -> None:
    found = stores[0].compare(stores[1])
    for name, pair in found["counts"].items():
        table, _, part = name.partition("_")
        condition = {"kept": "kept", "complete": "complete", "passed": "passed"}.get(part, "true")
        sql = f"SELECT count(*) FROM {table} WHERE {condition}"
        if part == "passed" or part.startswith("in_"):
            split = f" AND split = '{part.removeprefix('in_')}'" if part.startswith("in_") else ""
            sql = f"SELECT count(*) FROM quality WHERE passed{split}"
        elif name in stores[0].tables:
            sql = f"SELECT count(*) FROM {name}"
        assert pair == tuple(column(store, sql)[0] for store in stores), name
    for gate, pair in found["gates"].items():
        sql = f"SELECT count(*) FROM quality WHERE list_contains(flags, '{gate}')"
        assert pair == tuple(column(store, sql)[0] for store in stores), gate
    kept = "SELECT count(*) FILTER (kept) / count(*) FROM queries"
    assert found["kept_share"] == tuple(column(store, kept)[0] for store in stores)


def test_a_trajectory_of_both_is_changed_where_its_rounds_are(tmp_path: Path, sample_store: Path) -> None:
    ours = ssd.open(sample_store)
    theirs = ssd.open(build(tmp_path / "two", "trajectories.documents=2").root)
    changed = {one["question_id"]: one["differs"] for one in ours.compare(theirs)["changed"]}

    def shown(store: ssd.Store) -> dict[str, Any]:
        return {
            one.question_id: [[document.passage_id for document in step.documents] for step in one.rounds]
            for one in store.trajectories()
            if one.complete and one.quality and one.quality.passed
        }

    before, after = shown(ours), shown(theirs)
    assert {key for key, differs in changed.items() if "documents" in differs} == {
        key for key in before.keys() & after.keys() if before[key] != after[key]
    }
    assert {part for differs in changed.values() for part in differs} == {"documents"}


@pytest.mark.long
def test_why_a_trajectory_is_missing(tmp_path: Path) -> None:
    whole = [rows.musique("q1"), rows.musique("q2", question="Where was the composer of The Barber of Seville born?")]
    broken = [whole[0], {**whole[1], "answer": 7}]
    some = ("run.max_reject_share=1", "quality.near_duplicate='off'", "quality.duplicate='off'")
    stores = []
    for name, lines in (("whole", whole), ("broken", broken), ("short", whole[:1])):
        file = rows.write_lines(tmp_path / f"{name}.jsonl", lines)
        stores.append(ssd.open(build(tmp_path / name, *some, sources=[f"musique={file}"]).root))
    (lost,) = stores[0].compare(stores[1])["lost"]
    assert lost["question_id"] == "q2"
    assert lost["why"].startswith("load rejected it: answer: ")
    found = stores[0].compare(stores[2])
    assert found["lost"] == [{"question_id": "q2", "why": "it is not among its questions"}]
    assert list(found["settings"]) == ["load.inputs.source 1 (musique)"]


def test_the_command_prints_the_same(stores: tuple[ssd.Store, ssd.Store], cli: Run) -> None:
    ours, theirs = stores
    found = ours.compare(theirs)
    printed = json.loads(cli("compare", ours.path, theirs.path, "--json").stdout)
    assert printed == json.loads(json.dumps(found))
    said = cli("compare", ours.path, theirs.path).stdout
    assert "filter.k: 3 → 1" in said
    assert f"lost: {len(found['lost'])} trajectories that only A has" in said
    assert [one for one in found["lost"] if f"  {one['question_id']}  {one['why']}" not in said] == []


def test_a_store_that_cannot_be_compared_is_named(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    missing = cli("compare", sample_store, tmp_path / "none")
    assert (missing.returncode, f"there is no store at {tmp_path / 'none'}" in missing.stderr) == (1, True)
    assert cli("build", "--to", "queries", "--limit", "2", "--store", tmp_path / "half", "-q").returncode == 0
    half = cli("compare", sample_store, tmp_path / "half")
    assert half.returncode == 1
    assert f"error: the store {tmp_path / 'half'} is not built to its end" in half.stderr
