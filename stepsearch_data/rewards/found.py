"""What searches found, beside their rewards: gold paragraphs, documents shown before, queries asked before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from stepsearch_data.core.text import joined_lines, normalise


class Found(NamedTuple):
    """What a search showed, after those before it."""

    seen: int
    """Its documents that an earlier search has shown."""
    repeated: bool
    """Whether its query, normalised, was asked before."""
    gold: list[int]
    """Positions of the gold paragraphs whose whole text is that of a document, from 0."""
    new_gold: int
    """Gold paragraphs that no earlier search has shown."""


def found_by(searches: Iterable[tuple[str, Sequence[str]]], golds: Sequence[str]) -> Iterator[Found]:
    """Describe searches in order, each a query and the texts of its documents. White space does not count in texts."""
    texts = [joined_lines(gold) for gold in golds]
    shown: set[str] = set()
    asked: set[str] = set()
    for words, documents in searches:
        query, found = normalise(words), [joined_lines(document) for document in documents]
        gold = [at for at, text in enumerate(texts) if text in found]
        yield Found(
            seen=sum(text in shown for text in found),
            repeated=query in asked,
            gold=gold,
            new_gold=sum(texts[at] not in shown for at in gold),
        )
        shown.update(found)
        asked.add(query)
