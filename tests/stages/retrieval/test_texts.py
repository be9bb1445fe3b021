from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from stepsearch_data.schemas.tables import QUERIES
from stepsearch_data.stages.retrieval import texts
from stepsearch_data.stages.retrieval.texts import Texts
from tests.builders import query

ASKED = ["b", "a", "b", "c", "a", "d", "e"]


@pytest.fixture
def asked(tmp_path: Path) -> Texts:
    rows = [query(question_id=f"q{n}", text=text) for n, text in enumerate(ASKED)]
    pq.write_table(QUERIES.to_arrow(rows), tmp_path / "queries.parquet")
    return Texts(tmp_path / "queries.parquet")


def test_texts_are_numbered_as_they_first_occur(asked: Texts) -> None:
    assert len(asked) == 5
    assert asked.of.tolist() == [0, 1, 0, 2, 1, 3, 4]


@pytest.mark.parametrize("read", [1, 3, 100])
def test_each_is_asked_once_however_the_file_is_read(asked: Texts, read: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_ROWS", read)
    assert list(asked.batches(2)) == [(0, ["b", "a"]), (2, ["c", "d"]), (4, ["e"])]
    assert list(asked.batches(9)) == [(0, ["b", "a", "c", "d", "e"])]


def test_a_text_has_the_question_that_asked_it_first(asked: Texts) -> None:
    found = asked.rows(pl.Series("text", [1, 4], pl.UInt32))
    assert found.rows() == [(1, "q1", "a"), (4, "q6", "e")]
    assert asked.rows(pl.Series("text", [], pl.UInt32)).is_empty()


def test_there_may_be_no_query(tmp_path: Path) -> None:
    pq.write_table(QUERIES.to_arrow([]), tmp_path / "none.parquet")
    assert (len(Texts(tmp_path / "none.parquet")), list(Texts(tmp_path / "none.parquet").batches(3))) == (0, [])
