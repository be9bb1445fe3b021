"""What is wrong with a composed question, in words fit to show to its writer. No model is needed to tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from stepsearch_data.core.text import normalise
from stepsearch_data.stages.composing.drafts import LONGEST, LONGEST_ANSWER, Draft
from stepsearch_data.stages.mining.titles import says, split_sense, without, words_of
from stepsearch_data.stages.proof.signals import time_cues
from stepsearch_data.stages.rules import leaked
from stepsearch_data.stages.rules.verbalise import references

if TYPE_CHECKING:
    from stepsearch_data.stages.model.replies import Composition

_ENDS = ("?", "？", "؟")
_DATE = re.compile(r"\d{3}")
_OR = re.compile(r"\bor\b", re.IGNORECASE)
_OF_TEXTS = re.compile(
    r"\b(?:passages?|paragraphs?|[Tt]h(?:is|ese) (?:texts?|articles?|documents?|sentences?|sources?)"
    r"|(?:above|given|provided|following) (?:texts?|articles?|documents?|sentences?|sources?|context))\b"
)


def faults(reply: Composition, draft: Draft) -> list[str]:
    """Return everything that is wrong with a reply that does not skip its chain; nothing if its question is kept."""
    count = draft.chain.hops
    if len(reply.hops) != count:
        return [f"write {count} hops, one for each passage, not {len(reply.hops)}"]
    used = [hop.paragraph for hop in reply.hops]
    if sorted(used) != list(range(1, count + 1)) or not (draft.compares or used == sorted(used)):
        return [f"the hops must use each passage once, in order, not {', '.join(map(str, used))}"]
    hops = [(n, fault) for n in range(1, count + 1) for of in (_wording, _answer) for fault in of(n, reply, draft)]
    return [*(f"hop {n}: {fault}" for n, fault in hops), *_question(reply, draft), *_result(reply, draft)]


def _wording(number: int, reply: Composition, draft: Draft) -> Iterator[str]:
    hop, title = reply.hops[number - 1], draft.passages[reply.hops[number - 1].paragraph - 1].title
    needed = 0 if draft.compares else number - 1
    if not normalise(hop.question) or len(hop.question) > LONGEST:
        yield f"its question must be a sentence of at most {LONGEST} characters"
    found = references(hop.question)
    if needed and found != [needed]:
        yield f"its question must hold #{needed} and no other"
    elif not needed and any(each in range(1, number) or each not in references(title) for each in found):
        yield "its question must hold no # number"
    if not needed and not _names(hop.question, title):
        yield f"its question must name {title!r} in full"
    later = [hop] if draft.compares else reply.hops[number - 1 :]
    for answer in _given_away(hop.question, [each.answer for each in later]):
        yield f"its question gives away {answer!r}"


def _answer(number: int, reply: Composition, draft: Draft) -> Iterator[str]:
    hop = reply.hops[number - 1]
    sentences = draft.sentences[hop.paragraph - 1]
    if not normalise(hop.answer) or len(hop.answer) > LONGEST_ANSWER:
        yield "its answer must be a name, a date, a number or a few words"
    elif not 1 <= hop.sentence <= len(sentences):
        yield f"passage {hop.paragraph} has no sentence {hop.sentence}; they are numbered from 1 to {len(sentences)}"
    elif hop.answer not in sentences[hop.sentence - 1]:
        yield f"its answer {hop.answer!r} is not in sentence {hop.sentence} of passage {hop.paragraph}; copy it"
    if number < len(reply.hops) and not draft.compares:
        name = draft.chain.mentions[number - 1]
        if normalise(name) not in map(normalise, (hop.answer, *hop.aliases)):
            yield f"its answer must be {name!r}, which leads to passage {number + 1}"


def _question(reply: Composition, draft: Draft) -> Iterator[str]:
    asked, titles = reply.question, [passage.title for passage in draft.passages]
    plain = without(asked, [*titles, *draft.names])
    cues = time_cues(plain)
    if not asked.endswith(_ENDS) or len(asked) > LONGEST or references(plain):
        yield f"the question must be a sentence of at most {LONGEST} characters that ends in ? and holds no # number"
    for title in titles if draft.compares else titles[:1]:
        if not _names(asked, title):
            yield f"the question must name {title!r} in full"
    hidden = [name for hop in reply.hops for name in (hop.answer, *draft.aliases(hop.aliases, hop.answer))]
    for secret in _given_away(asked, dict.fromkeys(hidden if draft.compares else [*hidden, *draft.names[1:]])):
        yield f"the question gives away {secret!r}"
    for of_texts in _OF_TEXTS.findall(plain):
        yield f"the question must make sense without the passages, and says {of_texts!r}"
    if cues and not _DATE.search(asked):
        yield f"the question says {cues[0]!r} and no date"


def _result(reply: Composition, draft: Draft) -> Iterator[str]:
    if draft.compares:
        if normalise(reply.answer) not in map(normalise, draft.names) or not _OR.search(reply.question):
            yield f"the question must offer {' or '.join(draft.names)}, and the answer must be one of them"
    elif normalise(reply.answer) != normalise(reply.hops[-1].answer):
        yield f"the answer must be that of the last hop, {reply.hops[-1].answer!r}"


def _names(question: str, title: str) -> bool:
    """Tell whether a question names the subject of a title, with the words of its sense."""
    name, sense = split_sense(title)
    words = words_of(question)
    return says(question, name) and all(word in words or says(question, word) for word in sense)


def _given_away(question: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if leaked(question, "", [name]) or (len(name) > 1 and says(question, name))]
