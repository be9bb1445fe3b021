"""Noisy demonstrations: what is wrong in them, and what stays true."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from stepsearch_data.templates.examples import Example, Paragraph, Search, Step
from stepsearch_data.trainer.demo.noise import demonstrations, noisy, steps_of

CHAIN = ("Ada", "Rome", "Italy", "Pia")
OTHERS = ("Ben", "Oslo", "Norway", "Kari")


def step(hop: int, subject: str, value: str) -> Step:
    paragraph = Paragraph(subject, f"{subject}: {value}.")
    found = Search(f"what of {subject}", (paragraph,), good=True)
    return Step(hop, "gold", f"What of {subject}?", value, found, (found.query,), (paragraph,))


def chain(index: int, entities: tuple[str, ...]) -> Example:
    steps = tuple(step(hop, *pair) for hop, pair in enumerate(pairwise(entities), 1))
    question = f"What of what of what of {entities[0]}?"
    return Example(index, "train", f"q{index}", "musique", question, (entities[-1],), len(steps), steps)


EXAMPLES = [chain(0, CHAIN), chain(1, OTHERS)]


def made(right: float, count: int = 400) -> list[Example]:
    rng, others = random.Random(0), steps_of(EXAMPLES)
    return [noisy(EXAMPLES[0], others, right, rng) for _ in range(count)]


def test_all_right_is_gold() -> None:
    assert made(1.0, 5) == [EXAMPLES[0]] * 5


@pytest.mark.parametrize("right", [0.0, 0.3, 0.8])
def test_steps_are_right_as_often_as_asked_or_by_chance(right: float) -> None:
    gold = EXAMPLES[0].steps
    share = sum(each.steps[at] == gold[at] for each in made(right) for at in range(3)) / 1200
    chance = (1 - right) / 2  # a wrong step may be the right one after all, at most as often as one of two
    assert right - 0.05 <= share <= right + chance + 0.05


def test_half_of_the_wrong_steps_ask_about_what_was_read() -> None:
    first = [each.steps[0].gold[0].title for each in made(0.0)]
    assert set(first) == {*CHAIN[:-1], *OTHERS[:-1]}
    assert 0.5 < first.count("Ada") / len(first) < 0.66  # half of them, and one in six of the others


def test_hops_count_on_and_the_answer_is_what_was_found_last() -> None:
    for each in made(0.2, 50):
        assert [step.hop for step in each.steps] == [1, 2, 3]
        assert each.answers == (each.steps[-1].found,)
        assert each.question == EXAMPLES[0].question


def test_each_trajectory_gives_a_simple_question_and_a_noisy_whole_the_same_for_a_seed() -> None:
    shown = demonstrations(EXAMPLES, 0.2, 3)
    assert shown == demonstrations(EXAMPLES, 0.2, 3) != demonstrations(EXAMPLES, 0.2, 4)
    simple, whole = shown[0], shown[1]
    only = simple.steps[0]
    assert simple == replace(
        EXAMPLES[0], question=only.sub_question, answers=(only.found,), hops=1, steps=(replace(only, hop=1),)
    )
    assert whole.hops == 3
