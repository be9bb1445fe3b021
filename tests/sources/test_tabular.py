"""Rows of Parquet and CSV files: a row of Parquet is read or rejected, whatever its neighbours are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import SourceError
from stepsearch_data.sources.files import Broken
from stepsearch_data.sources.source import Source
from stepsearch_data.sources.tabular import parquet_rows


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def not_utf8(*texts: bytes) -> pa.Array:
    """Texts that are called text, whatever their bytes are."""
    return pa.array(texts, pa.binary()).view(pa.string())


def test_a_row_that_is_no_utf8_harms_no_other(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", text=not_utf8(*[b"good"] * 300, b"\xff", b"good"), n=pa.array(range(302)))
    rows = list(parquet_rows(path))
    assert [number for number, row in enumerate(rows) if isinstance(row, Broken)] == [300]
    assert rows[301] == {"text": "good", "n": 301}
    broken = rows[300]
    assert isinstance(broken, Broken)
    assert "utf-8" in broken.reason


def test_a_date_beyond_pythons_is_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", at=pa.array([0, 2**62], pa.timestamp("us")))
    assert [isinstance(row, Broken) for row in parquet_rows(path)] == [False, True]


def test_only_wanted_columns_are_read_and_rows_are_counted_first(tmp_path: Path) -> None:
    counted: list[int] = []
    path = write(tmp_path / "a.parquet", text=not_utf8(b"\xff"), n=[1])
    assert list(parquet_rows(path, {"n"}, counted.append)) == [{"n": 1}]
    assert counted == [1]


@pytest.mark.parametrize("kind", ["fifo", "folder", "cut", "foreign", "empty", "absent"])
def test_what_is_no_parquet_is_an_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = write(path, n=[1, 2]).read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "absent":
        path.write_bytes({"cut": data[:-20], "foreign": b"{}\n" * 9, "empty": b""}[kind])
    with pytest.raises(SourceError, match=r"cannot read .*a\.parquet: \S") as caught:
        list(parquet_rows(path))
    assert len(caught.value.message) < len(str(path)) + 200


def test_csv_rows_lack_what_their_line_lacks(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('\ufeffid,question\n1,"Who, then?"\n2\n3,Who?,more\n', encoding="utf-8")
    assert [record.data for record in Source("jsonl", str(path)).records()] == [
        {"id": "1", "question": "Who, then?"},
        {"id": "2"},
        {"id": "3", "question": "Who?"},
    ]


@pytest.mark.parametrize("name", ["none.csv", "pipe.csv", "nul\0.csv", "latin.csv"])
def test_what_is_no_csv_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "latin.csv").write_bytes(b"id\n\xff\n")
    with pytest.raises(SourceError, match="cannot read"):
        list(Source("musique", str(tmp_path / name)).records())
