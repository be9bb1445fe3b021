from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepsearch_data.schemas.tables import HITS
from stepsearch_data.stages import filter as voting
from tests.builders import hit, passage, query, sub_question
from tests.stages.conftest import RunStage, Tables

Q = query()
TEXTS = [
    passage("p1", "Opera", "By Rossini."),
    passage("p2", "Other", "Gioachino Rossini composed it."),
    passage("p3", "No", "No."),
]


def run(run_stage: RunStage, hits: list[Any], **config: Any) -> Tables:
    return run_stage(
        voting.STAGE,
        voting.FilterConfig(**config),
        queries=[Q],
        hits=hits,
        sub_questions=[sub_question()],
        passages=TEXTS,
    )


@pytest.mark.parametrize(
    ("engines", "valid", "kept"),
    [(1, 0, False), (1, 1, True), (2, 1, True), (3, 1, False), (3, 2, True), (4, 2, True), (5, 2, False), (5, 3, True)],
)
def test_majority_is_half_of_the_engines_rounded_up(run_stage: RunStage, engines: int, valid: int, kept: bool) -> None:
    hits = [hit(Q, 1, "p1", engine=f"e{n}", gold=n < valid) for n in range(engines)]
    (vote,) = run(run_stage, hits)["votes"]
    assert (vote.engines, vote.valid_engines, vote.needed, vote.kept) == (engines, valid, -(-engines // 2), kept)


@pytest.mark.parametrize(("rule", "kept"), [("any", True), ("majority", False), ("all", False), (1, True), (2, False)])
def test_other_rules(run_stage: RunStage, rule: str | int, kept: bool) -> None:
    hits = [hit(Q, 1, "p1", engine=f"e{n}", gold=n == 0) for n in range(3)]
    assert run(run_stage, hits, rule=rule)["votes"][0].kept is kept


@pytest.mark.parametrize(("rank", "kept"), [(3, True), (4, False)])
def test_only_the_first_k_documents_count(run_stage: RunStage, rank: int, kept: bool) -> None:
    (vote,) = run(run_stage, [hit(Q, rank, "p1", gold=True)])["votes"]
    assert (vote.kept, vote.gold_rank) == (kept, rank)


def test_an_engine_that_found_nothing_has_a_vote(run_stage: RunStage) -> None:
    hits = [hit(Q, 1, "p1", engine="a", gold=True), hit(Q, None, None, engine="b"), hit(Q, None, None, engine="c")]
    (vote,) = run(run_stage, hits)["votes"]
    assert (vote.engines, vote.valid_engines, vote.kept) == (3, 1, False)


def failed(engine: str) -> Any:
    return hit(Q, None, None, engine=engine, error="503: busy")


def test_an_engine_that_failed_has_no_vote(run_stage: RunStage) -> None:
    """Two of three answered and one of the two finds it: ⌈2/2⌉ = 1."""
    tables = run(run_stage, [hit(Q, 1, "p1", engine="a", gold=True), hit(Q, 1, "p3", engine="b"), failed("c")])
    (vote,) = tables["votes"]
    assert (vote.asked, vote.engines, vote.valid_engines, vote.needed) == (3, 2, 1, 1)
    assert (vote.kept, vote.waiting) == (True, False)
    assert [(b.engine, b.answered, b.valid, b.documents, b.gold_rank) for b in tables["engine_votes"]] == [
        ("a", True, True, 1, 1),
        ("b", True, False, 1, None),
        ("c", False, False, 0, None),
    ]


@pytest.mark.parametrize(
    ("quorum", "waiting"), [("majority", True), ("any", False), ("all", True), (1, False), (2, True), (9, True)]
)
def test_below_the_quorum_a_query_waits(run_stage: RunStage, quorum: str | int, waiting: bool) -> None:
    hits = [hit(Q, 1, "p1", engine="a", gold=True), failed("b"), failed("c")]
    (vote,) = run(run_stage, hits, quorum=quorum)["votes"]
    assert (vote.waiting, vote.kept) == (waiting, not waiting)


def test_a_query_that_nobody_answered_waits_whatever_the_rule(run_stage: RunStage) -> None:
    for rule in ("majority", "any", "all", 1):
        (vote,) = run(run_stage, [failed("a")], rule=rule, quorum="any")["votes"]
        assert (vote.engines, vote.waiting, vote.kept) == (0, True, False)


def test_a_quorum_above_the_engines_asked_is_all_of_them(run_stage: RunStage) -> None:
    assert run(run_stage, [hit(Q, 1, "p1", gold=True)], quorum=5)["votes"][0].kept


@pytest.mark.parametrize(("text", "kept"), [("Gioachino Rossini, composer of operas", True), ("An opera house", False)])
def test_a_document_from_elsewhere_may_say_the_answer(run_stage: RunStage, text: str, kept: bool) -> None:
    hits = [hit(Q, 1, None, title="", text=text)]
    assert run(run_stage, hits, valid="answer")["votes"][0].kept is kept


@pytest.mark.parametrize(
    ("valid", "passage_id", "gold", "kept"),
    [
        ("gold", "p2", False, False),
        ("answer", "p2", False, True),
        ("answer", "p1", True, False),  # gold, but without the whole answer
        ("gold-or-answer", "p1", True, True),
        ("gold-or-answer", "p2", False, True),
        ("gold-or-answer", "p3", False, False),
    ],
)
def test_what_makes_a_result_valid(run_stage: RunStage, valid: str, passage_id: str, gold: bool, kept: bool) -> None:
    assert run(run_stage, [hit(Q, 1, passage_id, gold=gold)], valid=valid)["votes"][0].kept is kept


def test_an_answer_of_several_facts_is_held_when_each_is(run_stage: RunStage) -> None:
    for text, kept in (("1792 is given, and Rossini", True), ("Rossini alone", False)):
        tables = run_stage(
            voting.STAGE,
            voting.FilterConfig(valid="answer"),
            queries=[Q],
            hits=[hit(Q, 1, None, title="", text=text)],
            sub_questions=[sub_question(sub_answer="Rossini; 1792")],
            passages=TEXTS,
        )
        assert tables["votes"][0].kept is kept


def test_votes_are_in_the_order_of_the_queries(run_stage: RunStage) -> None:
    queries = [query(n, question_id=f"q{q}") for q in range(40) for n in (2, 1)]
    hits = [hit(q, 1, "p1") for q in queries]
    tables = run_stage(voting.STAGE, queries=queries, hits=hits, sub_questions=[], passages=TEXTS)
    assert [vote.query_id for vote in tables["votes"]] == [q.query_id for q in queries]


def test_engine_votes_follow_the_queries_however_the_hits_are_cut_into_row_groups(
    run_stage: RunStage, tmp_path: Path
) -> None:
    queries = [query(1, question_id=f"q{number}") for number in range(2_000)]
    found = [hit(of, 1, "p1", engine=engine) for of in queries for engine in ("b", "a")]
    path = tmp_path / "many-groups.parquet"
    pq.write_table(HITS.to_arrow(found), path, row_group_size=50)
    tables = run_stage(voting.STAGE, queries=queries, hits=path, sub_questions=[sub_question()], passages=TEXTS)
    assert [(b.query_id, b.engine) for b in tables["engine_votes"]] == [(h.query_id, h.engine) for h in found]
    assert [vote.query_id for vote in tables["votes"]] == [of.query_id for of in queries]
