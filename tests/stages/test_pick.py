"""A scripted teacher: exactly its good rollouts are taken, and every other one has its reason."""

from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.schemas.rows import Quality, Rollout
from stepsearch_data.stages.pick import STAGE, PickConfig
from tests.builders import question, rollout
from tests.stages.conftest import RunStage, Tables

GOLD_1 = ("The Barber of Seville", "The opera was composed by Gioachino Rossini.")
GOLD_2 = ("Gioachino Rossini", "Rossini was born in Pesaro.")
OTHER = ("Trap", "Nothing of use.")
Shown = tuple[str, str]


def search(query: str, *shown: Shown) -> str:
    lines = "\n".join(f"Doc {at}<## Title: {title} ##> {text}" for at, (title, text) in enumerate(shown, start=1))
    return f"<think> I look for it </think>\n<search> {query} </search>\n<information>\n{lines}\n</information>\n"


def answer(text: str) -> str:
    return f"<think> I know </think>\n<answer> {text} </answer>"


def quality(question_id: str = "q1", **fields: Any) -> Quality:
    defaults: dict[str, Any] = {
        "source": "musique",
        "passed": True,
        "flags": [],
        "reasons": [],
        "split": "train",
        "split_group": "p1",
        "duplicate_of": None,
        "difficulty": "easy",
        "difficulty_score": 0.0,
        "pass_rate": None,
    }
    return Quality(question_id=question_id, **{**defaults, **fields})


def played(
    sample: int, response: str, *, right: bool = True, found: int = 2, searches: int = 2, **fields: Any
) -> Rollout:
    given = "Pesaro" if right else "Rome"
    own = {"response": response, "right": right, "answer": given, "format_ok": True, "gold_found": found}
    return rollout(sample=sample, **{**own, "searches": searches, **fields})


FIRST, SECOND = search("Barber composer", GOLD_1), search("Rossini born", GOLD_2)
GOOD = FIRST + SECOND + answer("Pesaro")
SHORT = search("Barber composer birthplace", GOLD_1, GOLD_2) + answer("Pesaro")
WARNED = "Hm.\n<warning> This is neither a search nor an answer. </warning>\n"
ROLLOUTS = [
    played(1, GOOD),
    played(2, FIRST + SECOND + answer("Rome"), right=False),
    played(3, search("Barber composer", OTHER) + answer("Pesaro"), found=0, searches=1),
    played(4, search("was it Pesaro?", GOLD_1, GOLD_2) + answer("Pesaro"), searches=1),
    played(5, GOOD + " perhaps", format_ok=False),
    played(6, SHORT, searches=1),
    played(7, FIRST + search("Rossini born in Pesaro", GOLD_2) + answer("Pesaro")),
    played(8, FIRST + SECOND + search("Pesaro", GOLD_2) + answer("Pesaro"), searches=3),  # it has read it by then
    played(9, WARNED + SHORT, searches=1, observations=[[4, 60], [100, 120]]),
    played(10, answer("Pesaro"), found=0, searches=0),
    played(11, FIRST + SECOND, right=False, answer=None),
]
OTHERS = [played(1, SHORT, policy="student", searches=1)]


def pick(run_stage: RunStage, *rollouts: Rollout, judged: Quality | None = None, **config: Any) -> Tables:
    rows = [quality()] if judged is None else [judged]
    config = {"teacher": "mine", **config}
    return run_stage(STAGE, PickConfig(**config), questions=[question()], quality=rows, rollouts=list(rollouts))


def test_exactly_the_good_ones_are_taken_and_the_others_have_their_reasons(run_stage: RunStage) -> None:
    picks = pick(run_stage, *ROLLOUTS, *OTHERS)["picks"]
    assert {(row.policy, row.sample): row.failed for row in picks} == {
        ("mine", 1): "best",
        ("mine", 2): "answer",
        ("mine", 3): "searched",
        ("mine", 4): "leak",
        ("mine", 5): "format",
        ("mine", 6): "",
        ("mine", 7): "leak",
        ("mine", 8): "best",
        ("mine", 9): "format",
        ("mine", 10): "searched",
        ("mine", 11): "answer",
        ("student", 1): "teacher",
    }
    assert [row.sample for row in picks if row.taken] == [6]
    assert {row.sample: row.reason for row in picks if row.policy == "mine"} == {
        1: "not the shortest: taken is sample 6",
        2: "wrong: Rome",
        3: "guessed: 0 of 2 gold passages were shown",
        4: "query 1 says 'Pesaro' before it was found: was it Pesaro?",
        5: "it is not in the paper's format",
        6: "",
        7: "query 2 says 'Pesaro' before it was found: Rossini born in Pesaro",
        8: "not the shortest: taken is sample 6",
        9: "a turn is neither a search nor an answer",
        10: "guessed: 0 of 2 gold passages were shown",
        11: "it has no answer",
    }


