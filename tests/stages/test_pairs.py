from __future__ import annotations

from typing import Any

from stepsearch_data.schemas.rows import RetrievedDocument
from stepsearch_data.stages import pairs
from tests.builders import hit, passage, query, question, search_round, sub_question, vote
from tests.stages.conftest import RunStage

TEXTS = [
    passage("p1", "The Barber of Seville", "Composed by Gioachino Rossini."),
    passage("p2", "Gioachino Rossini", "Born in Pesaro."),
    passage("p3", "Trap", "Nothing of use."),
]
HOPS = [sub_question(1), sub_question(2, sub_question="Where was he born?", gold_passage_ids=["p2"])]
GOOD_1, GOOD_2 = query(1, 1, text="Barber composer"), query(1, 2, text="Rossini born")
LOST, OUTVOTED = query(2, 2, text="born where"), query(3, 2, text="Rossini's birth")
QUERIES = [GOOD_1, GOOD_2, LOST, OUTVOTED]


def shown(passage_id: str, title: str, *, gold: bool) -> RetrievedDocument:
    return RetrievedDocument(
        rank=1, passage_id=passage_id, title=title, text=None, score=9.0, engine="bm25", is_gold=gold
    )


ROUNDS = [
    search_round(
        GOOD_1,
        sub_question=HOPS[0].sub_question,
        sub_answer="Rossini",
        documents=[shown("p1", "The Barber of Seville", gold=True)],
    ),
    search_round(
        GOOD_2,
        sub_question=HOPS[1].sub_question,
        sub_answer="Pesaro",
        documents=[shown("p2", "Gioachino Rossini", gold=True)],
    ),
]


def build(run_stage: RunStage, *kinds: str, rounds: list[Any] = ROUNDS, waiting: bool = False) -> list[Any]:
    found: list[Any] = run_stage(
        pairs.STAGE,
        pairs.PairsConfig(kinds=kinds),
        questions=[question()],
        sub_questions=HOPS,
        passages=TEXTS,
        queries=QUERIES,
        votes=[
            *(vote(good) for good in (GOOD_1, GOOD_2)),
            *(vote(bad, kept=False, waiting=waiting) for bad in (LOST, OUTVOTED)),
        ],
        hits=[
            hit(GOOD_1, 1, "p1", gold=True),
            hit(GOOD_2, 1, "p2", gold=True),
            hit(LOST, 1, "p3"),
            hit(OUTVOTED, 1, "p3"),
            hit(OUTVOTED, 2, "p2", gold=True),
        ],
        rounds=rounds,
    )["pairs"]
    return found


def test_there_are_none_unless_asked_for(run_stage: RunStage) -> None:
    assert build(run_stage) == []


def test_a_redundant_round_searches_again_what_the_round_before_has_found(run_stage: RunStage) -> None:
    (pair,) = build(run_stage, "redundant")
    assert (pair.round, pair.kind, pair.chosen_query, pair.rejected_query) == (
        2,
        "redundant",
        GOOD_2.query,
        GOOD_1.query,
    )
    thought = "<think> Next: Where was he born? </think>"
    assert pair.rejected == (
        f"{thought}\n<search> Barber composer </search>\n<information> "
        "Doc 1<## Title: The Barber of Seville ##> Composed by Gioachino Rossini. </information>"
    )
    assert pair.chosen == (
        f"{thought}\n<search> Rossini born </search>\n<information> "
        "Doc 1<## Title: Gioachino Rossini ##> Born in Pesaro. </information>"
    )
    assert pair.context.startswith("<think> Where was the composer of The Barber of Seville born? I need 2 searches.")
    assert pair.context.endswith("<observation> Rossini </observation>")


def test_a_miss_and_an_outvoted_query_are_told_apart(run_stage: RunStage) -> None:
    made = build(run_stage, "rejected-query", "missed")
    assert [(p.round, p.kind, p.rejected_query) for p in made] == [
        (2, "rejected-query", OUTVOTED.query),
        (2, "missed", LOST.query),
    ]
    assert "Doc 2<## Title: Gioachino Rossini ##>" in made[0].rejected
    assert "Nothing of use." in made[1].rejected


def test_queries_that_wait_for_an_engine_are_not_worse(run_stage: RunStage) -> None:
    assert build(run_stage, "missed", "rejected-query", waiting=True) == []


def test_a_search_that_says_the_answer_elsewhere_has_not_missed_it(run_stage: RunStage) -> None:
    (pair,) = build(run_stage, "missed")
    assert pair.rejected_query == LOST.query
    says = [ROUNDS[0], ROUNDS[1].model_copy(update={"sub_answer": "nothing of use"})]
    assert build(run_stage, "missed", rounds=says) == []


def test_a_round_that_is_not_good_is_no_example(run_stage: RunStage) -> None:
    for change in ({"kept": False}, {"gold_rank": None}, {"role": "abstain"}):
        assert build(run_stage, "missed", rounds=[ROUNDS[0], ROUNDS[1].model_copy(update=change)]) == []


def test_a_distractor_before_the_round_is_what_would_be_redundant(run_stage: RunStage) -> None:
    lost = search_round(LOST, 2, role="distractor", documents=[shown("p3", "Trap", gold=False)])
    made = build(run_stage, "redundant", "missed", rounds=[ROUNDS[0], lost, ROUNDS[1].model_copy(update={"round": 3})])
    assert [(p.round, p.kind, p.rejected_query) for p in made] == [(3, "redundant", LOST.query)]
    assert "That search did not help." in made[0].chosen
