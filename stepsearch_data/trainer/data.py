"""What is learnt from: a store's questions as tasks, its gold trajectories as demonstrations."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import numpy as np

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.exports.reading import examples
from stepsearch_data.pipeline.demonstrations import refuse_templates
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.tables import QUESTIONS
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.forms import Form
from stepsearch_data.trainer.search_env import Task
from stepsearch_data.trainer.stops import Encode


def load_examples(store: Store, split: str | None, *, allow_templates: bool = False) -> Iterator[Example]:
    """Yield the complete trajectories of a split, or of all, that passed the gates, in the order of the store.

    Raises StoreError, also for questions by templates, unless they are allowed.
    """
    with store.reading() as manifest:
        if not allow_templates:
            refuse_templates(store.tables(manifest, QUESTIONS)[QUESTIONS], "allow_templates = true")
        found = examples(store, manifest, everything=False, with_rejected=False)
        yield from (example for example in found if split in {None, example.split})


def subsample(examples: Iterable[Example], count: int, *, each_source: bool = False) -> list[Example]:
    """Choose so many of them, or of each source, by a hash of their ids.

    A larger sample begins with the smaller one. The first ones of a store may be of one source or number of hops.
    """
    heaps: defaultdict[str, list[tuple[int, int, Example]]] = defaultdict(list)
    for at, example in enumerate(examples):
        lot = int.from_bytes(blake2b(example.question_id.encode(), digest_size=8).digest())
        heap = heaps[example.source if each_source else ""]
        heapq.heappush(heap, (-lot, at, example))
        if len(heap) > count:
            heapq.heappop(heap)
    return [example for heap in heaps.values() for *_, example in sorted(heap, reverse=True)]


def task_index(position: int, size: int, seed: int) -> int:
    """Return which of so many tasks stands at a position of training: each epoch takes all, in another order."""
    epoch, at = divmod(position, size)
    return int(np.random.default_rng((seed, epoch)).permutation(size)[at])


def load_tag_template(template: str) -> Template:
    """Load the template of this name or file.

    Raises ConfigError for one that calls tools: episodes are written in tags.
    """
    found = load_template(template)
    if found.tool:
        raise ConfigError(f"the template {found.name} calls a tool; episodes are written in tags", "musique or paper")
    return found


def to_task(example: Example, template: Template) -> Task:
    """Make a task of a trajectory: its question, and what its rollouts are scored against."""
    return Task(
        id=example.question_id,
        question=example.question,
        prompt=template.opening(example.question),
        answers=example.answers,
        search_keys=example.keys,
        support_docs=example.gold,
        source=example.source,
        hops=example.hops,
    )


def written_turns(example: Example, template: Template, form: Form, encode: Encode) -> list[list[int]]:
    """Return the tokens of the turns of a gold trajectory, in the form of an episode: its searches and its answer."""
    turns = [*(template.turn(example, at) for at in range(len(example.steps))), template.last(example)]
    return [[*encode(text), *ending] for text, ending in map(form.write, turns)]


def demonstrate(example: Example, template: Template, form: Form, encode: Encode, end: int) -> dict[str, list[int]]:
    """Write a gold trajectory in the form of an episode: token ids, and labels, −100 where nothing is learnt.

    That is on prompt and observations. It ends with the token `end`, which is learnt.
    """
    prompt = form.prompt(example.question, template.opening(example.question))
    ids, labels = list(prompt), [-100] * len(prompt)

    def add(tokens: Sequence[int], *, own: bool) -> None:
        ids.extend(tokens)
        labels.extend(tokens if own else [-100] * len(tokens))

    *turns, last = written_turns(example, template, form, encode)
    for turn, step in zip(turns, example.steps, strict=True):
        add(turn, own=True)
        shown = f"\n{template.observation(step.search.documents)}\n"
        add(form.follow(shown, ids[-1], called=True), own=False)
    add([*last, end], own=True)
    return {"input_ids": ids, "labels": labels}


def demonstration(example: Example, template: Template) -> list[tuple[str, bool]]:
    """Write a gold trajectory as an episode would: texts, and whether each is the policy's own."""
    parts = [(template.opening(example.question), False)]
    for at, step in enumerate(example.steps):
        parts.append((template.turn(example, at).text, True))
        parts.append((f"\n{template.observation(step.search.documents)}\n", False))
    return [*parts, (template.last(example).text, True)]
