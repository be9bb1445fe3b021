"""Comparisons: what a passage states of its subject, and which passages are paired."""

from __future__ import annotations

import string
from collections.abc import Sequence

import pytest

from stepsearch_data.stages.mining.comparisons import Comparisons, value_of
from stepsearch_data.stages.mining.links import Text


def pairs(*texts: str, titles: Sequence[str] = string.ascii_letters) -> list[tuple[str, str, str, str]]:
    """Kind, attribute and both values of each pair."""
    comparisons = Comparisons()
    for number, text in enumerate(texts):
        comparisons.add(Text(f"{number:016x}", titles[number], text), number)
    return [(kind, attribute, one.value, other.value) for one, other, kind, attribute in comparisons.pairs(titles)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (
            "Ada Ferro (born 3 May 1901) was a painter.",
            "Bo Lund (1899 – 1950) was an English poet.",
            ("person", "born", "1901", "1899"),
        ),
        ("Ada was a painter who died in 1950.", "Bo (1899–1951) is a poet.", ("person", "died", "1950", "1951")),
        ("Lark is a 1984 film.", "Owl is a film, released in 1990.", ("film", "released", "1984", "1990")),
        (
            "Lenn Works is a company founded in 1901.",
            "Sour Mills was a company, established 1880.",
            ("company", "founded", "1901", "1880"),
        ),
        (
            "Old Bridge is a bridge that opened in 1901.",
            "New Bridge is a bridge, completed in 1950.",
            ("bridge", "opened", "1901", "1950"),
        ),
        (
            "Ostwick is a town with a population of 4,100.",
            "Marl is a town. Its population was 900.",
            ("town", "population", "4,100", "900"),
        ),
        ("The Lenn is a river, 41 km long.", "The Sour is a river 7.5 km long.", ("river", "length", "41", "7.5")),
        ("Kest is a mountain 1,200 m high.", "Ull is a mountain 900 m high.", ("mountain", "height", "1,200", "900")),
    ],
)
def test_two_of_one_kind_with_two_values_are_a_pair(one: str, other: str, expected: tuple[str, ...]) -> None:
    assert pairs(one, other) == [expected]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lark is a 1984 film.", "Owl is a 1984 film."),  # nothing to compare
        ("Lark is a 1984 film.", "Lenn Works is a company founded in 1901."),
        ("The Lenn flows by a film of 1984.", "Owl is a 1990 film."),  # says of no subject what it is
    ],
)
def test_others_are_no_pair(one: str, other: str) -> None:
    assert pairs(one, other) == []


LARK, OWL = "Lark is a 1984 film.", "Owl is a 1990 film."


@pytest.mark.parametrize("other", ["Lark", "Lark (play)", "lark (1990s film)"])
def test_two_passages_of_one_name_are_no_pair(other: str) -> None:
    assert pairs(LARK, OWL, titles=["Lark", other]) == []


@pytest.mark.parametrize("title", ["Owl (1990 film)", "Owl (1984 song)"])
def test_a_title_that_says_a_value_is_in_no_pair(title: str) -> None:
    assert pairs(LARK, OWL, titles=["Lark", title]) == []


def test_one_whose_title_says_its_value_parts_no_pair() -> None:
    asked = pairs(LARK, "Kite is a 1988 film.", OWL, titles=["Lark", "Kite (1988 film)", "Owl"])
    assert asked == [("film", "released", "1984", "1990")]


def test_each_is_paired_with_the_next_one_only() -> None:
    assert len(pairs(*(f"F{year} is a {year} film." for year in range(1950, 1960)))) == 9


def test_the_value_that_a_text_states() -> None:
    assert value_of("population", "Brannoch is a city with a population of 218,000.") == "218,000"
    assert value_of("born", "She was born in Eskerby.") == ""
