from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from stepsearch_data.schemas.rows import Check, Composed, DecompositionStep, Question
from stepsearch_data.search.kinds import choose
from stepsearch_data.stages import index, verify
from stepsearch_data.stages.proof.decision import SIGNALS
from stepsearch_data.stages.verify import VerifyConfig
from tests.builders import composed, passage, question, supporting
from tests.stages.conftest import RunStage, Tables

OPERA = ("p1", "The Barber of Seville", "The opera was composed by Gioachino Rossini.")
COMPOSER = ("p2", "Gioachino Rossini", "Rossini was born in Pesaro.")
OTHERS = [("p3", "Seville", "Seville is a city."), ("p4", "Bari", "Bari is a town where a composer was born.")]
BM25 = choose(["bm25"], {})


def asked(question_id: str = "q1", **fields: Any) -> Question:
    steps = [("Who composed The Barber of Seville?", "Gioachino Rossini"), ("Where was #1 born?", "Pesaro")]
    given: dict[str, Any] = {
        "supporting": [supporting(*OPERA), supporting(*COMPOSER)],
        "decomposition": [
            DecompositionStep(text=text, answer=answer, passage_id=f"p{n}") for n, (text, answer) in enumerate(steps, 1)
        ],
    }
    return question(question_id, **{**given, **fields})


def run(
    run_stage: RunStage, *questions: Question, made: Sequence[Composed] = (), engines: Any = BM25, **config: Any
) -> Tables:
    passages = [passage(*of) for of in (OPERA, COMPOSER, *OTHERS)]
    tables = {"loaded": list(questions), "composed": list(made), "paragraphs": passages}
    indexed = run_stage(index.STAGE, engines=BM25, **{read.name: passages for read in index.STAGE.reads})
    return run_stage(verify.STAGE, VerifyConfig(**config), engines, index=indexed["index"], **tables)


def test_composed_questions_come_after_those_of_the_sources_where_they_were_kept(run_stage: RunStage) -> None:
    skipped = composed("corpus__s", status="skipped", question="", answer="", reason="nothing joins them")
    kept = composed("corpus__k", decomposition=asked().decomposition)
    checks = run(run_stage, asked(), made=[skipped, kept])["checks"]
    assert list(dict.fromkeys((check.question_id, check.source) for check in checks)) == [
        ("q1", "musique"),
        ("corpus__k", "corpus"),
    ]
    of_each = [[(c.check, c.outcome) for c in checks if c.question_id == name] for name in ("q1", "corpus__k")]
    assert of_each[0] == of_each[1]


def outcomes(checks: list[Check]) -> dict[str, str]:
    return {check.check: check.outcome for check in checks}


def test_every_signal_has_a_row_and_its_judge(run_stage: RunStage) -> None:
    checks = run(run_stage, asked())["checks"]
    assert [check.check for check in checks] == list(SIGNALS)
    assert {check.judge for check in checks if check.check.startswith(("one_search", "shown"))} == {"bm25"}
    assert outcomes(checks)["unlinked_hop"] == "passed"
    assert outcomes(checks)["shown_at_once"] == "failed"  # four passages are few


def test_questions_keep_their_order_and_twins_without_an_answer_have_no_row(run_stage: RunStage) -> None:
    twin = asked("q1__unanswerable", answerable=False)
    named = asked("q2", question="Where was Gioachino Rossini, composer of The Barber of Seville, born?")
    checks = run(run_stage, asked("q1"), twin, named)["checks"]
    assert list(dict.fromkeys(check.question_id for check in checks)) == ["q1", "q2"]
    (row,) = [check for check in checks if check.check == "bridge_named" and check.question_id == "q2"]
    assert (row.outcome, row.reason) == ("failed", "Gioachino Rossini")


def test_without_an_engine_over_its_own_passages_nothing_is_searched(run_stage: RunStage) -> None:
    checks = run(run_stage, asked(), engines=())["checks"]
    assert {check.judge for check in checks} == {"rules"}


def test_no_engine_is_asked_that_may_have_to_be_paid_for(run_stage: RunStage) -> None:
    dense = choose(["dense"], {"dense": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}})
    checks = run(run_stage, asked(), engines=dense)["checks"]
    assert {check.judge for check in checks} == {"rules"}


def test_signals_may_be_left_out(run_stage: RunStage) -> None:
    assert run(run_stage, asked(), signals=False)["checks"] == []
    assert run(run_stage)["checks"] == []


def test_a_check_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="'unlinked' is no check; did you mean unlinked_hop"):
        VerifyConfig(stop=("unlinked",))


def test_questions_are_drawn_by_nothing_but_their_ids() -> None:
    ids = [f"q{n}" for n in range(1_000)]
    few, more = VerifyConfig(sample=10).drawn(ids), VerifyConfig(sample=20).drawn(reversed(ids))
    assert few is not None
    assert more is not None
    assert few < more
    assert VerifyConfig().drawn(ids) is None
    whole = sum(VerifyConfig().whole(question_id) for question_id in ids)
    assert 25 <= whole <= 80  # 5 %
    assert all(VerifyConfig(sample_all=1).whole(question_id) for question_id in ids)
    assert not any(VerifyConfig(sample_all=0).whole(question_id) for question_id in ids)
