"""The list as a file: the rows that are shown, in their order, in every format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import QueryError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.download import KINDS, write_list
from stepsearch_data.report.listing import COLUMNS, find
from tests.report.shown import opened

ASKED = {"hops": ["3", "4"], "sort": ["-reward"], "offset": ["3"], "limit": ["1"]}


@pytest.fixture(scope="module")
def files(rich: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    row = {"id": "4hop1__218795_120010_18224_37904", "response": "<answer> no </answer>", "target": ["yes"]}
    (folder / 'a "policy".jsonl').write_text(json.dumps(row))
    with opened(rich, [str(folder / 'a "policy".jsonl')]) as connection:
        for kind in KINDS:
            write_list(connection, ASKED, kind, folder / f"list.{kind}")
        whole = find(connection, {**ASKED, "offset": ["0"], "limit": ["500"]})
        assert 3 < whole.total < 70
        (folder / "expected.json").write_text(json.dumps(whole.rows))
    return folder


def test_all_formats_hold_all_rows_in_order(files: Path) -> None:
    expected = json.loads((files / "expected.json").read_text())
    for row in expected:
        (row['policy.a "policy"'],) = row.pop("right") or [None]
    assert False in [row['policy.a "policy"'] for row in expected]
    assert [json.loads(line) for line in (files / "list.jsonl").read_text().splitlines()] == expected
    assert pq.read_table(files / "list.parquet").to_pylist() == expected
    with open(files / "list.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in COLUMNS if name != "right"]
    assert [*rows[0]] == [*names, 'policy.a "policy"']
    for row, wanted in zip(rows, expected, strict=True):
        assert (row["id"], row["question"], float(row["reward"])) == (
            wanted["id"],
            wanted["question"],
            wanted["reward"],
        )
        assert row["passed"] == str(wanted["passed"]).lower()
        assert row["flags"].split() == wanted["flags"]


def test_what_cannot_be_asked_is_refused(rich: Store, tmp_path: Path) -> None:
    with opened(rich) as connection, pytest.raises(QueryError, match="unknown: x"):
        write_list(connection, {"x": ["1"]}, "csv", tmp_path / "list.csv")
