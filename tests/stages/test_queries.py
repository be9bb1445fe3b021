from __future__ import annotations

import pytest

from stepsearch_data.stages import queries
from stepsearch_data.stages.rules import decompose
from tests.builders import question, supporting
from tests.stages.conftest import RunStage


def test_every_hop_gets_its_queries(run_stage: RunStage) -> None:
    asked = [question("q1"), question("q2", answerable=False), question("q3")]
    hops = [hop for row in asked if row.answerable for hop in decompose(row)]
    config = queries.QueriesConfig(per_sub_question=3)
    written = run_stage(queries.STAGE, config, questions=asked, sub_questions=hops)["queries"]
    assert [q.query_id for q in written] == [
        f"{q}/{hop}/{n}" for q in ("q1", "q3") for hop in (1, 2) for n in (1, 2, 3)
    ]


GIVEN = question(
    "q1",
    source="stepsearch",
    supporting=[
        supporting(
            "p1",
            "The Barber of Seville",
            "The opera was composed by Gioachino Rossini.",
            queries=[
                "Seville opera composer",
                "Seville opera: composer!",
                "composer born in Pesaro",
                "who composed it",
            ],
        ),
        supporting("p2", "Gioachino Rossini", "Rossini was born in Pesaro.", queries=["Rossini, born in Pesaro"]),
    ],
)


@pytest.mark.parametrize(
    ("count", "kept"), [(4, ["Seville opera composer", "who composed it"]), (1, ["Seville opera composer"])]
)
def test_a_sources_own_queries_are_taken_unless_they_leak(run_stage: RunStage, count: int, kept: list[str]) -> None:
    hops = decompose(GIVEN)
    config = queries.QueriesConfig(per_sub_question=count)
    written = run_stage(queries.STAGE, config, questions=[GIVEN], sub_questions=hops)["queries"]
    assert [(q.query, q.method) for q in written if q.hop == 1] == [(query, "given") for query in kept]
    second = [q for q in written if q.hop == 2]  # its only query says the answer
    assert second
    assert all("Pesaro" not in q.query and q.method != "given" for q in second)


def test_a_sources_own_queries_may_be_replaced(run_stage: RunStage) -> None:
    config = queries.QueriesConfig(given=False)
    written = run_stage(queries.STAGE, config, questions=[GIVEN], sub_questions=decompose(GIVEN))["queries"]
    assert {q.hop for q in written} == {1, 2}
    assert "given" not in {q.method for q in written}
