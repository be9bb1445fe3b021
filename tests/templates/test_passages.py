"""Texts by id: from files that processes share, or from one's own."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from stepsearch_data.schemas.tables import PASSAGES
from stepsearch_data.templates import passages
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.passages import Passages
from tests.builders import passage

TEXTS = [passage(f"p{n}", f"Title {n}", f"Text {n}, ä") for n in (3, 1, 10, 2)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "passages.parquet"
    pq.write_table(PASSAGES.to_arrow(TEXTS), path)
    return path


def test_each_id_has_its_title_and_text(table: Path, tmp_path: Path) -> None:
    for found in (Passages(table), Passages(table, tmp_path)):
        assert [found[text.passage_id] for text in TEXTS] == [Paragraph(text.title, text.text) for text in TEXTS]


def test_there_may_be_more_than_one_batch(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "_ROWS", 3)
    found = Passages(table)
    assert [found[text.passage_id].text for text in TEXTS] == [text.text for text in TEXTS]
    two = pl.Series(["p2", "p3"])
    assert found.texts(two).rows() == [
        ("p2", "Title 2", "Text 2, ä"),
        ("p3", "Title 3", "Text 3, ä"),
    ]


@pytest.mark.parametrize("unknown", ["p", "p4", "p33", "q"])
def test_an_unknown_id_is_no_passage(table: Path, unknown: str) -> None:
    found = Passages(table)
    assert unknown not in found
    assert "p1" in found
    with pytest.raises(KeyError, match=unknown):
        found[unknown]
    with pytest.raises(KeyError, match=unknown):
        found.texts(pl.Series([unknown]))


def test_workers_read_what_was_written_once(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    sent = pickle.dumps(Passages(table, folder))
    table.unlink()
    assert pickle.loads(sent)["p10"].title == "Title 10"


def test_a_worker_that_does_not_see_the_files_makes_its_own(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "of-another-machine"
    folder.mkdir()
    sent = pickle.dumps(Passages(table, folder))
    shutil.rmtree(folder)
    assert pickle.loads(sent)["p10"].title == "Title 10"


def test_files_of_ones_own_leave_nothing_behind(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    found = Passages(table)
    assert found["p1"].title == "Title 1"
    assert sorted(tmp_path.iterdir()) == before


def test_a_corpus_may_be_empty(tmp_path: Path) -> None:
    pq.write_table(PASSAGES.to_arrow([]), tmp_path / "none.parquet")
    assert "p1" not in Passages(tmp_path / "none.parquet")
