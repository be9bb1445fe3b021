"""Chains: whole sets of them on small graphs of links, and what a draw keeps when more is wanted or there is more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stepsearch_data.schemas.rows import Chain
from stepsearch_data.stages.mining.chains import Chains, Links, digest, draw


def number(pair: str) -> int:
    return ord(pair[0]) * 128 + ord(pair[1])


def graph(
    edges: Sequence[str], named: Sequence[str] = (), hops: Sequence[int] = (2, 3, 4), held: Sequence[str] = ()
) -> Chains:
    """Passages a, b, c …, each with a title of its own name; "ab" is a link, and in `named` a mention without one.

    In `held`, "ab" says that the title of a holds the name of b.
    """
    one, other = (np.array([ord(edge[side]) for edge in edges], np.int64) for side in (0, 1))
    links = Links(
        passage=one,
        source=one,
        title=other,
        target=other,
        rank=np.array([0.5 if "z" in edge else 1.0 for edge in edges]),
        named=np.array(sorted(map(number, (*edges, *named))), np.int64),
        held=np.array(sorted([*(128 * letter + letter for letter in range(128)), *map(number, held)]), np.int64),
        name_of=np.arange(128),
        ids=np.arange(128, dtype=np.uint64),
        titles=128,
        names=128,
    )
    return Chains(links, [], hops, chr)


def spelled(chain: Chain) -> str:
    return "".join(chr(int(passage, 16)) for passage in chain.passage_ids)


def found(chains: Chains) -> list[str]:
    return sorted(spelled(candidate.chain) for part in chains.counts for candidate in chains.in_order(part))


@pytest.mark.parametrize(
    ("edges", "named", "expected"),
    [
        (["ab"], [], ["ab"]),
        (["ab", "bc", "cd"], [], ["ab", "abc", "abcd", "bc", "bcd", "cd"]),
        (["ab", "bc", "ac"], [], ["ab", "ac", "bc"]),  # a names c: b is no bridge
        (["ab", "bc"], ["ac"], ["ab", "bc"]),  # so it is where that mention is no link
        (["ab", "bc", "cd"], ["ad"], ["ab", "abc", "bc", "bcd", "cd"]),
        (["ab", "bc", "cd"], ["bd"], ["ab", "abc", "bc", "cd"]),
        (["ab", "ba"], [], ["ab", "ba"]),  # no passage twice
        (["ab", "bc", "ca"], [], ["ab", "abc", "bc", "bca", "ca", "cab"]),
        ([], [], []),
    ],
)
def test_a_chain_has_no_shortcut_and_no_circle(edges: list[str], named: list[str], expected: list[str]) -> None:
    assert found(graph(edges, named)) == expected


@pytest.mark.parametrize(("held", "lost"), [("ac", {"abc", "abcd"}), ("ad", {"abcd"}), ("bd", {"bcd", "abcd"})])
def test_no_later_title_stands_in_an_earlier_one(held: str, lost: set[str]) -> None:
    edges = ["ab", "bc", "cd"]
    assert {*found(graph(edges))} - {*found(graph(edges, held=[held]))} == lost


def test_a_chain_says_what_joins_it_and_its_lowest_rank() -> None:
    ((chain, titles),) = graph(["ab", "bz"], hops=(3,)).in_order("3 hops")
    assert (chain.kind, chain.hops, chain.mentions, chain.score) == ("bridge", 3, ["b", "z"], 0.5)
    assert list(titles) == [ord("a"), ord("b"), ord("z")]


COMPLETE = [f"{one}{other}" for one in "abcdefghijkl" for other in "mnopqrstuvwx"]


def drawn(chains: Chains, wanted: int, per_title: int = 3, per_passage: int = 2) -> list[Chain]:
    return draw(chains, wanted, per_title=per_title, per_passage=per_passage)


def test_more_wanted_are_the_same_first() -> None:
    few, many = drawn(graph(COMPLETE), 5), drawn(graph(COMPLETE), 11)
    assert (len(few), len(many)) == (5, 11)
    assert many[:5] == few


def test_the_order_of_links_does_not_matter() -> None:
    assert drawn(graph(COMPLETE[::-1]), 9) == drawn(graph(COMPLETE), 9)


@pytest.mark.parametrize(("per_title", "per_passage", "most"), [(1, 1, 12), (2, 5, 24), (5, 2, 24)])
def test_no_passage_and_no_title_is_in_too_many(per_title: int, per_passage: int, most: int) -> None:
    chains = drawn(graph(COMPLETE), 1_000, per_title, per_passage)
    times = [sum(letter in spelled(chain) for chain in chains) for letter in "abcdefghijklmnopqrstuvwx"]
    assert max(times) == min(per_title, per_passage)
    assert most - 4 <= len(chains) <= most


def test_lengths_take_turns_until_one_has_none_left() -> None:
    chains = drawn(graph(["ab", "bc", "de", "fg", "hi"]), 10, per_title=9, per_passage=9)
    assert [chain.hops for chain in chains] == [2, 3, 2, 2, 2, 2]


def test_two_directions_between_two_passages_are_drawn_once() -> None:
    assert len(drawn(graph(["ab", "ba"]), 10)) == 1


def test_more_passages_take_nothing_away_but_for_new_ones() -> None:
    before = drawn(graph(COMPLETE, hops=(2,)), 10)
    after = drawn(graph([*COMPLETE, "yz", "ym"], hops=(2,)), 10)
    gone = [chain for chain in before if chain not in after]
    new = [chain for chain in after if chain not in before]
    assert len(gone) == len(new)
    assert len(gone) <= 2


def test_many_chains_are_yielded_in_the_order_of_their_ids_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [candidate.chain for candidate in graph(COMPLETE).in_order("2 hops")]
    assert [chain.chain_id for chain in whole] == sorted({chain.chain_id for chain in whole})
    assert len(whole) == len(COMPLETE)
    for name, few in (("_PATHS", 7), ("_FIRST", 5), ("_MOST", 9)):
        monkeypatch.setattr(f"stepsearch_data.stages.mining.chains.{name}", few)
    assert [candidate.chain for candidate in graph(COMPLETE).in_order("2 hops")] == whole
    ring = [f"{one}{other}" for one, other in zip("abcdefgh", "bcdefgha", strict=True)]
    assert graph(ring).counts == {"2 hops": 8, "3 hops": 8, "4 hops": 8, "comparison": 0}


def test_a_digest_depends_on_every_number_and_on_their_order() -> None:
    one, two = np.array([1, 1, 2, 0], np.uint64), np.array([2, 3, 1, 33], np.uint64)
    assert len(set(digest([one, two]).tolist())) == 4
    assert digest([one[:1], two[:1]]).tolist() == [11914626747511174673]
