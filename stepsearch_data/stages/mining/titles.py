"""The titles of a corpus: which of them can be found in a text, and which one of several a text means."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stepsearch_data.core.text import contains, normalise

_SENSE = re.compile(r"(.*\S)\s*\(([^()]+)\)")
_WORD = re.compile(r"\w+")
_FUNCTION_WORDS = frozenset(["a", "an", "and", "at", "by", "for", "in", "of", "on", "or", "the", "to"])
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_NO_NAME = re.compile(  # years, numbers, dates, lists
    rf"[\d\s.,:/–-]+(?:s|年|월|日)?|{_MONTH}(?: \d+)?(?:,? \d+)?|\d+ {_MONTH}(?: \d+)?|Lists? of .*|Index of .*"
)
_SPACELESS = re.compile(  # Thai to Khmer, Chinese, Japanese; Korean, where particles follow a name without a space
    r"[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
_PART = re.compile(
    rf"{_SPACELESS.pattern}|(?:(?!{_SPACELESS.pattern})\w)+"
)  # of a title, where a name may begin or end
_MOST_PARTS = 20  # of a name in a longer title
_FEWEST = 3  # characters of a name, in a script with spaces


class Sense(NamedTuple):
    """A title: its number, and the words in parentheses that tell it from others of the same name."""

    number: int
    words: frozenset[str]


class Chosen(NamedTuple):
    """The title that a text means by a name, and whether there is a doubt about it."""

    number: int
    doubtful: bool


class Titles:
    """The distinct titles of a corpus, numbered as they come."""

    def __init__(self, titles: Iterable[str]) -> None:
        self.texts: list[str] = []
        self.name_of: list[int] = []  # of each title, -1 where it is none that can be found in a text
        self.names: list[str] = []
        self.senses: list[list[Sense]] = []  # of each name
        self._numbers: dict[str, int] = {}
        self._names: dict[str, int] = {}
        for title in titles:
            if title and title not in self._numbers:
                self._add(title)

    def _add(self, title: str) -> None:
        number = self._numbers[title] = len(self.texts)
        self.texts.append(title)
        name, words = split_sense(title)
        if not is_name(name):
            self.name_of.append(-1)
            return
        place = self._names.setdefault(name, len(self.names))
        if place == len(self.names):
            self.names.append(name)
            self.senses.append([])
        self.name_of.append(place)
        self.senses[place].append(Sense(number, words))

    def number(self, title: str) -> int:
        """Return the number of a title, -1 for the empty one."""
        return self._numbers.get(title, -1)

    def name(self, number: int) -> str:
        """Return the name of a title as texts write it; empty where it has none."""
        place = self.name_of[number] if number >= 0 else -1
        return self.names[place] if place >= 0 else ""

    def held(self) -> array[int]:
        """Return what stands in each title, as `title * names + place` and sorted: "Paris" in "Paris Opera House"."""
        found = (number * len(self.names) + place for number, text in enumerate(self.texts) for place in self._in(text))
        return array("q", sorted(found))

    def _in(self, title: str) -> set[int]:
        parts = [found.span() for found in _PART.finditer(title)]
        spans = ((start, end) for n, (start, _) in enumerate(parts) for _, end in parts[n : n + _MOST_PARTS])
        return {self._names[title[start:end]] for start, end in spans if title[start:end] in self._names}

    def words(self) -> dict[str, int]:
        """Return names of one word as they would stand in a text if they were no names, with their places."""
        words = ((name.lower(), place) for place, name in enumerate(self.names) if not any(map(str.isspace, name)))
        return {word: place for word, place in words if word != self.names[place]}

    def choose(self, place: int, text: str, title: str) -> Chosen:
        """Return the title that a passage means by a name."""
        senses = self.senses[place]
        if len(senses) == 1 and not senses[0].words:
            return Chosen(senses[0].number, doubtful=False)
        return choose(senses, self.texts, words_of(text) | words_of(title))


def choose(senses: Sequence[Sense], texts: Sequence[str], words: frozenset[str]) -> Chosen:
    """Return the title with the most words of its parentheses in the text, else the plain one, else the first.

    A number in parentheses must stand in the text: a film of 2010 is not the one of 1984.
    """

    def fits(sense: Sense) -> int:
        found = sense.words & words
        numbers = {word for word in sense.words if word.isdigit()}
        return len(found) if found and numbers <= found else 0 if not sense.words else -1

    best = min(senses, key=lambda sense: (-fits(sense), texts[sense.number]))
    return Chosen(best.number, doubtful=fits(best) < 0 or (fits(best) == 0 and len(senses) > 1))


def split_sense(title: str) -> tuple[str, frozenset[str]]:
    """Split "Manhattan (1979 film)" into its name and the words in parentheses."""
    found = _SENSE.fullmatch(title.strip())
    return (found[1], words_of(found[2])) if found else (title.strip(), frozenset())


def says(text: str, name: str) -> bool:
    """Tell whether a text says a name, whatever its case; in scripts without spaces inside of other letters, too."""
    plain, words = normalise(text), normalise(name)
    found = re.finditer(re.escape(words), plain) if words else ()
    return contains(text, name) or any(is_whole(plain, *place.span()) for place in found)


def without(text: str, names: Iterable[str]) -> str:
    """Return a text with a space in the place of each name, whatever its case."""
    for name in filter(None, names):
        text = re.sub(
            re.escape(name), lambda at: " " if is_whole(at.string, *at.span()) else at[0], text, flags=re.IGNORECASE
        )
    return text


def words_of(text: str) -> frozenset[str]:
    """Return the distinct lower-case words of a text, without function words."""
    return frozenset(_WORD.findall(text.lower())) - _FUNCTION_WORDS


def is_name(name: str) -> bool:
    """Tell whether a title's name says which thing it is of: no year, date or list, and not too short."""
    long_enough = len(name) >= _FEWEST or (len(name) > 1 and all(map(_SPACELESS.match, name)))
    return long_enough and not _NO_NAME.fullmatch(name)


def is_whole(text: str, start: int, end: int) -> bool:
    """Tell whether a part of a text is not cut out of a word. Scripts without spaces have no such words."""
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return not (
        (before not in ("", " ") and _in_word(before) and _in_word(text[start]))
        or (after not in ("", " ") and _in_word(after) and _in_word(text[end - 1]))
    )


def _in_word(char: str) -> bool:
    if char.isascii():
        return char.isalnum() or char == "_"
    return (char.isalnum() or unicodedata.category(char)[0] == "M") and not _SPACELESS.match(char)


def in_longer_name(text: str, start: int, end: int) -> bool:
    """Tell whether a capitalised word stands directly before or after: "Manhattan" in "Manhattan Murder Mystery"."""
    if text[end : end + 1] == " " and text[end + 1 : end + 2].isupper():
        return True
    if text[max(0, start - 1) : start] != " ":
        return False
    first = text.rfind(" ", 0, start - 1) + 1
    begins_sentence = not first or text[max(0, first - 2)] in ".!?"
    return not begins_sentence and text[first].isupper() and text[start - 2].isalnum()
