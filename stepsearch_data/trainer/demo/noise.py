"""Demonstrations of a policy that can search, read and answer, but has hardly been shown how to plan.

A cold start on gold trajectories leaves little to learn, one on nothing leaves nothing to learn from. In between
lies what a small pretrained model is like: it answers simple questions and keeps to the format, but asks the wrong
things on the way to an answer that takes several searches.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from stepsearch_data.exports.examples import Example


def one_hop(example: Example, rng: random.Random) -> Example:
    """A step of a trajectory as a question of its own."""
    step = rng.choice(example.steps)
    return replace(example, question=step.sub_question, answers=(step.found,), hops=1, steps=(replace(step, hop=1),))


def noisy(example: Example, others: Sequence[Example], right: float, rng: random.Random) -> Example:
    """A trajectory each of whose steps is right with a probability, else a step of another question.

    Its answer is what its last step found, so that it still shows how an answer follows from what was read.
    """
    steps = [
        step if rng.random() < right else replace(rng.choice(rng.choice(others).steps), hop=step.hop)
        for step in example.steps
    ]
    return replace(example, answers=(steps[-1].found,), steps=tuple(steps))


def demonstrations(examples: Sequence[Example], right: float, seed: int) -> list[Example]:
    """Of each trajectory one step as a simple question, and the whole, noisy."""
    rng = random.Random(seed)
    return [made for each in examples for made in (one_hop(each, rng), noisy(each, examples, right, rng))]
