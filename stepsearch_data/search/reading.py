"""Reading a document: in pages, and by the places where words stand in it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Annotated, NamedTuple

from pydantic import Field

PageLength = Annotated[int, Field(ge=100, le=100_000)]
"""Characters of a page, at most."""
PAGE_LENGTH = 4_000
MOST_PLACES = 5  # that are shown of a document
_MOST_WORDS = 16  # that are looked for at once
_SNIPPET = 240  # characters
_BEFORE = 60  # characters of a snippet before its first word
_WORD = re.compile(r"\w+")
_LAST_SPACE = re.compile(r"\s\S*\Z")


class Place(NamedTuple):
    """A snippet around words of a document, and its page, from 1."""

    page: int
    text: str


def pages(text: str, length: int = PAGE_LENGTH) -> list[str]:
    """Cut a text into pages of at most so many characters, after a space where there is one.

    There is always a page. Joined, they are the text without the white space around it.
    """
    text, cut, start = text.strip(), [], 0
    while len(text) - start > length:
        end = start + length
        if not text[end].isspace() and (space := _LAST_SPACE.search(text, start, end)):
            end = space.start() + 1
        cut.append(text[start:end])
        start = end
    return [*cut, text[start:]]


def find_words(text: str, words: str, length: int = PAGE_LENGTH) -> tuple[list[Place], int]:
    """Return the best places of a text where some of the words stand, in its order, and how many there are in all.

    A place with more of the words is better, then the earlier one. A word is also found as the beginning of a longer
    one, whatever its case. The pages are those that `pages` cuts.
    """
    # As written, because the text is: casefolded, `Straße` is longer than in the text.
    wanted = list({word.lower(): word for word in _WORD.findall(words)}.values())[:_MOST_WORDS]
    if not wanted:
        return [], 0
    text = text.strip()
    found = list(_windows(text, wanted))
    best = sorted(found, key=lambda window: -window[1])[:MOST_PLACES]  # a stable sort: the earlier of equals first
    starts = [0, *accumulate(map(len, pages(text, length)))]
    return [Place(bisect_right(starts, at), " ".join(around(text, at).split())) for at, _ in sorted(best)], len(found)


def _windows(text: str, words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where each snippet's first word begins, and how many different words the snippet holds."""
    begins = (rf"(?<!\w){re.escape(word)}" if word.isascii() else re.escape(word) for word in words)
    start, seen = -_SNIPPET, set[str]()
    for found in re.finditer("|".join(sorted(begins, key=len, reverse=True)), text, re.IGNORECASE):
        if found.end() > start + _SNIPPET - _BEFORE:
            if seen:
                yield start, len(seen)
            start, seen = found.start(), set()
        seen.add(found[0].casefold())
    if seen:
        yield start, len(seen)


def around(text: str, at: int) -> str:
    """Cut a snippet around a place of a text, with … where it was cut."""
    start = max(0, at - _BEFORE)
    start = text.rfind(" ", max(0, start - _BEFORE), start) + 1 or start  # a script may have no spaces
    end = start + _SNIPPET
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
