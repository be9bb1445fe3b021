"""Comparisons: two passages of one kind that state the same attribute, as English words tell it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from stepsearch_data.core.text import normalise
from stepsearch_data.stages.mining.links import Text
from stepsearch_data.stages.mining.titles import split_sense
from stepsearch_data.stages.rules import leaked

SOON = 300  # characters of a passage that say what its subject is
_YEAR = r"\b(1[0-9]\d\d|20\d\d)\b"
_NUMBER = r"(\d[\d,.]*\d|\d)"
_WORKS = "film|novel|book|album|song|play|opera|magazine|newspaper|painting|symphony|poem|series|game"
_PEOPLE = (
    "actor|actress|architect|artist|author|chemist|composer|director|engineer|explorer|footballer|inventor|"
    "journalist|mathematician|musician|novelist|painter|philosopher|physicist|pianist|player|poet|politician|"
    "producer|sculptor|singer|songwriter|scientist|screenwriter|violinist|writer"
)
_GROUPS = "band|company|university|school|college|museum|club|orchestra|organi[sz]ation|brewery|library|theatre|society"
_PLACES = "city|town|village|municipality"
_BUILDINGS = "bridge|tower|building|castle|church|cathedral|lighthouse|railway|canal|station|observatory"
_NATURE = "river|mountain|lake|volcano"
_KIND = re.compile(
    rf"\b(?:is|was|are|were) (?:an?|the) [^.]*?\b({_WORKS}|{_PEOPLE}|{_GROUPS}|{_PLACES}|{_BUILDINGS}|{_NATURE})\b"
)


class _Attribute(NamedTuple):
    """An attribute: the kinds that have it, and how a passage states its value."""

    name: str
    kinds: re.Pattern[str]
    value: re.Pattern[str]


_ATTRIBUTES = (
    _Attribute(
        "born", re.compile(_PEOPLE), re.compile(rf"\bborn\b[^.;]{{0,60}}?{_YEAR}|\([^()]{{0,30}}?{_YEAR} ?[–-]")
    ),
    _Attribute(
        "died", re.compile(_PEOPLE), re.compile(rf"\bdied\b[^.;]{{0,60}}?{_YEAR}|\d{{4}} ?[–-][^()]{{0,30}}?{_YEAR}\)")
    ),
    _Attribute(
        "released",
        re.compile(_WORKS),
        re.compile(rf"\b(?:released|published|premiered|first)\b[^.;]{{0,60}}?{_YEAR}|\b(?:is|was) an? {_YEAR}"),
    ),
    _Attribute(
        "founded",
        re.compile(f"{_GROUPS}|{_PLACES}"),
        re.compile(rf"\b(?:founded|established|formed)\b[^.;]{{0,60}}?{_YEAR}"),
    ),
    _Attribute(
        "opened",
        re.compile(f"{_BUILDINGS}|{_GROUPS}"),
        re.compile(rf"\b(?:opened|built|completed)\b[^.;]{{0,60}}?{_YEAR}"),
    ),
    _Attribute("population", re.compile(_PLACES), re.compile(rf"\bpopulation\b[^.;]{{0,40}}?\b{_NUMBER}")),
    _Attribute(
        "length",
        re.compile(f"river|{_BUILDINGS}"),
        re.compile(rf"{_NUMBER} (?:km|kilomet(?:re|er)s|metres|miles) long"),
    ),
    _Attribute(
        "height",
        re.compile(f"mountain|volcano|{_BUILDINGS}"),
        re.compile(rf"{_NUMBER} (?:m|met(?:re|er)s|feet) (?:high|tall)"),
    ),
)


def value_of(attribute: str, text: str) -> str:
    """Return the value of an attribute that a text states; empty where it states none."""
    found = next(each.value for each in _ATTRIBUTES if each.name == attribute).search(text)
    return next(group for group in found.groups() if group) if found else ""


class Stated(NamedTuple):
    """What a passage says of its subject: an attribute that others of its kind have too."""

    passage_id: str
    title: int
    value: str


class Comparison(NamedTuple):
    """Two passages, in the order of their ids, and what they can be compared by."""

    first: Stated
    second: Stated
    kind: str
    attribute: str


class Comparisons:
    """Gathers what passages state, and pairs those that state the same with another value."""

    def __init__(self) -> None:
        self._stated: defaultdict[tuple[str, str], list[Stated]] = defaultdict(list)

    def add(self, passage: Text, title: int) -> None:
        """Gather what a passage states of the subject that its title names, and the title does not."""
        found = _KIND.search(passage.text, 0, SOON)
        if not found:
            return
        kind = "person" if re.fullmatch(_PEOPLE, found[1]) else found[1]
        for attribute in _ATTRIBUTES:
            if attribute.kinds.fullmatch(found[1]) and (value := attribute.value.search(passage.text)):
                said = next(group for group in value.groups() if group)
                if not leaked(passage.title, "", [said]):
                    self._stated[kind, attribute.name].append(Stated(passage.passage_id, title, said))

    def pairs(self, titles: Sequence[str]) -> list[Comparison]:
        """Return each passage with the next one in the order of ids, which are digests: a sample of all pairs.

        Their names differ without the sense, too, and no title says the value of the other one.
        """
        return [
            Comparison(first, second, kind, attribute)
            for (kind, attribute), stated in sorted(self._stated.items())
            for first, second in pairwise(sorted(stated))
            if first.value != second.value
            and _name(titles[first.title]) != _name(titles[second.title])
            and not leaked(titles[first.title], "", [second.value])
            and not leaked(titles[second.title], "", [first.value])
        ]


def _name(title: str) -> str:
    return normalise(split_sense(title)[0])