def test_several_of_a_question_or_the_most_informative(run_stage: RunStage) -> None:
    picks = pick(run_stage, *ROLLOUTS, per_question=2)["picks"]
    assert [row.sample for row in picks if row.taken] == [1, 6]
    rows = [played(1, SHORT, searches=1, information_gain=0.4), played(2, GOOD, information_gain=1.0)]
    assert [row.sample for row in pick(run_stage, *rows, best="informative")["picks"] if row.taken] == [2]
    assert [row.sample for row in pick(run_stage, *rows)["picks"] if row.taken] == [1]
    few = [played(3, search("Barber composer", GOLD_1) + answer("Pesaro"), found=1, searches=1)]
    assert pick(run_stage, *few, gold=0.5)["picks"][0].taken


def test_there_must_be_rollouts(run_stage: RunStage) -> None:
    with pytest.raises(ConfigError, match=r"pick\.teacher needs rollouts"):
        run_stage(STAGE, PickConfig(teacher="mine"), questions=[question()], quality=[quality()])


def test_a_question_that_failed_a_gate_gives_nothing(run_stage: RunStage) -> None:
    failed = quality(passed=False, flags=["duplicate"], reasons=["the same words as q0"], split="")
    (row,) = pick(run_stage, ROLLOUTS[0], judged=failed)["picks"]
    assert (row.taken, row.failed, row.reason) == (False, "gates", "the same words as q0")


def test_a_right_and_a_wrong_rollout_part_somewhere(run_stage: RunStage) -> None:
    (pair,) = pick(run_stage, ROLLOUTS[0], ROLLOUTS[1])["preferences"]
    assert (pair.chosen_sample, pair.rejected_sample, pair.turn) == (1, 2, 3)
    assert pair.context == (FIRST + SECOND).rstrip()
    assert (pair.chosen, pair.rejected) == (answer("Pesaro"), answer("Rome"))
    (early,) = pick(run_stage, ROLLOUTS[5], ROLLOUTS[1])["preferences"]
    assert (early.turn, early.context) == (1, "")
    assert early.chosen == "<think> I look for it </think>\n<search> Barber composer birthplace </search>"
    assert early.rejected == "<think> I look for it </think>\n<search> Barber composer </search>"
    assert not pick(run_stage, ROLLOUTS[0])["preferences"]


def test_a_pair_is_with_the_first_wrong_one_that_wrote_something_else(run_stage: RunStage) -> None:
    cut_off = played(2, FIRST + SECOND, right=False, answer=None)
    the_same = played(3, FIRST + SECOND + answer("Pesaro"), right=False)
    wrong = [played(at, FIRST + SECOND + answer(text), right=False) for at, text in ((4, "Rome"), (5, "Milan"))]
    (pair,) = pick(run_stage, ROLLOUTS[0], cut_off, the_same, *wrong)["preferences"]
    assert (pair.chosen_sample, pair.rejected_sample) == (1, 4)
    assert not pick(run_stage, ROLLOUTS[0], cut_off, the_same)["preferences"]


SEARCH_R1_WARNED = (
    "Hm.\nMy previous action is invalid. If I want to search, I should put the query between <search> and </search>. "
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n"
)
LAST = "<warning> No search is left. Answer now. </warning>\n"


@pytest.mark.parametrize("warning", [WARNED, SEARCH_R1_WARNED])
def test_a_turn_that_was_neither_is_found_by_its_warning(run_stage: RunStage, warning: str) -> None:
    """Other programs' files have no `observations`."""
    for text in (warning + GOOD, FIRST + warning + SECOND + answer("Pesaro")):
        (row,) = pick(run_stage, played(1, text))["picks"]
        assert (row.failed, row.reason) == ("format", "a turn is neither a search nor an answer")
    told = search("Barber composer", GOLD_1, ("Manners", WARNED)) + SECOND + LAST + answer("Pesaro")
    assert pick(run_stage, played(1, told))["picks"][0].taken


def test_what_the_environment_wrote_is_in_neither_side(run_stage: RunStage) -> None:
    right, wrong = (FIRST + LAST + answer(text) for text in ("Pesaro", "Rome"))
    places = [[FIRST.index("<information>"), len(FIRST + LAST)]]
    rows = [played(1, right, searches=1, observations=places), played(2, wrong, right=False, observations=places)]
    (pair,) = pick(run_stage, *rows)["preferences"]
    assert (pair.turn, pair.chosen, pair.rejected) == (2, answer("Pesaro"), answer("Rome"))
