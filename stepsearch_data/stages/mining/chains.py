"""Chains of links: passages that a question can join, drawn by the hash of their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stepsearch_data.schemas.rows import Chain
from stepsearch_data.stages.mining.comparisons import Comparison
from stepsearch_data.stages.mining.links import Numbers

COMPARISON = "comparison"
_PATHS = 200_000  # that are looked at at once
_FIRST, _MOST = 5_000, 80_000  # chains that are kept of all at once


class Candidate(NamedTuple):
    """A chain that may be drawn, and the numbers of its titles."""

    chain: Chain
    titles: Sequence[int]


@dataclass(frozen=True)
class Links:
    """Links as columns: the number of the passage, that of its title, and those of the title and passage it leads to.

    `source` is -1 for a passage without a title. `named` holds `passage * titles + title`, sorted, for all titles that
    passages name; `held` holds `title * names + name` for all names that stand in titles (`Titles.held`). `ids` are the
    ids of passages as numbers.
    """

    passage: Numbers
    source: Numbers
    title: Numbers
    target: Numbers
    rank: Numbers
    named: Numbers
    held: Numbers
    name_of: Numbers
    ids: Numbers
    titles: int
    names: int


class Chains:
    """The chains of a corpus, by part: "2 hops", "3 hops", "4 hops" and "comparison".

    `name` returns a title as texts write it, by its number.
    """

    def __init__(
        self, links: Links, comparisons: Sequence[Comparison], hops: Sequence[int], name: Callable[[int], str]
    ) -> None:
        self._links, self._comparisons, self._name = links, comparisons, name
        self._by_source = np.argsort(links.source, kind="stable")
        self._first = np.searchsorted(links.source[self._by_source], np.arange(links.titles + 1))
        self._hops = {f"{count} hops": count for count in hops}
        self._lowest_of_all = {part: self._lowest(part, 0, _FIRST) for part in [*self._hops, COMPARISON]}
        self.counts = {part: count for part, (count, *_) in self._lowest_of_all.items()}
        """How many chains there are of each part."""

    def in_order(self, part: str) -> Iterator[Candidate]:
        """Yield the chains of a part in the order of their ids, some at a time."""
        count, digests, paths = self._lowest_of_all[part]
        seen, most = len(digests), _FIRST
        while True:
            yield from (self._candidate(part, int(digest), path) for digest, path in zip(digests, paths.T, strict=True))
            if seen == count:
                return
            most = min(most * 4, _MOST)
            _, digests, paths = self._lowest(part, int(digests[-1]) + 1, most)
            seen += len(digests)

    def _candidate(self, part: str, digest: int, path: Numbers) -> Candidate:
        links = self._links
        if part == COMPARISON:
            first, second, kind, attribute = self._comparisons[path[0]]
            ids, titles, score = [first.passage_id, second.passage_id], [first.title, second.title], 1.0
            mentions = [kind, attribute]
        else:
            ids = [f"{links.ids[passage]:016x}" for passage in (*links.passage[path], links.target[path[-1]])]
            titles = [int(links.source[path[0]]), *map(int, links.title[path])]
            mentions, score = [self._name(title) for title in titles[1:]], float(links.rank[path].min())
        kind = COMPARISON if part == COMPARISON else "bridge"
        chain = Chain(
            chain_id=f"{digest:016x}", kind=kind, hops=len(ids), passage_ids=ids, mentions=mentions, score=score
        )
        return Candidate(chain, titles)

    def _lowest(self, part: str, least: int, most: int) -> tuple[int, Numbers, Numbers]:
        """Count the chains of a part; return the lowest digests from `least` on, `most` of them, and their paths."""
        count = 0
        digests = np.empty(0, np.uint64)
        paths = np.empty((max(1, self._hops.get(part, 2) - 1), 0), np.int64)
        for found in self._paths(part):
            count += found.shape[1]
            new = self._digests(part, found)
            kept = new >= np.uint64(least)
            if len(digests) == most:
                kept &= new < digests[-1]
            digests, paths = np.concatenate([digests, new[kept]]), np.hstack([paths, found[:, kept]])
            order = np.argsort(digests, kind="stable")[:most]
            digests, paths = digests[order], paths[:, order]
        return count, digests, paths

    def _digests(self, part: str, paths: Numbers) -> Numbers:
        links = self._links
        if part != COMPARISON:
            return digest([links.ids[links.passage[link]] for link in paths] + [links.ids[links.target[paths[-1]]]])
        pairs = [self._comparisons[pair] for pair in paths[0]]
        said = [int.from_bytes(blake2b(f"{p.kind} {p.attribute}".encode(), digest_size=8).digest()) for p in pairs]
        ids = ([int(p.first.passage_id, 16) for p in pairs], [int(p.second.passage_id, 16) for p in pairs], said)
        return digest([np.array(column, np.uint64) for column in ids])

    def _paths(self, part: str) -> Iterator[Numbers]:
        """Yield all chains of a part, some at a time: a row for each link of them, or the numbers of the pairs."""
        if part == COMPARISON:
            yield np.arange(len(self._comparisons))[np.newaxis]
            return
        starts = np.flatnonzero(self._links.source >= 0)
        yield from self._extended(starts[np.newaxis], self._hops[part] - 1)

    def _extended(self, paths: Numbers, length: int) -> Iterator[Numbers]:
        """Yield the paths of so many links that begin with these."""
        if len(paths) == length:
            for start in range(0, paths.shape[1], _PATHS):
                yield paths[:, start : start + _PATHS]
            return
        last = self._links.title[paths[-1]]
        ways = self._first[last + 1] - self._first[last]
        ends = np.searchsorted(np.cumsum(ways), np.arange(_PATHS, ways.sum() + _PATHS, _PATHS), side="right")
        for start, end in zip([0, *ends], [*ends, paths.shape[1]], strict=True):
            if start < end:
                yield from self._extended(self._longer(paths[:, start:end], ways[start:end]), length)

    def _longer(self, paths: Numbers, ways: Numbers) -> Numbers:
        """Return the paths with each link that may follow.

        Titles are distinct, and no passage names a title that the question has to find later, in its own title neither.
        """
        links = self._links
        which = np.repeat(np.arange(paths.shape[1]), ways)
        place = np.arange(len(which)) - np.repeat(np.cumsum(ways) - ways, ways)
        later = self._by_source[self._first[links.title[paths[-1]]][which] + place]
        longer = np.vstack([paths[:, which], later])
        found = links.title[later]
        apart = np.ones(len(which), bool)
        for link in longer[:-1]:
            source = links.source[link]
            named = _among(links.named, links.passage[link] * links.titles + found)
            apart &= ~(named | _among(links.held, source * links.names + links.name_of[found])) & (source != found)
        return longer[:, apart]


def _among(known: Numbers, values: Numbers) -> npt.NDArray[np.bool_]:
    """Tell of each value whether it is among the sorted ones."""
    found: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return found


def digest(columns: Sequence[Numbers]) -> Numbers:
    """Return a number for each row of these, 64 bits of each: it is as good as random, and always the same."""
    state = np.full(len(columns[0]), 0x9E3779B97F4A7C15, np.uint64)
    for column in columns:  # the mixing of splitmix64
        state = state * np.uint64(31) + column
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def draw(chains: Chains, wanted: int, *, per_title: int, per_passage: int) -> list[Chain]:
    """Draw as many chains as are wanted, in turn from each part that has some left.

    They come in the order of their ids, which are digests, as far as no title and no passage is in too many. So with
    more wanted, the same chains come first.
    """
    drawn: list[Chain] = []
    titles: Counter[int] = Counter()
    passages: Counter[str] = Counter()
    sets: set[frozenset[str]] = set()

    def free(candidate: Candidate) -> bool:
        return (
            all(titles[title] < per_title for title in candidate.titles)
            and all(passages[passage] < per_passage for passage in candidate.chain.passage_ids)
            and frozenset(candidate.chain.passage_ids) not in sets
        )

    left = [filter(free, chains.in_order(part)) for part in chains.counts]
    while left and len(drawn) < wanted:
        for candidates in list(left):
            found = next(candidates, None)
            if found is None:
                left.remove(candidates)
            elif len(drawn) < wanted:
                drawn.append(found.chain)
                titles.update(found.titles)
                passages.update(found.chain.passage_ids)
                sets.add(frozenset(found.chain.passage_ids))
    return drawn
