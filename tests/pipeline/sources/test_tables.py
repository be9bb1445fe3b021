"""Rows of Parquet and CSV files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.pipeline.errors import SourceError
from stepsearch_data.pipeline.sources import Record, Source
from tests.rows import musique


def written(path: Path, rows: list[dict[str, Any]]) -> Source:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return Source("musique", str(path))


def test_rows_of_parquet_are_what_was_written(tmp_path: Path) -> None:
    rows = [musique("a"), musique("b", answer_aliases=["Pisaurum"]), {"id": "c"}]
    assert list(written(tmp_path / "rows.Parquet", rows).records()) == [
        Record(position, row) for position, row in enumerate(rows, start=1)
    ]


def test_many_rows_are_not_read_at_once(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.parquet", [{"id": str(number), "text": "x" * 1_000} for number in range(5_000)])
    before = pa.total_allocated_bytes()
    records = source.records()
    assert next(records).data == {"id": "0", "text": "x" * 1_000}
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert sum(1 for _ in records) == 4_999


@pytest.mark.parametrize("content", [b"", b"nothing", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot read .*rows\.parquet: it is damaged, or no Parquet") as caught:
        list(Source("musique", str(path)).records())
    assert "\n" not in caught.value.message


def test_damage_in_the_midst_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"id": str(number), "text": f"text {number}"} for number in range(999)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none")
    path.write_bytes(path.read_bytes().replace(b"text 700", b"\xff" * 8))
    records = Source("musique", str(path)).records()
    assert next(records).position == 1
    with pytest.raises(SourceError, match="damaged"):
        list(records)


@pytest.mark.parametrize("name", ["none.parquet", "none.csv"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=f"cannot read .*{name}: No such file"):
        list(Source("musique", str(tmp_path / name)).records())


@pytest.mark.parametrize("name", ["folder.parquet", "pipe.csv", "pipe.parquet", "nul\0.csv"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    elif name.startswith("pipe"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="cannot read"):
        list(Source("musique", str(tmp_path / name)).records())


def test_rows_of_csv_lack_what_their_line_lacks(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('\ufeffid,question\n1,"Who, then?"\n2\n', encoding="utf-8")
    assert [record.data for record in Source("jsonl", str(path)).records()] == [
        {"id": "1", "question": "Who, then?"},
        {"id": "2"},
    ]
    path.write_bytes(b"id\n\xff\n")
    with pytest.raises(SourceError, match="cannot read"):
        list(Source("jsonl", str(path)).records())
