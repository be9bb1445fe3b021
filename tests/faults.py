"""Questions of the synthetic world with one fault each, as MuSiQue rows: what `verify` has to find.

No two of the questions share an entity, so that a fault of one is none of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from stepsearch_data.synth.vocabulary import RELATIONS
from stepsearch_data.synth.world import WorldConfig, rows
from tests.reader import facts_of

Row = dict[str, Any]
GOOD = "good"


class Step(NamedTuple):
    """A step of a question: the number of its relation, its subjects, its value, and its gold paragraph."""

    relation: int
    subjects: tuple[str, ...]
    value: str
    paragraph: Row


class Questions(NamedTuple):
    """Rows by the fault that they have, and what a reader knows of them without a passage, by question."""

    rows: dict[str, list[Row]]
    known: dict[str, str]

    @property
    def answers(self) -> dict[str, str]:
        """The answers that the rows propose, by question."""
        return {row["question"]: row["answer"] for of in self.rows.values() for row in of}


def make(good: int, each: int, names: tuple[str, ...] = (), seed: int = 0) -> Questions:
    """Make so many good questions, and so many of each fault."""
    wanted = dict.fromkeys(names or FAULTS, each) | {GOOD: good}
    number = sum(wanted.values())
    found: dict[str, list[Row]] = {name: [] for name in wanted}
    used: set[str] = set()
    row: Row
    for row in rows(WorldConfig(questions=8 * number, paragraphs=400 * number, seed=seed)):
        entities = {name for step in steps_of(row) for name in (*step.subjects, step.value)}
        name = next((n for n in wanted if len(found[n]) < wanted[n] and _suits(n, row)), None)
        if name and not used & entities:
            used |= entities
            found[name].append(row)
    assert all(len(found[name]) == wanted[name] for name in wanted), {name: len(of) for name, of in found.items()}
    values = _values([row for of in found.values() for row in of])
    known: dict[str, str] = {}
    for name, of in found.items():
        for at, row in enumerate(of):
            row["id"] = f"{name}__{at}"
            if name == "closed_book":
                known[row["question"]] = row["answer"]
            elif name != GOOD:
                FAULTS[name](row, lambda step: next(values[RELATIONS[step.relation].object]))
    return Questions(found, known)


def steps_of(row: Row) -> list[Step]:
    """The steps of a row, read in its gold paragraphs."""
    found = []
    for step in row["question_decomposition"]:
        paragraph = row["paragraphs"][step["paragraph_support_idx"]]
        told = facts_of([f"{paragraph['title']}\n{paragraph['paragraph_text']}"])
        ((relation, subjects), (fact,)) = next(iter(told.items()))
        found.append(Step(relation, subjects, fact.value, paragraph))
    return found


Other = Callable[[Step], str]
"""Gives another value of the same kind."""


def wrong_bridge(row: Row, other: Other) -> None:
    """The first paragraph says another entity than the next one is about."""
    first = steps_of(row)[0]
    _say(first.paragraph, _sentence(first), _sentence(first._replace(value=other(first))))


def ambiguous_relation(row: Row, other: Other) -> None:
    """A passage gives the last step another answer."""
    last = steps_of(row)[-1]
    _add(row, last._replace(value=other(last)))


def ambiguous_bridge(row: Row, other: Other) -> None:
    """A passage gives the first step another answer, and another one goes on from there to another end."""
    first, last = steps_of(row)
    bridge = other(first)
    _add(row, first._replace(value=bridge))
    _add(row, last._replace(subjects=(bridge,), value=other(last)))


def answer_leak(row: Row, _: Other) -> None:
    """The question says its answer."""
    row["question"] = f"{row['question'][:-1]}, which is {row['answer']}?"


def bridge_leak(row: Row, _: Other) -> None:
    """The question names what the first step should find."""
    last = steps_of(row)[-1]
    row["question"] = RELATIONS[last.relation].question.format(*last.subjects)


def closed_book(row: Row, _: Other) -> None:
    """A reader knows the answer: see `make`."""


def one_paragraph(row: Row, _: Other) -> None:
    """The last paragraph says all."""
    *before, last = steps_of(row)
    last.paragraph["paragraph_text"] = " ".join([*map(_sentence, before), last.paragraph["paragraph_text"]])


def gold_silent(row: Row, _: Other) -> None:
    """The last paragraph does not say the answer's sentence, though it names the answer."""
    last = steps_of(row)[-1]
    _say(last.paragraph, _sentence(last), f"Visitors from {last.value} come every year.")


def wrong_answer(row: Row, other: Other) -> None:
    """The proposed answer is not what the last paragraph says."""
    last = steps_of(row)[-1]
    wrong = other(last)
    last.paragraph["paragraph_text"] += f" Visitors from {wrong} come every year."
    row["answer"] = row["question_decomposition"][-1]["answer"] = wrong


FAULTS: dict[str, Callable[[Row, Other], None]] = {
    fault.__name__: fault
    for fault in (
        wrong_bridge,
        ambiguous_relation,
        ambiguous_bridge,
        answer_leak,
        bridge_leak,
        closed_book,
        one_paragraph,
        gold_silent,
        wrong_answer,
    )
}
_TWO_HOPS = {"ambiguous_bridge", "bridge_leak"}
_CHAINS = {"wrong_bridge", "one_paragraph"}


def _suits(name: str, row: Row) -> bool:
    shape = str(row["id"]).partition("__")[0]
    return shape == "2hop" if name in _TWO_HOPS else shape in ("2hop", "3hop1", "4hop1") if name in _CHAINS else True


def _sentence(step: Step) -> str:
    return RELATIONS[step.relation].fact.format(*step.subjects, o=step.value)


def _say(paragraph: Row, sentence: str, instead: str) -> None:
    assert sentence in paragraph["paragraph_text"]
    paragraph["paragraph_text"] = paragraph["paragraph_text"].replace(sentence, instead)


def _add(row: Row, step: Step) -> None:
    """Add a passage that is not gold."""
    title = RELATIONS[step.relation].title.format(*step.subjects)
    place = len(row["paragraphs"])
    row["paragraphs"].append({"idx": place, "title": title, "paragraph_text": _sentence(step), "is_supporting": False})


def _values(made: list[Row]) -> dict[str, Iterator[str]]:
    """Values of each kind of entity, which no step of these rows has, without end."""
    used = {name for row in made for step in steps_of(row) for name in (*step.subjects, step.value)}
    kinds: dict[str, list[str]] = {}
    for row in rows(WorldConfig(questions=200, paragraphs=20_000, seed=1_000_003)):
        for step in steps_of(row):
            if step.value not in used:
                used.add(step.value)
                kinds.setdefault(RELATIONS[step.relation].object, []).append(step.value)
    return {
        kind: (f"{name}" if not turn else _renamed(name, turn) for turn in count() for name in names)
        for kind, names in kinds.items()
    }


def _renamed(name: str, turn: int) -> str:
    """Another name in the same form: its longest word with a syllable more."""
    longest = max(name.split(), key=len)
    return name.replace(longest, longest[0] + "aeiou"[turn % 5] * (1 + turn // 5) + longest[1:])
