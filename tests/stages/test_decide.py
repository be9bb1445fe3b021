from __future__ import annotations

import pytest
from pydantic import ValidationError

from stepsearch_data.schemas.rows import Check
from stepsearch_data.stages import decide
from stepsearch_data.stages.decide import DecideConfig
from tests.builders import passage, question
from tests.stages.conftest import RunStage, Tables
from tests.stages.proof.test_decision import check, samples


def run(run_stage: RunStage, checks: list[Check], config: DecideConfig | None = None) -> Tables:
    tables = {"loaded": [question("q1"), question("q2")], "composed": [], "paragraphs": [passage("p1", "", "a")]}
    return run_stage(decide.STAGE, config, checks=checks, **tables)


def test_a_question_that_was_checked_has_a_verdict(run_stage: RunStage) -> None:
    (verdict,) = run(run_stage, [check("one_search"), check("bridge_named")])["verdicts"]
    assert (verdict.question_id, verdict.passed, verdict.first_failed) == ("q1", False, "bridge_named")
    assert verdict.corpus_passages == 1


def test_another_rule_decides_anew(run_stage: RunStage) -> None:
    checks = samples("closed_book", "fpp")
    assert [v.passed for v in run(run_stage, checks)["verdicts"]] == [True]
    assert [v.passed for v in run(run_stage, checks, DecideConfig(need=1))["verdicts"]] == [False]
    assert [v.passed for v in run(run_stage, checks, DecideConfig(need=1, gates=("unique",)))["verdicts"]] == [True]


def test_a_gate_must_be_a_check() -> None:
    with pytest.raises(ValidationError, match="'uniq' is no check; did you mean unique"):
        DecideConfig(gates=("uniq",))
