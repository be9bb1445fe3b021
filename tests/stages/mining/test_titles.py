"""Titles: which can be found in a text, what a text means by one, and where a name is a part of something else."""

from __future__ import annotations

import pytest

from stepsearch_data.stages.mining.titles import Titles, in_longer_name, is_name, is_whole, says, split_sense, without


@pytest.mark.parametrize(
    "title", ["1984", "12 May 1999", "May 1968", "1990s", "List of rivers", "II", "A", "1984年", "3,000"]
)
def test_numbers_dates_lists_and_very_short_titles_are_no_names(title: str) -> None:
    assert not is_name(title)


@pytest.mark.parametrize("title", ["Ada Ferro", "1990 FIFA World Cup", "May Sarton", "北京", "서울", "IBM", "iPhone"])
def test_other_titles_are_names(title: str) -> None:
    assert is_name(title)


@pytest.mark.parametrize(
    ("title", "held"),
    [
        ("Paris Opera House", {"Paris", "Paris Opera House"}),
        ("Comparison of Parisians", set()),
        ("Paris (film)", {"Paris"}),
        ("東京タワー", {"東京", "東京タワー"}),
        ("1984 in Paris", {"1984 in Paris", "Paris"}),
    ],
)
def test_names_that_stand_in_a_title(title: str, held: set[str]) -> None:
    titles = Titles(dict.fromkeys(["Paris", "東京", title]))
    places = {number % len(titles.names) for number in titles.held() if number // len(titles.names) == 2}
    assert {titles.names[place] for place in places} - {title} == held - {title}


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("東京タワーの設計者は誰か？", "東京タワー", True),
        ("東京ABCは", "abc", True),
        ("In Annapolis?", "Ann", False),
        ("by ann?", "Ann", True),
        ("anything", "", False),
    ],
)
def test_a_text_says_a_name(text: str, name: str, said: bool) -> None:
    assert says(text, name) == said


def test_names_can_be_taken_out_of_a_text() -> None:
    assert without("Is now in The Now, nowhere?", ["The Now", ""]) == "Is now in  , nowhere?"


def test_words_in_parentheses_tell_the_sense() -> None:
    assert split_sense("Manhattan (1979 film)") == ("Manhattan", frozenset(["1979", "film"]))
    assert split_sense("The Lord of the Rings (film of the novel)") == (
        "The Lord of the Rings",
        frozenset(["film", "novel"]),
    )
    assert split_sense("Ada (I) (II)") == ("Ada (I)", frozenset(["ii"]))
    assert split_sense("(What's the Story)") == ("(What's the Story)", frozenset())


@pytest.mark.parametrize(
    ("titles", "text", "meant", "doubtful"),
    [
        (["Ostwick"], "born in Ostwick", "Ostwick", False),
        # The borough is not the film, unless the text speaks of one.
        (["Manhattan (1979 film)"], "a street in Manhattan", "Manhattan (1979 film)", True),
        (["Manhattan (1979 film)"], "his film Manhattan won", "Manhattan (1979 film)", True),
        (["Manhattan (1979 film)"], "his film Manhattan won in 1979", "Manhattan (1979 film)", False),
        # A film of 1984 is not its remake.
        (["The Karate Kid (1984 film)", "The Karate Kid (2010 film)"], "the 1984 film The Karate Kid", 0, False),
        (["The Karate Kid (2010 film)"], "the 1984 film The Karate Kid", 0, True),
        (["Lenn", "Lenn (river)"], "the river Lenn", "Lenn (river)", False),
        (["Lenn", "Lenn (river)"], "the town of Lenn", "Lenn", True),
        (["Lenn (town)", "Lenn (river)"], "she came to Lenn", "Lenn (river)", True),
    ],
)
def test_a_text_means_the_title_whose_sense_it_tells(
    titles: list[str], text: str, meant: str | int, doubtful: bool
) -> None:
    for order in (titles, titles[::-1]):
        known = Titles(order)
        chosen = known.choose(0, text, "")
        assert known.texts[chosen.number] == (titles[meant] if isinstance(meant, int) else meant)
        assert chosen.doubtful == doubtful


def test_a_title_without_a_name_has_none() -> None:
    titles = Titles(["", "1984", "Lenn (river)", "Lenn (river)"])
    assert (titles.texts, titles.names) == (["1984", "Lenn (river)"], ["Lenn"])
    assert [titles.number(title) for title in ("", "1984", "Lenn (river)")] == [-1, 0, 1]
    assert [titles.name(number) for number in (-1, 0, 1)] == ["", "", "Lenn"]


@pytest.mark.parametrize(
    ("text", "name", "whole"),
    [
        ("Ann lives here", "Ann", True),
        ("Annapolis", "Ann", False),
        ("Hannah", "annah", False),
        ("(Ann)", "Ann", True),
        ("Ann's house", "Ann", True),
        ("snake_Ann", "Ann", False),
        ("他住在北京市", "北京", True),
        ("서울은 크다", "서울", True),
        ("दिल्ली", "दिल्ल", False),  # cut before a vowel sign
        ("Ännchen", "nnchen", False),
    ],
)
def test_a_name_is_no_part_of_a_word(text: str, name: str, whole: bool) -> None:
    start = text.index(name)
    assert is_whole(text, start, start + len(name)) == whole


@pytest.mark.parametrize(
    ("text", "name", "longer"),
    [
        ("Manhattan Murder Mystery is a film", "Manhattan", True),
        ("he saw Upper Manhattan at night", "Manhattan", True),
        ("he saw Manhattan at night", "Manhattan", False),
        ("In Manhattan it rained", "Manhattan", False),
        ("It rained. In Manhattan it did not", "Manhattan", False),
        ("It rained in Paris, Manhattan and Rome", "Manhattan", False),
    ],
)
def test_a_capitalised_neighbour_makes_a_longer_name(text: str, name: str, longer: bool) -> None:
    start = text.index(name)
    assert in_longer_name(text, start, start + len(name)) == longer
