"""Reading what searches have shown: a document whole, in pages, and words in it. Neither is a search.

A document has an id of its rollout: d1, d2, … in the order in which searches have shown them. Ids of the corpus would
let a policy learn by heart where a question's documents are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from stepsearch_data.search.reading import find_words, pages
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.template import Template

NO_READ_LEFT = "Nothing more can be opened, and no more words can be found. Search, or answer now."
_NO_WORDS = "There are no words to find. Name a few of them."


class Read(NamedTuple):
    """A call of `open` or `find`, and what it returned: a part of a document, or what was wrong with the call."""

    tool: str
    text: str
    refused: bool = False


class Reader:
    """The documents of a rollout. `length` is that of a page, in characters."""

    def __init__(self, wording: Template, length: int) -> None:
        self._wording, self._length = wording, length
        self._ids: dict[Paragraph, str] = {}
        self._documents: dict[str, Paragraph] = {}

    def show(self, documents: Sequence[Paragraph]) -> tuple[list[Paragraph], list[Paragraph]]:
        """Return what a search shows of its documents, their first pages; and the same with ids beside their titles."""
        shown, named = [], []
        for document in documents:
            identity = self._ids.setdefault(document, f"d{len(self._ids) + 1}")
            self._documents[identity] = document
            first, *more = pages(document.text, self._length)
            shown.append(Paragraph(document.title, first if more else document.text))
            named.append(Paragraph(self._header(document, identity, 1, len(more) + 1), shown[-1].text))
        return shown, named

    def _header(self, document: Paragraph, identity: str, page: int, count: int) -> str:
        place = f", page {page} of {count}" if count > 1 else ""
        return f"{document.title} (id {identity}{place})"

    def open(self, identity: Any, page: Any = None) -> Read:
        """Show a page of a document, from 1; by default the first."""
        name = _named(identity)
        if name not in self._documents:
            return Read("open", self._unknown(identity), refused=True)
        document = self._documents[name]
        cut = pages(document.text, self._length)
        at = _numbered(1 if page is None else page)
        if at is None or not 1 <= at <= len(cut):
            has = f"It has pages 1 to {len(cut)}." if len(cut) > 1 else "It has one page."
            return Read("open", f"{name} has no page {_quoted(page)}. {has}", refused=True)
        return Read("open", self._wording.inert(f"{self._header(document, name, at, len(cut))}\n{cut[at - 1]}"))

    def find(self, identity: Any, words: Any) -> Read:
        """Show where words stand in a document, each place with its page."""
        name = _named(identity)
        if name not in self._documents:
            return Read("find", self._unknown(identity), refused=True)
        if not (isinstance(words, str) and any(letter.isalnum() for letter in words)):
            return Read("find", _NO_WORDS, refused=True)
        document = self._documents[name]
        places, count = find_words(document.text, words, self._length)
        if not places:
            return Read("find", f"{name} has none of these words.")
        shown = (
            f"{count} place{'s' if count > 1 else ''}" if count == len(places) else f"{len(places)} of {count} places"
        )
        lines = [f"{document.title} (id {name}): {shown}", *(f"page {place.page}: {place.text}" for place in places)]
        return Read("find", self._wording.inert("\n".join(lines)))

    def _unknown(self, identity: Any) -> str:
        there = f"Searches have shown d1 to d{len(self._ids)}." if len(self._ids) > 1 else "A search has shown d1."
        return f"There is no document {_quoted(identity)}. {there if self._ids else 'Search first.'}"


def _named(identity: Any) -> str:
    """Return an id as a policy may mean it, whatever its case and the brackets around it."""
    return identity.strip(" []()").lower() if isinstance(identity, str) else ""


def _numbered(page: Any) -> int | None:
    """Return the number of a page, also of one that is written as a text or as 2.0."""
    try:
        number = float(page)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


def _quoted(value: Any) -> str:
    """Return what a policy has given, in one short line; nothing of lists, which may be too deep to write."""
    said = " ".join(str(value if isinstance(value, str | int | float) else "").split())
    return f'"{said[:40]}"'
