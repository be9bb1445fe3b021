"""A reader of the synthetic world: it parses the passages of a prompt back into facts, and the question into steps.

It sees no question id and no store, so a wrong prompt gives wrong answers. With an `error` it misreads, and with a
`guess` it knows what no passage says: the same for the same request, so that a replayed reply is no other one.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from stepsearch_data.core.text import normalise
from stepsearch_data.synth.vocabulary import RELATIONS

UNKNOWN = "unknown"
_PASSAGE = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)
_QUESTION = re.compile(r"^Question: (.*)$", re.MULTILINE)
_ANSWERS = re.compile(r"^One answer: (.*)\nOther answer: (.*)$", re.MULTILINE)
_MOST_SPLITS = 40


class Fact(NamedTuple):
    """What a sentence of a passage says."""

    passage: int
    text: str
    value: str


class Chain(NamedTuple):
    """An answer and the facts that lead to it."""

    answer: str
    facts: tuple[Fact, ...]


Facts = dict[tuple[int, tuple[str, ...]], list[Fact]]
"""Facts by the number of their relation and their subjects."""


class Reader:
    """Answers as an `LlmServer` wants it: from a request's JSON to the reply's text.

    `known` are answers that it knows without a passage, by question. `answers` are those that it may guess.
    """

    def __init__(
        self,
        known: Mapping[str, str] = {},
        answers: Mapping[str, str] = {},
        *,
        error: float = 0.0,
        guess: float = 0.0,
    ) -> None:
        self.known, self.answers, self.error, self.guess = known, answers, error, guess
        self.shown: dict[str, set[str]] = {}
        """Texts of the passages that a request for every answer showed, by question."""

    def __call__(self, request: dict[str, Any]) -> str:
        """The reply."""
        text = next(str(message["content"]) for message in request["messages"] if message["role"] == "user")
        chance = random.Random(json.dumps([request["messages"], request.get("seed")]))
        pair = _ANSWERS.search(text)
        if pair:
            return json.dumps({"same": normalise(pair[1]) == normalise(pair[2])})
        asked = _QUESTION.search(text)
        assert asked
        question = asked[1]
        if "Passages:" not in text:
            knows = self.known.get(question) or (self._guessed(question, chance) if self.known is not None else "")
            return json.dumps({"answer": knows or UNKNOWN, "sure": bool(knows)})
        passages = passages_in(text.split("Passages:", 1)[1])
        chains = list(read(question, facts_of(passages)))
        if '"answers"' in str(request["messages"][0]["content"]):
            self.shown[question] = set(passages)
            return json.dumps({"answers": [_reading(chain) for chain in self._all(chains, chance)]})
        return json.dumps(self._one(question, chains, passages, chance))

    def _all(self, chains: Sequence[Chain], chance: random.Random) -> list[Chain]:
        found = {chain.answer: chain for chain in chains}
        return [chain for chain in found.values() if chance.random() >= self.error]

    def _one(
        self, question: str, chains: Sequence[Chain], passages: Sequence[str], chance: random.Random
    ) -> dict[str, Any]:
        if chains and chance.random() >= self.error:
            return _reading(chains[0])
        guessed = self._guessed(question, chance)
        said = [(n, text) for n, text in enumerate(passages, start=1) if guessed and guessed in text]
        if said:
            number, text = said[0]
            return _reading(Chain(guessed, (Fact(number, _around(text, guessed), guessed),)))
        return _reading(Chain(guessed or UNKNOWN, ()))

    def _guessed(self, question: str, chance: random.Random) -> str:
        return self.answers.get(question, "") if chance.random() < self.guess else ""


def passages_in(text: str) -> list[str]:
    """The passages as a prompt lists them: title and text each."""
    starts = list(_PASSAGE.finditer(text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    assert [int(start[1]) for start in starts] == list(range(1, len(starts) + 1))
    return [text[start.start(2) : end].strip() for start, end in zip(starts, ends, strict=True)]


def facts_of(passages: Sequence[str]) -> Facts:
    """What the passages state."""
    found: Facts = {}
    for place, passage in enumerate(passages, start=1):
        for sentence in _sentences(passage.partition("\n")[2]):
            for number, (pattern, order) in enumerate(_FACTS):
                match = pattern.fullmatch(sentence)
                if match:
                    subjects = tuple(match[name] for name in order)
                    found.setdefault((number, subjects), []).append(Fact(place, sentence, match["o"]))
    return found


def read(question: str, facts: Facts) -> Iterator[Chain]:
    """Every answer that the facts give to a question, with the facts that lead to it."""
    for number, relation in enumerate(RELATIONS):
        for parts in _split(relation.question, question):
            yield from _follow(number, parts, facts)


def _follow(number: int, phrases: Sequence[str], facts: Facts) -> Iterator[Chain]:
    for chains in product(*(list(_meant(phrase, facts)) for phrase in phrases)):
        subjects = tuple(chain.answer for chain in chains)
        before = tuple(fact for chain in chains for fact in chain.facts)
        for fact in facts.get((number, subjects), ()):
            yield Chain(fact.value, (*before, fact))


def _meant(phrase: str, facts: Facts) -> Iterator[Chain]:
    """The entities that a phrase stands for: those that it describes, or the one that it names."""
    if not phrase.startswith("the "):
        yield Chain(phrase, ())
        return
    for number, relation in enumerate(RELATIONS):
        for parts in _split(relation.noun, phrase):
            yield from _follow(number, parts, facts)


def _split(template: str, text: str) -> Iterator[tuple[str, ...]]:
    """The ways in which a text may be the template with one or two phrases in it."""
    literals = re.split(r"\{\d\}", template)
    if not (text.startswith(literals[0]) and text.endswith(literals[-1])):
        return
    inner = text[len(literals[0]) : len(text) - len(literals[-1])]
    if len(literals) == 2:
        if inner:
            yield (inner,)
        return
    for at in [found.start() for found in re.finditer(re.escape(literals[1]), inner)][:_MOST_SPLITS]:
        yield inner[:at], inner[at + len(literals[1]) :]


def _pattern(template: str) -> tuple[re.Pattern[str], list[str]]:
    parts = re.split(r"(\{(?:\d|o)\})", template)
    groups = {"{0}": "(?P<a>.+)", "{1}": "(?P<b>.+)", "{o}": "(?P<o>.+)"}
    order = ["a", "b"] if "{1}" in template else ["a"]
    return re.compile("".join(groups.get(part, re.escape(part)) for part in parts)), order


_FACTS = [_pattern(relation.fact) for relation in RELATIONS]


def _sentences(text: str) -> Collection[str]:
    return re.split(r"(?<=\.) ", text)


def _around(text: str, word: str) -> str:
    return next(line for line in _sentences(text.partition("\n")[2] or text) if word in line)


def _reading(chain: Chain) -> dict[str, Any]:
    quotes = [{"passage": fact.passage, "text": fact.text} for fact in chain.facts]
    return {"quotes": quotes, "answer": chain.answer}
