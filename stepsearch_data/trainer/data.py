"""What is learnt from: a store's questions as tasks, its gold trajectories as demonstrations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepsearch_data.exports.examples import Example
from stepsearch_data.exports.reading import examples
from stepsearch_data.exports.template import Template
from stepsearch_data.exports.template_file import load_template
from stepsearch_data.pipeline.errors import ConfigError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.trainer.episode import Encode, Task


def load_examples(store: Store, split: str) -> Iterator[Example]:
    """The complete trajectories of a split that passed the gates, in the order of the store. Raises StoreError."""
    with store.reading() as manifest:
        found = examples(store, manifest, everything=False, with_rejected=False)
        yield from (example for example in found if example.split == split)


def load_tags(template: str) -> Template:
    """The template of this name or file. Raises ConfigError for one that calls tools: episodes are written in tags."""
    found = load_template(template)
    if found.tool:
        raise ConfigError(f"the template {found.name} calls a tool; episodes are written in tags", "musique or paper")
    return found


def to_task(example: Example, template: Template) -> Task:
    """The question of a trajectory, and what its rollouts are scored against."""
    return Task(
        id=example.question_id,
        question=example.question,
        prompt=template.opening(example.question),
        answers=example.answers,
        keys=example.keys,
        golds=example.gold,
        source=example.source,
    )


def demonstration(example: Example, template: Template) -> list[tuple[str, bool]]:
    """A gold trajectory as an episode would write it: texts, and whether each is the policy's own."""
    parts = [(template.opening(example.question), False)]
    for at, step in enumerate(example.steps):
        parts.append((template.turn(example, at).text, True))
        parts.append((f"\n{template.observation(step.search.documents)}\n", False))
    return [*parts, (template.last(example).text, True)]


def encode_demonstration(parts: Sequence[tuple[str, bool]], encode: Encode, eos: int) -> dict[str, list[int]]:
    """Token ids and labels, −100 where nothing is learnt: prompt and observations. Ends with `eos`, which is learnt.

    Parts are encoded one by one, as episodes do.
    """
    ids, labels = [], []
    for text, own in parts:
        tokens = encode(text)
        ids += tokens
        labels += tokens if own else [-100] * len(tokens)
    return {"input_ids": [*ids, eos], "labels": [*labels, eos]}
