from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.schemas.rows import Check
from stepsearch_data.stages.proof.decision import CHECKS, GATES, READINGS, SIGNALS, decide, failures, majority
from tests.builders import question


def check(name: str, outcome: str = "failed", **fields: Any) -> Check:
    defaults: dict[str, Any] = {
        "part": "",
        "sample": 0,
        "judge": "rules" if name in SIGNALS else "mock",
        "answer": "",
        "right": None,
        "quotes": [],
        "quotes_valid": None,
        "reason": "",
    }
    return Check(question_id="q1", source="musique", check=name, outcome=outcome, **{**defaults, **fields})


def samples(name: str, outcomes: str, part: str = "") -> list[Check]:
    """One row a letter: f fails, p passes."""
    said = {"f": "failed", "p": "passed"}
    return [check(name, said[letter], sample=n, part=part) for n, letter in enumerate(outcomes)]


@pytest.mark.parametrize(("number", "least"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_more_than_half_decide(number: int, least: int) -> None:
    assert majority(number) == least == -(-(number + 1) // 2)


@pytest.mark.parametrize(
    ("rows", "need", "fails"),
    [
        (samples("closed_book", "fpp"), None, False),
        (samples("closed_book", "ffp"), None, True),
        (samples("closed_book", "ffp"), 3, False),
        (samples("closed_book", "fpp"), 1, True),
        (samples("answerable", "fpp"), None, False),
        (samples("answerable", "ffp"), None, True),
        (samples("answerable", "ffp"), 1, False),
        (samples("answerable", "fpp"), 3, True),
        (samples("left_one_out", "fpp", "p1") + samples("left_one_out", "fpp", "p2"), None, False),
        (samples("left_one_out", "ppp", "p1") + samples("left_one_out", "ffp", "p2"), None, True),
        ([check("closed_book", "void")], None, False),
        ([check("unique", "unasked")], None, False),
        ([check("unlinked_hop")], 3, True),
    ],
)
def test_the_samples_of_a_check_decide(rows: list[Check], need: int | None, fails: bool) -> None:
    assert bool(list(failures(rows, need))) == fails


def test_a_question_passes_that_fails_no_gate() -> None:
    rows = [check(name, "failed" if name == "one_search" else "passed") for name in CHECKS]
    verdict = decide(question(), rows, GATES, None, 4_041)
    assert (verdict.passed, verdict.complete, verdict.failed, verdict.first_failed) == (
        True,
        True,
        ["one_search"],
        None,
    )
    assert verdict.judged_by == ["rules", "mock"]
    assert verdict.corpus_passages == 4_041


def test_the_first_gate_that_fails_is_named() -> None:
    rows = [check("left_one_out"), check("bridge_named"), check("several_titles")]
    verdict = decide(question(), rows, GATES, None, 1)
    assert verdict.failed == ["bridge_named", "several_titles", "left_one_out"]
    assert verdict.first_failed == "bridge_named"
    assert not verdict.passed


def test_what_was_never_asked_is_not_passed() -> None:
    stopped = [*samples("closed_book", "ffp"), *(check(name, "unasked") for name in READINGS[1:])]
    assert decide(question(), stopped, GATES, None, 1).complete
    lenient = decide(question(), stopped, GATES, 3, 1)
    assert (lenient.passed, lenient.complete, lenient.first_failed) == (False, False, None)


def test_the_gates_are_checks() -> None:
    assert set(GATES) <= set(CHECKS)
    assert len(set(CHECKS)) == len(CHECKS)
