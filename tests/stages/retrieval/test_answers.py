from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stepsearch_data.stages.retrieval import answers
from stepsearch_data.stages.retrieval.answers import Answers

COLUMNS = {"text": pl.UInt32, "passage_id": pl.String, "error": pl.String}


def rows(*found: tuple[int, str | None, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(found), schema=COLUMNS, orient="row")


@pytest.fixture(params=[1, 3, 100])
def found(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Answers to five texts, written so many rows at a time: nothing is found for the second one."""
    monkeypatch.setattr(answers, "_ROWS", request.param)
    found = Answers(tmp_path / "bm25.arrow", 5, COLUMNS)
    found.add(rows((0, "p1", None), (0, "p2", None)))
    found.add(rows((2, None, "503: busy"), (3, "p3", None)))
    found.add(rows())
    found.add(rows((4, "p1", None)))
    found.close()
    return found


def test_texts_may_be_looked_up_in_any_order_and_again(found: Answers) -> None:
    again = found.of(np.array([3, 0, 1, 0, 4])).select("place", "text", "passage_id")
    assert again.rows() == [(0, 3, "p3"), (1, 0, "p1"), (1, 0, "p2"), (3, 0, "p1"), (3, 0, "p2"), (4, 4, "p1")]
    assert found.of(np.array([1])).is_empty()


def test_failures_are_told(found: Answers) -> None:
    assert found.failed().rows() == [(2, "503: busy")]


def test_there_may_be_no_answer(tmp_path: Path) -> None:
    none = Answers(tmp_path / "web.arrow", 0, COLUMNS)
    none.close()
    assert none.failed().is_empty()
