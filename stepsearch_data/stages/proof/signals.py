"""Signals that need no model: what a question, its gold paragraphs and one search tell.

docs/verify.md defines each in words, with what was measured and how often a reader agreed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from html import unescape
from itertools import chain
from typing import NamedTuple

from stepsearch_data.core.text import contains, facts, mentions, normalise, tokens
from stepsearch_data.schemas.rows import Composed, Question, SubQuestion, SupportingParagraph
from stepsearch_data.stages.rules import STOP_WORDS

PASSED, FAILED, VOID, UNASKED = "passed", "failed", "void", "unasked"

_SENSE = re.compile(r"\s*\(([^()]*)\)$")
_TAIL = re.compile(r"(?:, .*| [A-Z]\.[A-Z]\.)$")  # `Hoosick, New York`, `Arsenal F.C.`
_NO_SUBJECT = "(disambiguation)"
_WORDS = 0.8  # share of a question's words that a paragraph holds which says all of it
AT_ONCE = 5  # documents of one search
_SHORT = 4  # characters
_AROUND = STOP_WORDS | {"during", "after", "before", "since", "until"}
_NOW = re.compile(  # in lower case, as `Now` may begin a title
    r"\b(?:now|today|current|currently|nowadays|presently|still|latest|most recent|most recently|newest|upcoming"
    r"|this year|last year|next year|[Ww]ho is the (?:\w+ )?(?:president|prime minister|minister|secretary|governor"
    r"|mayor|ceo|chairman|chairwoman|chair|head|head coach|coach|manager|captain|leader|king|queen|owner|host))\b"
)
_COMPARES = re.compile(r"\b(?:in common|both)\b", re.IGNORECASE)
_OR = re.compile(r"\bor\b", re.IGNORECASE)


class Signal(NamedTuple):
    """What a check says of a question: `outcome` is passed, failed, or void where the check does not apply."""

    check: str
    outcome: str
    reason: str = ""


def static_signals(question: Question, hops: Sequence[SubQuestion], several: Collection[str]) -> list[Signal]:
    """Return what an answerable question and its gold paragraphs tell. `several` are names that several titles have."""
    gold = {paragraph.passage_id: paragraph for paragraph in question.supporting}
    chained = is_chain(hops)
    open_ended = not is_yes_or_no(question)
    holders = [paragraph.title for paragraph in question.supporting if _says_answer(paragraph, question)]
    return [
        _signal("unlinked_hop", chained, _unlinked(hops, gold)),
        _signal("bridge_named", chained and not _compares(question), _named(question, hops)),
        _signal("answer_named", not is_closed_choice(question), _named_answer(question)),
        _signal("answer_not_in_gold", open_ended, [] if holders else [question.answer]),
        _signal("answer_in_several", chained and open_ended, holders if len(holders) > 1 else []),
        _signal("one_paragraph", chained and open_ended and len(gold) > 1, _says_all(question)),
        _signal("several_titles", chained, _ambiguous(question, hops, gold, several)),
        _signal("time_dependent", applies=True, reasons=time_cues(question.question)),
        _signal("closed_choice", applies=True, reasons=[question.answer] if is_closed_choice(question) else []),
    ]


def search_signals(gold: Collection[str], last: Collection[str], found: Sequence[str]) -> list[Signal]:
    """Return what one search for the whole question tells: `found` are the ids of its documents, best first.

    `gold` are the ids of its gold paragraphs; `last` those of its last hop, none where its hops are no chain.
    """
    first, at_once = last and found[0] in last, set(gold) <= set(found[:AT_ONCE])
    return [
        _signal("one_search", bool(last), ["its last gold paragraph comes first"] if first else []),
        _signal("shown_at_once", len(gold) > 1, [f"all gold is among the first {AT_ONCE}"] if at_once else []),
    ]


def names_of_several(titles: Iterable[str]) -> frozenset[str]:
    """Return the normalised names that several of the titles have, which differ in what is added in brackets."""
    counts = Counter(_SENSE.sub("", title) for title in set(titles) if not title.endswith(_NO_SUBJECT))
    return frozenset(normalise(name) for name, count in counts.items() if count > 1)


def is_checked(question: Question) -> bool:
    """Tell whether a question is checked: an answerable one, unless its composer has given it up."""
    return question.answerable and not (isinstance(question, Composed) and not question.kept)


def is_chain(hops: Sequence[SubQuestion]) -> bool:
    """Tell whether a hop needs what an earlier one found."""
    return any(hop.depends_on for hop in hops)


def is_yes_or_no(question: Question) -> bool:
    """Tell whether the answer is yes or no."""
    return normalise(question.answer) in {"yes", "no"}


def is_closed_choice(question: Question) -> bool:
    """Tell whether a guess has a fair chance: the answer is yes or no, or one of those that the question offers."""
    return is_yes_or_no(question) or bool(_OR.search(question.question) and _named_answer(question))


def _named_answer(question: Question) -> list[str]:
    """Return the answer where the question says it; not an alias, which may be a word of any question."""
    return [question.answer] if contains(question.question, question.answer) else []


def _compares(question: Question) -> bool:
    """Tell whether the wording compares, so that it has to name both sides."""
    return is_closed_choice(question) or bool(_COMPARES.search(question.question))


def time_cues(question: str) -> list[str]:
    """Return the words of a question that make its answer depend on when it is asked."""
    return [found[0] for found in _NOW.finditer(question)]


def accepted(question: Question) -> list[str]:
    """Return the answers that count as right."""
    return [question.answer, *question.answer_aliases]


def _signal(check: str, applies: bool, reasons: Sequence[str]) -> Signal:  # noqa: FBT001 - read as a table
    if not applies:
        return Signal(check, VOID)
    return Signal(check, FAILED, "; ".join(dict.fromkeys(reasons))) if reasons else Signal(check, PASSED)


def _unlinked(hops: Sequence[SubQuestion], gold: dict[str, SupportingParagraph]) -> list[str]:
    """Return the hops whose paragraphs do not name what an earlier hop found, though they need it."""
    return [
        f"hop {hop.hop}: {hops[needed - 1].sub_answer[:100]!r} is not in {_titles(hop, gold)}"
        for hop in hops
        for needed in hop.depends_on
        if hop.gold_passage_ids and not _linked(hops[needed - 1], hop, gold)
    ]


def _linked(earlier: SubQuestion, hop: SubQuestion, gold: dict[str, SupportingParagraph]) -> bool:
    before, here = (
        [gold[passage_id] for passage_id in of.gold_passage_ids if passage_id in gold] for of in (earlier, hop)
    )
    if hop.method == "rules":  # the answer between is only a title: either paragraph may name the other's subject
        pairs = [(one, other) for one in before for other in here]
        return any(_names_subject(one, other) or _names_subject(other, one) for one, other in pairs)
    return any(_says(_whole(paragraph), _core(fact)) for paragraph in here for fact in facts(earlier.sub_answer))


def _names_subject(one: SupportingParagraph, other: SupportingParagraph) -> bool:
    return any(_says(one.text, name) for name in _names(other.title))


def _names(title: str) -> set[str]:
    """Return a title without what tells it from others: a sense in brackets, a place after a comma, `F.C.`."""
    plain = _SENSE.sub("", unescape(title))
    return {plain, _TAIL.sub("", plain)}


def _titles(hop: SubQuestion, gold: dict[str, SupportingParagraph]) -> str:
    return " or ".join(repr(gold[passage_id].title) for passage_id in hop.gold_passage_ids if passage_id in gold)


def _named(question: Question, hops: Sequence[SubQuestion]) -> list[str]:
    """Return the answers of hops that later hops need and that the question says itself."""
    needed = {number for hop in hops for number in hop.depends_on}
    bridges = chain.from_iterable(facts(hop.sub_answer) for hop in hops if hop.hop in needed)
    return [bridge for bridge in bridges if normalise(bridge) and contains(question.question, bridge)]


def _says_answer(paragraph: SupportingParagraph, question: Question) -> bool:
    return any(_says(_whole(paragraph), answer) for answer in accepted(question))


def _says_all(question: Question) -> list[str]:
    """Return the gold paragraphs that hold the answer and most of the question's words."""
    words = set(tokens(normalise(question.question))) - STOP_WORDS
    return [
        f"{paragraph.title!r} alone"
        for paragraph in question.supporting
        if _says_answer(paragraph, question)
        and len(words & set(tokens(normalise(_whole(paragraph))))) >= _WORDS * len(words)
    ]


def _ambiguous(
    question: Question, hops: Sequence[SubQuestion], gold: dict[str, SupportingParagraph], several: Collection[str]
) -> list[str]:
    """Return the subjects that the question names without the sense in which it means them."""
    first = (gold.get(passage_id) for hop in hops if not hop.depends_on for passage_id in hop.gold_passage_ids)
    found = []
    for paragraph in first:
        sense = _SENSE.search(paragraph.title) if paragraph else None
        name = _SENSE.sub("", paragraph.title) if paragraph else ""
        told = sense and contains(question.question, sense[1])
        if normalise(name) in several and contains(question.question, name) and not told:
            found.append(name)
    return found


def _whole(paragraph: SupportingParagraph) -> str:
    return f"{paragraph.title} {paragraph.text}"


def _says(text: str, name: str) -> bool:
    """Tell whether a text holds a name, inside words too if it is not short: `Jason's`, `Northampton.On`."""
    return mentions(text, name) if len(normalise(name)) >= _SHORT else contains(text, name)


def _core(answer: str) -> str:
    """Return an answer without the function words around it: `During the Korean War` → `Korean War`."""
    words = answer.split()
    while len(words) > 1 and words[0].lower() in _AROUND:
        words = words[1:]
    return " ".join(words)
