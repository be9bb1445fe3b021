"""Documents in pages, and words in them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepsearch_data.search.reading import MOST_PLACES, Place, around, find_words, pages

TEXTS = st.text(st.sampled_from("ab é\n中.\u00a0"), max_size=300)


@given(TEXTS, st.integers(1, 40))
@example("a" * 25, 10)
@example("aaaa bbbb", 4)
def test_pages_joined_are_the_text(text: str, length: int) -> None:
    cut = pages(text, length)
    assert "".join(cut) == text.strip()
    assert all(len(page) <= length for page in cut)
    assert all(cut) or cut == [""]
    for before, after in pairwise(cut):
        ends = before[-1].isspace() or after[0].isspace()
        assert ends or not any(letter.isspace() for letter in before)  # else a word is longer than a page


def test_a_page_ends_where_a_word_does() -> None:
    assert pages("one two three four", 10) == ["one two ", "three four"]
    assert pages("  one  ") == ["one"]
    assert pages("") == [""]


LONG = "Rossini was born in Pesaro. " + "He wrote operas in Naples. " * 20 + "He died in Passy, near Paris, in 1868."


def test_words_are_found_with_their_page_and_the_text_around_them() -> None:
    ((place,), count) = find_words(LONG, "died paris", 100)
    assert count == 1
    assert "He died in" in pages(LONG, 100)[place.page - 1]
    assert place.text.endswith("He died in Passy, near Paris, in 1868.")
    assert place.text.startswith("…")


@given(TEXTS, st.text(st.sampled_from("ab é中"), max_size=6), st.integers(1, 40))
def test_the_page_of_a_place_holds_its_first_word(text: str, words: str, length: int) -> None:
    cut = pages(text, length)
    found, count = find_words(text, words, length)
    assert len(found) == min(count, MOST_PLACES)
    assert [place.page for place in found] == sorted(place.page for place in found)
    for place in found:
        assert any(word.casefold()[0] in cut[place.page - 1].casefold() for word in words.split())


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("BORN", 1),
        ("opera", 3),  # `operas`, twenty times: in three snippets
        ("pera", 0),  # no word begins so
        ("Verdi", 0),
        ("...", 0),
        ("", 0),
    ],
)
def test_a_word_is_found_as_a_beginning_whatever_its_case(words: str, count: int) -> None:
    assert find_words(LONG, words)[1] == count


@pytest.mark.parametrize("word", ["Straße", "Fuß", "İstanbul", "\ufb01le", "ὈΔΥΣΣΕΎΣ"])
def test_a_word_is_found_as_it_stands_in_the_text(word: str) -> None:
    assert find_words(f"It is {word} here.", word)[1] == 1


def test_words_of_a_script_without_spaces_are_found() -> None:
    assert find_words("罗西尼出生于佩萨罗", "佩萨罗") == ([Place(1, "罗西尼出生于佩萨罗")], 1)


def test_the_places_with_the_most_words_are_shown() -> None:
    apart = ". " + "x " * 200
    text = apart.join(["born"] * 10 + ["born in Pesaro"] + ["born"] * 10)
    found, count = find_words(text, "born Pesaro")
    assert (len(found), count) == (MOST_PLACES, 21)
    assert [("Pesaro" in place.text) for place in found] == [False] * 4 + [True]


def test_a_long_document_is_read_in_time_that_grows_with_it() -> None:
    text = "word and another " * 100_000
    assert "".join(pages(text)) == text.strip()
    assert find_words(text, " ".join(f"w{n}" for n in range(1_000)) + " another")[1] == 0  # only so many are looked for
    assert find_words(text, "another")[1] > 1_000


def test_a_snippet_shows_where_it_was_cut() -> None:
    assert around("a short text", 2) == "a short text"
    text = "x" * 50 + " " + "y" * 70 + " here " + "z" * 300
    assert around(text, text.index("here")).startswith(f"…{'y' * 70} here z")
    assert around(text, text.index("here")).endswith("z…")
    assert "佩" in around("罗" * 500 + "佩" + "罗" * 500, 500)
