"""Questions of the synthetic world with one fault each, as MuSiQue rows: what `verify` has to find.

No two of the questions share an entity, so that a fault of one is none of another. As `chains` they are what a writer
says of documents: see `Writer` in tests/composer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from stepsearch_data.stages.proof.signals import time_cues
from stepsearch_data.synth.vocabulary import RELATIONS
from stepsearch_data.synth.world import CHAINS, HOPS, WorldConfig, rows
from tests.reader import facts_of

Row = dict[str, Any]
GOOD = "good"
PER_QUESTION = 20  # paragraphs of a row without a fault


class Step(NamedTuple):
    """A step of a question: the number of its relation, its subjects, its value, and its gold paragraph."""

    relation: int
    subjects: tuple[str, ...]
    value: str
    paragraph: Row


class Questions(NamedTuple):
    """Rows by the fault that they have, what a reader knows of them without a passage, by question, and their chains.

    `chains` has the fault and the row of each chain of titles that is to become a question.
    """

    rows: dict[str, list[Row]]
    known: dict[str, str]
    chains: dict[tuple[str, ...], tuple[str, Row]]

    @property
    def answers(self) -> dict[str, str]:
        """The answers that the rows propose, by question."""
        return {row["question"]: row["answer"] for of in self.rows.values() for row in of}


def make(good: int, each: int, *, composed: bool = False, seed: int = 0) -> Questions:
    """Make so many good questions, and so many of each fault; composed ones are chains, with the faults of replies."""
    wanted = dict.fromkeys([*FAULTS, *(OF_REPLIES if composed else ())], each) | {GOOD: good}
    number = sum(wanted.values())
    shapes = tuple(CHAINS if composed else HOPS)
    found: dict[str, list[Row]] = {name: [] for name in wanted}
    used: set[str] = set()
    row: Row
    for row in rows(WorldConfig(questions=8 * number, paragraphs=400 * number, seed=seed, shapes=shapes)):
        entities = {name for step in steps_of(row) for name in (*step.subjects, step.value)}
        name = next((n for n in wanted if len(found[n]) < wanted[n] and _suits(n, row)), None)
        refused = composed and time_cues(str(row["question"]))  # a rule of `compose` refuses "who is the mayor"
        if name and not refused and not used & entities:
            used |= entities
            found[name].append(row)
    assert all(len(found[name]) == wanted[name] for name in wanted), {name: len(of) for name, of in found.items()}
    values = _values([row for of in found.values() for row in of])
    known: dict[str, str] = {}
    chains: dict[tuple[str, ...], tuple[str, Row]] = {}
    for name, of in found.items():
        for at, row in enumerate(of):
            row["id"] = f"{name}__{at}"
            if name == "closed_book":
                known[row["question"]] = row["answer"]
            chains[titles_of(row)] = GOOD, row
            if name != GOOD:
                (FAULTS | OF_REPLIES)[name](row, lambda step: next(values[RELATIONS[step.relation].object]))
            chains[titles_of(row)] = name, row
    return Questions(found, known, chains)


def titles_of(row: Row) -> tuple[str, ...]:
    """The titles of a row's gold paragraphs, in the order of its steps."""
    return tuple(row["paragraphs"][step["paragraph_support_idx"]]["title"] for step in row["question_decomposition"])


def documents(questions: Questions) -> list[Row]:
    """What the chains are to be found in: gold paragraphs, and what the faults have added to them."""
    of_rows = (row["paragraphs"] for of in questions.rows.values() for row in of)
    said = (each for of in of_rows for each in of if each["is_supporting"] or each["idx"] >= PER_QUESTION)
    return [{"title": each["title"], "text": each["paragraph_text"]} for each in said]


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
    """The first paragraph says another entity than the next one is about, though it names that, too."""
    first = steps_of(row)[0]
    wrong = f"{_sentence(first._replace(value=other(first)))} {_visitors(first.value)}"
    _say(first.paragraph, _sentence(first), wrong)


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
    """The first paragraph says all."""
    first, *later = steps_of(row)
    first.paragraph["paragraph_text"] = " ".join([*map(_sentence, later), first.paragraph["paragraph_text"]])


def gold_silent(row: Row, _: Other) -> None:
    """The last paragraph does not say the answer's sentence, though it names the answer."""
    last = steps_of(row)[-1]
    _say(last.paragraph, _sentence(last), _visitors(last.value))


def wrong_answer(row: Row, other: Other) -> None:
    """The proposed answer is not what the last paragraph says."""
    last = steps_of(row)[-1]
    wrong = other(last)
    last.paragraph["paragraph_text"] += f" {_visitors(wrong)}"
    row["answer"] = row["question_decomposition"][-1]["answer"] = wrong


def unverbatim(row: Row, _: Other) -> None:
    """The writer gives an answer that the sentence does not say."""


def cut_off(row: Row, _: Other) -> None:
    """The writer's reply ends in the middle."""


def repeated(row: Row, other: Other) -> None:
    """The first paragraph names another entity, too, and the writer asks the same question for the way over that."""
    first, last = steps_of(row)
    named, wrong = other(first), other(last)
    first.paragraph["paragraph_text"] += f" {_visitors(named)}"
    _add(row, last._replace(subjects=(named,), value=wrong))
    before, after = row["question_decomposition"]
    before["answer"] = named
    after["answer"] = row["answer"] = wrong
    after["paragraph_support_idx"] = row["paragraphs"][-1]["idx"]


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
OF_REPLIES = {fault.__name__: fault for fault in (unverbatim, cut_off, repeated)}
_TWO_HOPS = {"ambiguous_bridge", "bridge_leak", "one_paragraph", "repeated"}
_CHAINS = {"wrong_bridge"}


def _suits(name: str, row: Row) -> bool:
    shape = str(row["id"]).partition("__")[0]
    return shape == "2hop" if name in _TWO_HOPS else shape in CHAINS if name in _CHAINS else True


def _sentence(step: Step) -> str:
    return RELATIONS[step.relation].fact.format(*step.subjects, o=step.value)


def _visitors(name: str) -> str:
    """A sentence that names something and says no fact of it."""
    return f"Visitors from {name} come every year."


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
    return {kind: _endless(names) for kind, names in kinds.items()}


def _endless(names: list[str]) -> Iterator[str]:
    yield from names
    yield from (_renamed(name, turn) for turn in count(1) for name in names)


def _renamed(name: str, turn: int) -> str:
    """Another name in the same form: its longest word with a syllable more."""
    longest = max(name.split(), key=len)
    return name.replace(longest, longest[0] + "aeiou"[turn % 5] * (1 + turn // 5) + longest[1:])
