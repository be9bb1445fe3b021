"""Laws of the splits, whatever the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.stages.gates.config import QualityConfig
from stepsearch_data.stages.gates.splits import Groups, split_of, wording

Questions = list[tuple[str, list[str]]]
PASSAGES = [f"{number:016x}" for number in range(40)]


@st.composite
def questions(draw: st.DrawFn, prefix: str = "q", passages: Sequence[str] = tuple(PASSAGES)) -> Questions:
    """Questions with different wordings and up to four gold passages each."""
    gold = draw(st.lists(st.lists(st.sampled_from(passages), min_size=1, max_size=4, unique=True), max_size=25))
    return [(f"{prefix}{number}", ids) for number, ids in enumerate(gold)]


def splits(given_questions: Questions, largest: int = 50, validation: float = 0.5) -> dict[str, tuple[str, str]]:
    """Group and split of every question."""
    config = QualityConfig(validation=validation, largest_validation_group=largest)
    groups = Groups()
    for part in (given_questions[:3], given_questions[3:]):
        wordings = [wording(question) for question, _ in part]
        groups.add(np.array(wordings, np.uint64), [passages for _, passages in part])
    groups.find()
    return {
        question: (groups.name(place), split_of(groups.name(place), groups.size(place), config))
        for place, (question, _) in enumerate(given_questions)
    }


@given(questions(), st.integers(1, 30))
def test_no_gold_passage_is_in_two_splits(some: Questions, largest: int) -> None:
    found = splits(some, largest)
    by_passage: dict[str, set[str]] = {}
    for question, passages in some:
        for passage in passages:
            by_passage.setdefault(passage, set()).add(found[question][1])
    assert all(len(used) == 1 for used in by_passage.values())


@given(questions(), st.randoms(use_true_random=False))
def test_the_order_of_the_data_changes_nothing(some: Questions, random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert splits(shuffled) == splits(some)


@given(questions(), questions("other", [f"f{number:015x}" for number in range(20)]))
def test_unrelated_questions_move_nothing(some: Questions, others: Questions) -> None:
    before, after = splits(some), splits(some + others)
    assert before == {question: after[question] for question in before}


@given(questions(), questions("added"))
def test_added_questions_move_at_most_the_groups_that_they_touch(some: Questions, added: Questions) -> None:
    before, after = splits(some), splits(some + added)
    touched = {after[question][0] for question, _ in added}
    moved = {question for question in before if before[question] != after[question]}
    assert {after[question][0] for question in moved} <= touched


@given(questions())
def test_a_group_is_named_by_its_smallest_passage(some: Questions) -> None:
    found = splits(some)
    for question, passages in some:
        name = found[question][0]
        assert name <= min(passages)
        assert any(name in other for asked, other in some if found[asked][0] == name)


def test_two_groups_that_merge_take_the_split_of_the_smaller_name() -> None:
    apart = [(f"q{number}", [passage]) for number, passage in enumerate(PASSAGES)]
    before = splits(apart)
    train = next(question for question, found in before.items() if found[1] == "train")
    validation = next(question for question, found in before.items() if found[1] == "validation")
    both = [before[train][0], before[validation][0]]
    after = splits([*apart, ("bridge", both)])
    assert {after[question] for question in (train, validation, "bridge")} == {
        (min(both), before[train if before[train][0] == min(both) else validation][1])
    }
    assert {question for question in before if before[question] != after[question]} <= {train, validation}


def test_the_same_words_are_in_one_group() -> None:
    found = splits([("Where is it?", ["a1"]), ("where is it", ["b1"]), ("Who is it?", ["c1"])])
    assert [name for name, _ in found.values()] == ["a1", "a1", "c1"]


def test_a_question_without_passages_is_a_group_by_its_wording() -> None:
    found = splits([("Where?", []), ("where", []), ("Who?", [])])
    where, who = (f"wording {wording(text):016x}" for text in ("Where?", "Who?"))
    assert [name for name, _ in found.values()] == [where, where, who]


def test_a_large_group_is_train() -> None:
    config = QualityConfig(validation=0.999, largest_validation_group=50)
    assert [split_of("a", size, config) for size in (51, 50)] == ["train", "validation"]


def test_the_share_is_that_of_the_groups_and_another_seed_draws_again() -> None:
    drawn = [[split_of(f"{n:016x}", 1, QualityConfig(seed=seed)) for n in range(10_000)] for seed in (0, 1)]
    assert all(400 < split.count("validation") < 600 for split in drawn)
    assert drawn[0] != drawn[1]
