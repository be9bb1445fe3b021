from __future__ import annotations

import pytest

from stepsearch_data.text import contains, mentions, normalise, tokens


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


def test_tokens_are_words_of_two_characters_or_more() -> None:
    assert tokens("Jason's 3 sons, ÉTÉ") == ["jason", "sons", "été"]
