"""What is read of a question's rollouts."""

from __future__ import annotations

import sys
from types import FrameType

from stepsearch_data.exports.reading import Played, plays
from stepsearch_data.pipeline.questions import QuestionRows
from stepsearch_data.schemas.rows import Rollout, RolloutTurn
from stepsearch_data.schemas.tables import ROLLOUT_TURNS, ROLLOUTS
from tests.builders import question, rollout
from tests.exports.conftest import turn

Rollouts = list[Rollout]


def rows_of(samples: int) -> tuple[Rollouts, list[RolloutTurn], QuestionRows]:
    """Two policies, each with so many rollouts of a question; every second one searches twice."""
    rollouts = [rollout("q1", policy, sample) for sample in range(1, samples + 1) for policy in ("a", "b")]
    turns = [
        turn(number, f"{each.policy} {each.sample} {number}").model_copy(
            update={"policy": each.policy, "sample": each.sample}
        )
        for each in rollouts
        for number in (1, 2)
        if each.sample % 2
    ]
    return rollouts, turns, QuestionRows(question("q1"), {ROLLOUTS: rollouts, ROLLOUT_TURNS: turns})


def test_a_rollout_comes_with_its_own_turns() -> None:
    rollouts, _, rows = rows_of(3)
    found = list(plays(rows, "train"))
    assert [one.rollout for one in found] == rollouts
    for one in found:
        expected = [f"{one.rollout.policy} {one.rollout.sample} {number}" for number in (1, 2)]
        assert [each.query for each in one.turns] == (expected if one.rollout.sample % 2 else [])
        assert one.passes == (0, 3)


def calls_of(samples: int) -> int:
    """Function calls that it takes to read so many rollouts of each policy."""
    *_, rows = rows_of(samples)
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        found: list[Played] = list(plays(rows, "train"))
    finally:
        sys.setprofile(None)
    assert len(found) == 2 * samples
    return calls


def test_twice_the_samples_take_twice_the_work() -> None:
    assert calls_of(100) < 3 * calls_of(50)
