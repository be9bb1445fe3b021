"""A writer of questions about the synthetic world: it parses the passages of a prompt back into facts.

It also compares years of birth and death, in any passages.

It sees no id and no store, so a wrong prompt gives wrong questions. What it cannot join it skips.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from stepsearch_data.stages.mining.comparisons import value_of
from stepsearch_data.synth.vocabulary import RELATIONS
from stepsearch_data.synth.world import WorldConfig, rows
from tests.llm_server import Answer
from tests.reader import facts_of

_PASSAGE = re.compile(r"^\[\d+\] (.*)\n((?:\(\d+\) .*\n?)+)", re.MULTILINE)
_SENTENCE = re.compile(r"^\(\d+\) (.*)$", re.MULTILINE)
_SHARED = re.compile(r"^kind: .*, attribute: (born|died)$", re.MULTILINE)
_LINK = re.compile(r"^passage \d+ names '(.*)', which passage \d+ is about$", re.MULTILINE)
SKIPPED = {"skip": "no fact joins the passages", "hops": [], "question": "", "answer": "", "answer_type": ""}


class Shown(NamedTuple):
    """A passage of a prompt."""

    title: str
    sentences: list[str]


def is_about_a_chain(request: dict[str, Any]) -> bool:
    """Whether a request wants a question to be written."""
    return "\nLinks:\n" in _opening(request) or "\nWhat both seem to state:\n" in _opening(request)


def write(request: dict[str, Any]) -> str:
    """The reply: a question over the facts of the passages that a prompt shows, or none."""
    passages, mentions = shown(request)
    shared = _SHARED.search(_opening(request))
    return json.dumps(compare(passages, shared[1]) if shared else compose(passages, mentions))


def shown(request: dict[str, Any]) -> tuple[list[Shown], list[str]]:
    """The passages of a prompt, and the names that lead from each to the next."""
    text = _opening(request)
    passages = [Shown(found[1], _SENTENCE.findall(found[2])) for found in _PASSAGE.finditer(text)]
    return passages, _LINK.findall(text)


def compare(passages: list[Shown], attribute: str) -> dict[str, Any]:
    """A question which of two was earlier."""
    hops: list[dict[str, Any]] = []
    for number, passage in enumerate(passages, start=1):
        said = [(n, value_of(attribute, sentence)) for n, sentence in enumerate(passage.sentences, start=1)]
        sentence, year = next((n, value) for n, value in said if value)
        asked = {"born": "In which year was {} born?", "died": "In which year did {} die?"}[attribute]
        hops.append(hop_of(asked.format(passage.title), year, number, sentence, attribute))
    first = min(zip(hops, passages, strict=True), key=lambda pair: int(pair[0]["answer"]))[1].title
    question = f"Who {'was born' if attribute == 'born' else 'died'} first, {passages[0].title} or {passages[1].title}?"
    return {"skip": "", "hops": hops, "question": question, "answer": first, "answer_type": "person"}


def compose(passages: list[Shown], mentions: list[str]) -> dict[str, Any]:
    """A question that follows the mentions through the passages."""
    hops: list[dict[str, Any]] = []
    phrase, question, value = passages[0].title, "", ""
    for number, (passage, mention) in enumerate(zip(passages, [*mentions, None], strict=False), start=1):
        facts = facts_of([f"{passage.title}\n{' '.join(passage.sentences)}"])
        told = [
            (relation, fact)
            for (relation, subjects), of in facts.items()
            for fact in of
            if subjects == (passage.title,) and mention in (None, fact.value)
        ]
        if not told:
            return SKIPPED
        relation, fact = RELATIONS[told[0][0]], told[0][1]
        question, value = relation.question.format(phrase), fact.value
        phrase = relation.noun.format(phrase)
        asked = relation.question.format(f"#{number - 1}" if hops else passage.title)
        hops.append(hop_of(asked, value, number, passage.sentences.index(fact.text) + 1, relation.name))
    if len(hops) < max(len(passages), 2):
        return SKIPPED
    return {"skip": "", "hops": hops, "question": question, "answer": value, "answer_type": "other"}


def hop_of(question: str, answer: str, paragraph: int, sentence: int, relation: str) -> dict[str, Any]:
    """A hop of a reply."""
    said = {"question": question, "answer": answer, "paragraph": paragraph, "sentence": sentence}
    return {**said, "aliases": [], "relation": relation, "one_valued": True}


def writing(reads: Answer, writes: Answer = write) -> Answer:
    """Answer requests for a question by a writer, and all others by a reader."""
    return lambda request: (writes if is_about_a_chain(request) else reads)(request)


def write_documents(path: Path, questions: int, **world: Any) -> int:
    """Write the paragraphs of a world as documents; return their number."""
    found = {
        (paragraph["title"], paragraph["paragraph_text"]): None
        for row in _rows(questions, world)
        for paragraph in row["paragraphs"]
    }
    lines = [json.dumps({"title": title, "text": text}) for title, text in found]
    path.write_text("\n".join(lines) + "\n")
    return len(lines)


def _rows(questions: int, world: dict[str, Any]) -> Iterable[Any]:
    return rows(WorldConfig(questions=questions, **world))


def _opening(request: dict[str, Any]) -> str:
    return next(str(message["content"]) for message in request["messages"] if message["role"] == "user")
