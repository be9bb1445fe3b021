from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.pipeline.context import TooManyRejects
from stepsearch_data.schemas.rows import Hit, Query, Row
from stepsearch_data.search import Answer, Engine, Found, Kind
from stepsearch_data.search.kinds import EngineConfig, choose
from stepsearch_data.sources.record import paragraph
from stepsearch_data.stages import index, retrieve
from tests.builders import passage, query, sub_question
from tests.stages.conftest import RunStage

GOLD = (
    "The Barber of Seville is an opera in two acts, composed by Gioachino Rossini, which has been performed without"
    " end since a first night in Rome that was a famous failure."
)
PASSAGES = [
    passage("p1", "", "the barber of seville is an opera by rossini"),
    passage("p2", "", "rossini was born in pesaro"),
    passage("p3", "", "seville is a city"),
    passage("p4", "Opera", GOLD),
]
BM25 = choose(["bm25"], {})


class Scripted:
    """An engine elsewhere that says what it is told, by query."""

    batch, in_flight = 2, 3

    def __init__(self, answers: dict[str, Answer], name: str = "web") -> None:
        self.name, self.answers, self.closed = name, answers, False

    async def search(self, queries: Sequence[str], k: int) -> list[Answer]:
        assert len(queries) <= self.batch
        assert k == retrieve.RetrieveConfig().top_k
        return [self.answers.get(text, Answer()) for text in queries]

    async def close(self) -> None:
        self.closed = True


def elsewhere(answers: dict[str, Answer], name: str = "web") -> Engine:
    scripted = Scripted(answers, name)
    kind = Kind(name, "scripted", EngineConfig, open=lambda *_: scripted)
    return Engine(name, kind, EngineConfig(), None)


def hits_of(
    run_stage: RunStage,
    queries: list[Query],
    hops: Sequence[Row] = (),
    engines: Sequence[Engine] = BM25,
    **config: Any,
) -> list[Hit]:
    local = [engine for engine in engines if engine.is_local]
    built: Path = run_stage(index.STAGE, engines=local, paragraphs=PASSAGES)["index"]
    tables = run_stage(
        retrieve.STAGE,
        retrieve.RetrieveConfig(**config),
        engines,
        queries=queries,
        sub_questions=list(hops),
        passages=PASSAGES,
        index=built,
    )
    assert [row.raw for row in tables["rejects"]] == [q.query for q in queries if "fails" in q.query]
    return list(tables["hits"])


def test_hits_are_ranked_marked_and_in_the_order_of_the_queries(run_stage: RunStage) -> None:
    written = [query(1, text="barber by opera"), query(2, text="pesaro"), query(1, hop=2, text="pesaro")]
    hops = [sub_question(1, gold_passage_ids=["p1"]), sub_question(2, gold_passage_ids=["p2"])]
    hits = hits_of(run_stage, written, hops)
    assert [(h.query_id, h.rank, h.passage_id, h.is_gold) for h in hits] == [
        ("q1/1/1", 1, "p1", True),
        ("q1/1/1", 2, "p4", False),
        ("q1/1/2", 1, "p2", False),
        ("q1/2/1", 1, "p2", True),  # the same text was searched once, and is judged for its own hop
    ]
    assert all(h.score is not None and h.score > 0 and h.engine == "bm25" and h.error is None for h in hits)


def test_a_query_that_matches_nothing_leaves_one_row_without_document(run_stage: RunStage) -> None:
    hits = hits_of(run_stage, [query(1, text="zyzzyva"), query(2, text="?!")])
    assert [(h.query_id, h.rank, h.passage_id, h.score, h.is_gold, h.error) for h in hits] == [
        ("q1/1/1", None, None, None, False, None),
        ("q1/1/2", None, None, None, False, None),
    ]


def test_no_query_is_no_hit(run_stage: RunStage) -> None:
    assert hits_of(run_stage, []) == []


