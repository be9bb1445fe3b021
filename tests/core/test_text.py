from __future__ import annotations

import pytest

from stepsearch_data.core.text import contains, mentions, normalise, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles", "beatles"),
        ("U.S. Marshal", "us marshal"),
        ("an apple a day", "apple day"),
        ("theatre", "theatre"),
        ("Gmina Stężyca,\nLublin", "gmina stężyca lublin"),
        ("“quoted”", "“quoted”"),  # only ASCII punctuation is deleted
        ("?!", ""),
    ],
)
def test_normalise_follows_the_official_scripts(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_contains_looks_for_whole_tokens_in_a_row() -> None:
    assert contains("Born in New York, 1948.", "new york")
    assert not contains("Born in 1948", "48")
    assert not contains("York, the new one", "New York")


def test_mentions_looks_inside_words() -> None:
    assert mentions("the Avicennas", "Avicenna")
    assert not mentions("anything", "the")  # nothing is left of it


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("He was born in Schleswig- Holstein.", "Schleswig-Holstein"),
        ("in the north. Schleswig- Holstein", "Schleswig-Holstein"),  # the full stop before it is no part of it
        ("the state of Schleswig -Holstein, Germany", "Schleswig-Holstein"),
        ("She died in Washington, D. C., in 1901", "Washington, D.C."),
        ('the " A- ha" album', "A-ha"),  # no article
        ("of Bosnia- Herzegovina", "the Bosnia-Herzegovina"),
        ("Schleswig-Holstein", "Schleswig- Holstein"),
        ("of St.Louis", "St. Louis"),
        ("O' Brien( born 1950) won", "O'Brien"),
    ],
)
def test_spaces_at_punctuation_do_not_hide_an_answer(text: str, answer: str) -> None:
    assert contains(text, answer)
    assert mentions(text, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("from Rom. Alice came", "Mali"),  # not across a full stop, inside words
        ("from Rom. Alice came", "m.A"),
        ("pre-Schleswig- Holsteiners", "Schleswig-Holstein"),
        ("Jean Luc", "Jean-Luc"),  # a space alone parts words, as in the official scripts
        ("...", "- -"),
    ],
)
def test_other_spaces_and_parts_of_words_do_count(text: str, answer: str) -> None:
    assert not contains(text, answer)


def test_tokens_are_words_of_two_characters_or_more() -> None:
    assert tokens("Jason's 3 sons, ÉTÉ") == ["jason", "sons", "été"]
