"""Links: a passage names the title of another one. Every doubt about a link halves its rank."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stepsearch_data.stages.mining.titles import Titles, in_longer_name, is_whole

Numbers = npt.NDArray[Any]


class Text(NamedTuple):
    """A passage to mine."""

    passage_id: str
    title: str
    text: str


class Found(NamedTuple):
    """The links of a corpus as columns, and how many names each filter left out.

    `passage` and `target` count passages, `title` titles. `named` holds, as `passage * titles + title` and sorted, each
    title that a passage names, also where there is no link.
    """

    passage: Numbers
    title: Numbers
    target: Numbers
    start: Numbers
    named_by: Numbers
    rank: Numbers
    named: Numbers
    left_out: dict[str, int]


class Scanner:
    """Finds in passages the names of titles. `common` are the places of names that also stand there as words."""

    def __init__(self, titles: Titles) -> None:
        from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

        self._titles = titles
        self._words = titles.words()
        # With many patterns, the other implementations take several times the memory.
        kind = Implementation.NoncontiguousNFA
        longest = MatchKind.LeftmostLongest
        self._automaton = AhoCorasick(titles.names, matchkind=longest, implementation=kind) if titles.names else None
        self.common: set[int] = set()
        self.names = self.own = 0

    def scan(self, passage: Text) -> Iterator[tuple[int, int, int]]:
        """Yield the number of each title that the passage names, the place with the fewest doubts, and these."""
        text = passage.text
        self.common.update(map(self._words.__getitem__, self._words.keys() & set(text.split())))
        best: dict[int, tuple[bool, int]] = {}
        for place, start, end in self._automaton.find_matches_as_indexes(text) if self._automaton else ():
            if not is_whole(text, start, end):
                continue
            found = (in_longer_name(text, start, end), start)
            best[place] = min(best.get(place, found), found)
        for place, (in_longer, start) in best.items():
            self.names += 1
            if self._titles.names[place] in passage.title:
                self.own += 1
                continue
            meant = self._titles.choose(place, text, passage.title)
            yield meant.number, start, meant.doubtful + in_longer


def find_links(passages: Iterable[Text], titles: Titles, *, most: int, many: int, least: float) -> Found:
    """Find all links of the passages, in their order, which is that of the numbers in the result.

    A title that more than `most` passages name has none, one that more than `many` name adds a doubt to its own.
    Links with a rank below `least` are left out.
    """
    scanner = Scanner(titles)
    passage, title, start, doubts = array("i"), array("i"), array("i"), array("b")
    targets = Targets(len(titles.texts))
    for number, found in enumerate(passages):
        targets.add(number, found, titles)
        for named, at, doubtful in scanner.scan(found):
            passage.append(number)
            title.append(named)
            start.append(at)
            doubts.append(doubtful)
    of_title = _array(title)
    name = np.asarray(titles.name_of, np.int64)[of_title]
    named_by = np.bincount(name, minlength=len(titles.names))[name]
    rank = 0.5 ** (_array(doubts) + (named_by > many))
    common = np.isin(name, np.fromiter(scanner.common, np.int64))
    hub = named_by > most
    weak = rank < least
    kept = ~(common | hub | weak)
    left_out = {
        "own title": scanner.own,
        "common word": int(common.sum()),
        "named by too many": int((hub & ~common).sum()),
        "too doubtful": int((weak & ~hub & ~common).sum()),
    }
    of_passage = _array(passage)
    return Found(
        passage=of_passage[kept],
        title=of_title[kept],
        target=targets.of[of_title[kept]],
        start=_array(start)[kept],
        named_by=named_by[kept],
        rank=rank[kept],
        named=np.sort(of_passage * len(titles.texts) + of_title),
        left_out=left_out,
    )


def _array(values: array[int]) -> Numbers:
    return np.asarray(values, np.int64)


class Targets:
    """For each title the passage that names it soonest: the one that is most likely about it, and says so."""

    def __init__(self, titles: int) -> None:
        self.of = np.full(titles, -1, np.int64)
        self._best: list[tuple[int, str]] = [(-1, "")] * titles

    def add(self, number: int, passage: Text, titles: Titles) -> None:
        """Consider a passage for its title."""
        title = titles.number(passage.title)
        if title < 0:
            return
        name = titles.name(title)
        at = passage.text.find(name) if name else -1
        mine = (at if at >= 0 else len(passage.text) + 1, passage.passage_id)
        if self.of[title] < 0 or mine < self._best[title]:
            self.of[title], self._best[title] = number, mine
