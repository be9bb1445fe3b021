from __future__ import annotations

from pathlib import Path

from stepsearch_data.pipeline.search import bm25
from stepsearch_data.stages import retrieve
from tests.builders import query, sub_question
from tests.stages.conftest import RunStage

PASSAGES = {
    "p1": "the barber of seville is an opera by rossini",
    "p2": "rossini was born in pesaro",
    "p3": "seville is a city",
}


def built_index(folder: Path) -> Path:
    index = folder / "index"
    index.mkdir()
    bm25.build_index(PASSAGES.items(), index, k1=1.2, b=0.75)
    return index


def test_hits_are_ranked_marked_and_in_the_order_of_the_queries(run_stage: RunStage, tmp_path: Path) -> None:
    written = [query(1, text="opera seville"), query(2, text="rossini"), query(1, hop=2, text="rossini")]
    hops = [sub_question(1, gold_passage_ids=["p1"]), sub_question(2, gold_passage_ids=["p2"])]
    index = built_index(tmp_path)
    hits = run_stage(retrieve.STAGE, queries=written, sub_questions=hops, index=index)["hits"]
    assert [(h.query_id, h.rank, h.passage_id, h.is_gold) for h in hits] == [
        ("q1/1/1", 1, "p1", True),
        ("q1/1/1", 2, "p3", False),
        ("q1/1/2", 1, "p2", False),
        ("q1/1/2", 2, "p1", True),
        ("q1/2/1", 1, "p2", True),  # the same text was searched once, and is judged for its own hop
        ("q1/2/1", 2, "p1", False),
    ]
    assert all(h.score > 0 and h.engine == "bm25" for h in hits)


def test_a_query_that_matches_nothing_leaves_one_row_without_document(run_stage: RunStage, tmp_path: Path) -> None:
    written = [query(1, text="zyzzyva"), query(2, text="?!")]
    index = built_index(tmp_path)
    hits = run_stage(retrieve.STAGE, queries=written, sub_questions=[sub_question()], index=index)["hits"]
    assert [(h.query_id, h.rank, h.passage_id, h.score, h.is_gold) for h in hits] == [
        ("q1/1/1", None, None, None, False),
        ("q1/1/2", None, None, None, False),
    ]


def test_no_query_is_no_hit(run_stage: RunStage, tmp_path: Path) -> None:
    assert run_stage(retrieve.STAGE, queries=[], sub_questions=[], index=built_index(tmp_path))["hits"] == []
