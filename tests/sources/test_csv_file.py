"""Rows of CSV files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stepsearch_data.core.errors import SourceError
from stepsearch_data.sources.source import Source


def test_rows_lack_what_their_line_lacks(tmp_path: Path) -> None:
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