def test_every_engine_answers_every_query_side_by_side(run_stage: RunStage) -> None:
    engines = [*BM25, elsewhere({}), *choose(["other"], {"other": {"kind": "bm25", "b": 0.0}})]
    hits = hits_of(run_stage, [query(1, text="pesaro"), query(2, text="city")], engines=engines)
    assert [(h.query_id, h.engine) for h in hits] == [
        (f"q1/1/{n}", engine) for n in (1, 2) for engine in ("bm25", "web", "other")
    ]


def test_a_failure_is_a_row_with_its_reason_and_a_reject(run_stage: RunStage) -> None:
    web = elsewhere({f"fails {n}": Answer(error="503: busy", latency=0.5) for n in range(1)})
    hits = hits_of(
        run_stage, [query(n + 1, text="fails 0" if n == 0 else f"word {n}") for n in range(9)], engines=[web]
    )
    assert [(h.rank, h.error, h.latency) for h in hits[:2]] == [(None, "503: busy", 0.5), (None, None, None)]


def test_an_engine_that_fails_too_often_stops_the_build(run_stage: RunStage) -> None:
    web = elsewhere({"a": Answer(error="503: busy")})
    inputs = {"queries": [query(text="a")], "sub_questions": [], "passages": PASSAGES, "index": Path()}
    with pytest.raises(TooManyRejects, match=r"1 of 1 rows of web .*503: busy"):
        run_stage(retrieve.STAGE, engines=[web], max_reject_share=0.2, **inputs)


def test_a_document_from_elsewhere_is_shown_in_full(run_stage: RunStage) -> None:
    found = [Found(None, 0.5, "Opera house", "A building.", "https://example.org"), Found(None, 0.25, "", "Another.")]
    (first, second) = hits_of(
        run_stage, [query(text="opera")], engines=[elsewhere({"opera": Answer(found, latency=1.5)})]
    )
    assert (first.passage_id, first.title, first.text, first.url) == (
        None,
        "Opera house",
        "A building.",
        "https://example.org",
    )
    assert (second.rank, second.title, second.text, second.url, second.latency) == (2, "", "Another.", None, 1.5)


def test_our_own_passage_is_known_again_by_its_title_and_text(run_stage: RunStage) -> None:
    ours = passage(paragraph("T", "Some text.").passage_id, "T", "Some text.")
    PASSAGES.append(ours)
    try:
        web = elsewhere({"q": Answer([Found(None, 1.0, "T", "Some text.")])})
        (only,) = hits_of(run_stage, [query(text="q")], [sub_question(gold_passage_ids=[ours.passage_id])], [web])
    finally:
        PASSAGES.remove(ours)
    assert (only.passage_id, only.title, only.text, only.is_gold) == (ours.passage_id, None, None, True)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (GOLD[:110], True),  # a snippet
        (f"{GOLD} More is told in later chapters about the singers of that night.", True),  # the paragraph, and more
        ("Rossini composed an opera in two acts", False),  # too few words to tell
        ("The Barber of Seville is a play by Pierre Beaumarchais, the first of three about the cunning Figaro", False),
    ],
)
def test_a_piece_of_a_gold_paragraph_is_gold(run_stage: RunStage, text: str, gold: bool) -> None:
    web = elsewhere({"q": Answer([Found(None, 1.0, "", text)])})
    (only,) = hits_of(run_stage, [query(text="q")], [sub_question(gold_passage_ids=["p4"])], [web])
    assert only.is_gold is gold


def test_it_is_gold_for_its_own_hop_only(run_stage: RunStage) -> None:
    web = elsewhere({"q": Answer([Found(None, 1.0, "Opera", GOLD[:120])])})
    hops = [sub_question(1, gold_passage_ids=["p4"]), sub_question(2, gold_passage_ids=["p2"])]
    hits = hits_of(run_stage, [query(text="q"), query(hop=2, text="q")], hops, [web])
    assert [h.is_gold for h in hits] == [True, False]
