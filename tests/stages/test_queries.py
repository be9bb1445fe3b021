from __future__ import annotations

from stepsearch_data.stages import queries
from stepsearch_data.stages.rules import decompose
from tests.builders import question
from tests.stages.conftest import RunStage


def test_every_hop_gets_its_queries(run_stage: RunStage) -> None:
    asked = [question("q1"), question("q2", answerable=False), question("q3")]
    hops = [hop for row in asked if row.answerable for hop in decompose(row)]
    config = queries.QueriesConfig(per_sub_question=3)
    written = run_stage(queries.STAGE, config, questions=asked, sub_questions=hops)["queries"]
    assert [q.query_id for q in written] == [
        f"{q}/{hop}/{n}" for q in ("q1", "q3") for hop in (1, 2) for n in (1, 2, 3)
    ]
