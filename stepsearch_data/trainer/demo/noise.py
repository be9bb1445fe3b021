"""Demonstrations of a policy that can search, read and answer, but has hardly been shown how to plan.

A cold start on gold trajectories leaves little to learn, one on nothing leaves nothing to learn from. In between
lies what a small pretrained model is like: it answers simple questions and keeps to the format, but asks the wrong
things on the way to an answer that takes several searches: about something else that it has read of, or about
something that has nothing to do with the question.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from stepsearch_data.templates.examples import Example, Step

NEAR = 0.5
"""The share of wrong steps that ask about something that was read."""

Steps = Mapping[str, Sequence[Step]]
"""Steps by the title of the paragraph that they look for."""


def steps_of(examples: Sequence[Example]) -> Steps:
    """Collect all steps of some trajectories."""
    found: defaultdict[str, dict[str, Step]] = defaultdict(dict)
    for step in (step for example in examples for step in example.steps):
        found[step.gold[0].title][step.gold[0].text] = step
    return {title: [*steps.values()] for title, steps in found.items()}


def one_hop(example: Example, rng: random.Random) -> Example:
    """Make a question of one step of a trajectory."""
    step = rng.choice(example.steps)
    return replace(example, question=step.sub_question, answers=(step.found,), hops=1, steps=(replace(step, hop=1),))


def noisy(example: Example, others: Steps, right: float, rng: random.Random) -> Example:
    """Keep each step of a trajectory with a probability, else replace it by another one.

    Its answer is what its last step found, so that it still shows how an answer follows from what was read.
    """
    steps: list[Step] = []
    read = example.question
    for gold in example.steps:
        step = gold
        if rng.random() >= right:
            near = [title for title in others if title in read] if rng.random() < NEAR else []
            step = replace(rng.choice(others[rng.choice(near or [*others])]), hop=gold.hop)
        steps.append(step)
        read += " ".join(document.text for document in step.search.documents)
    return replace(example, answers=(steps[-1].found,), steps=tuple(steps))


def demonstrations(examples: Sequence[Example], right: float, seed: int) -> list[Example]:
    """Make two demonstrations per trajectory: one step as a simple question, and the whole, noisy."""
    rng, others = random.Random(seed), steps_of(examples)
    return [made for each in examples for made in (one_hop(each, rng), noisy(each, others, right, rng))]
