"""Questions by templates: for tests and demonstrations, where no model is asked.

A question of a chain has gaps: "Which number fills the gap in “born in Eskerby in ___”, said of the name that fills the
gap in “designed by ___”, said of Merrin Bridge?" Nobody asks like this, so exports and releases refuse them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsearch_data.schemas.rows import FAULTY, KEPT, SKIPPED, Composed
from stepsearch_data.stages.composing.checks import faults
from stepsearch_data.stages.composing.drafts import Draft
from stepsearch_data.stages.mining.comparisons import value_of

if TYPE_CHECKING:
    from stepsearch_data.stages.model.replies import Composition

_TRIES = 20
_BEFORE, _AFTER = 5, 4  # words around a gap
_NUMBER = re.compile(r"\b\d[\d,.]*\d\b")
_PLAIN = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_NAME = re.compile(r"\b[A-Z][\w’'-]+(?: [A-Z][\w’'-]+)*")
_WORD = re.compile(r"\w{4,}")
_WORDINGS = {  # of an attribute: what is asked of one, what of both, and whether the lower value wins
    "born": ("In which year was {} born?", "Who was born earlier, {} or {}?", True),
    "died": ("In which year did {} die?", "Who died earlier, {} or {}?", True),
    "released": ("In which year was {} released?", "Which was released earlier, {} or {}?", True),
    "founded": ("In which year was {} founded?", "Which was founded earlier, {} or {}?", True),
    "opened": ("In which year was {} opened?", "Which was opened earlier, {} or {}?", True),
    "population": ("What is the population of {}?", "Which has more inhabitants, {} or {}?", False),
    "length": ("How long is {}?", "Which is longer, {} or {}?", False),
    "height": ("How high is {}?", "Which is higher, {} or {}?", False),
}


class _Gap(NamedTuple):
    """A sentence with a gap, by its number from 1, and what fills it."""

    sentence: int
    text: str
    kind: str
    answer: str


def by_template(draft: Draft, read: type[Composition]) -> Composed:
    """Return the row of a chain: the first question of a template in which no check finds a fault."""
    candidates = _compared(draft) if draft.compares else _chained(draft)
    wrong: list[str] = []
    for candidate in islice(candidates, _TRIES):
        reply = read.model_validate(candidate)
        found = faults(reply, draft)
        if not found:
            return draft.row(KEPT, "", 0, reply)
        wrong = wrong or found
    return draft.row(FAULTY, "; ".join(wrong), 0) if wrong else draft.row(SKIPPED, "no template fits", 0)


def _chained(draft: Draft) -> Iterator[dict[str, Any]]:
    subject, hops = draft.passages[0].title, []
    described = subject
    for number, mention in enumerate(draft.chain.mentions, start=1):
        gap = next(_gaps(draft, number, re.compile(re.escape(mention)), "name"), None)
        if gap is None:
            return
        hops.append(_hop(number, f"Which {_filling(gap)}, said of {_subject(number, subject)}?", gap))
        described = f"the {_filling(gap, 'that ')}, said of {described}"
    last = len(draft.passages)
    for kind, pattern in (("number", _NUMBER), ("name", _NAME), ("word", _WORD)):
        for gap in _gaps(draft, last, pattern, kind):
            hop = _hop(last, f"Which {_filling(gap)}, said of #{last - 1}?", gap)
            yield _reply([*hops, hop], f"Which {_filling(gap)}, said of {described}?", gap.answer, kind)


def _compared(draft: Draft) -> Iterator[dict[str, Any]]:
    attribute = draft.chain.mentions[-1]
    if attribute not in _WORDINGS:
        return
    of_one, of_both, lower = _WORDINGS[attribute]
    titles, values, hops = [passage.title for passage in draft.passages], [], []
    for number, (title, sentences) in enumerate(zip(titles, draft.sentences, strict=True), start=1):
        said = ((n, value_of(attribute, text)) for n, text in enumerate(sentences, start=1))
        sentence, value = next(((n, value) for n, value in said if value), (0, ""))
        if not value:
            return
        hops.append(_hop(number, of_one.format(title), _Gap(sentence, "", "number", value)))
        values.append(float(value.replace(",", "")) if _PLAIN.fullmatch(value) else 0.0)
    if values[0] == values[1]:
        return
    winner = draft.names[(values[1] < values[0]) == lower]
    yield _reply(hops, of_both.format(*titles), winner, "name")


def _gaps(draft: Draft, number: int, pattern: re.Pattern[str], kind: str) -> Iterator[_Gap]:
    """Yield what the pattern finds in a passage, each as a gap in the words around it, without its own name."""
    name = draft.names[number - 1]
    for at, sentence in enumerate(draft.sentences[number - 1], start=1):
        for found in pattern.finditer(sentence):
            before = sentence[: found.start()].split(" ")[-_BEFORE - 1 :]
            after = sentence[found.end() :].split(" ")[: _AFTER + 1]
            around = f"{' '.join(before)}___{' '.join(after)}"
            if found[0] not in name:
                yield _Gap(at, around.replace(name, "…").strip(".,; "), kind, found[0])


def _filling(gap: _Gap, that: str = "") -> str:
    return f"{gap.kind} {that}fills the gap in “{gap.text}”"


def _subject(number: int, subject: str) -> str:
    return subject if number == 1 else f"#{number - 1}"


def _hop(number: int, question: str, gap: _Gap) -> dict[str, Any]:
    return {
        "question": question,
        "answer": gap.answer,
        "aliases": [],
        "paragraph": number,
        "sentence": gap.sentence,
        "relation": gap.text or "compared",
        "one_valued": False,
    }


def _reply(hops: list[dict[str, Any]], question: str, answer: str, kind: str) -> dict[str, Any]:
    """Return what a model would reply."""
    return {
        "skip": "",
        "hops": hops,
        "question": question,
        "answer": answer,
        "answer_type": "number" if kind == "number" else "other",
    }
