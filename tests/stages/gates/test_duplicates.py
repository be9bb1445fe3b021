from __future__ import annotations

import numpy as np
import pytest

from stepsearch_data.stages.gates.duplicates import Duplicates, band_keys
from stepsearch_data.stages.gates.splits import wording

ASKED = "For which role did the soprano of Casta Diva at the Teatro Regio earn a medal?"
NEAR = [
    'Which role did the soprano of "Casta Diva" in the Teatro Regio earn a medal for?',
    "For which role did the Teatro Regio's Casta Diva soprano earn the medal?",
    "for which roles did the soprano of Casta Diva at the Teatro Regio earn a medal",
]
DIFFERENT = [
    "For which role did the soprano of Vissi Diva at the Teatro Regio earn a medal?",  # another name
    "For which role did the soprano of Casta Diva 2 at the Teatro Regio earn a medal?",  # a number
    "For which role did the composer of Casta Diva at the Teatro Regio write an aria?",  # other words
]


def duplicates_of(*texts: tuple[str, str, bool], similarity: float = 0.8) -> Duplicates:
    wordings = np.array([wording(question) for question, _, _ in texts], np.uint64)
    return Duplicates(wordings, band_keys(texts), similarity)


def find(first: tuple[str, str], second: tuple[str, str], similarity: float = 0.8) -> str | None:
    duplicates = duplicates_of((*first, True), (*second, True), similarity=similarity)
    duplicates.keep(0, "first", *first, answerable=True)
    return duplicates.near(1, *second)


@pytest.mark.parametrize("question", NEAR)
def test_the_same_names_and_nearly_the_same_words_are_near_duplicates(question: str) -> None:
    assert find((ASKED, "Norma"), (question, "norma.")) == "first"


@pytest.mark.parametrize("question", DIFFERENT)
def test_another_name_number_or_word_makes_another_question(question: str) -> None:
    assert find((ASKED, "Norma"), (question, "Norma")) is None


def test_another_answer_makes_another_question() -> None:
    assert find((ASKED, "Norma"), (NEAR[0], "Tosca")) is None


def test_the_similarity_that_is_asked_for_decides() -> None:
    one = ("Which prize did the singer from Pesaro win during the summer festival?", "Tony")
    other = ("Which prize did the singer from Pesaro receive during the summer festival?", "Tony")
    assert find(one, other, similarity=0.6) == "first"
    assert find(one, other, similarity=0.95) is None


def test_the_first_kept_one_is_named() -> None:
    texts = [(ASKED, "Norma"), (NEAR[0], "Norma"), (NEAR[1], "Norma"), (NEAR[0].upper(), "Norma")]
    duplicates = duplicates_of(*((*text, True) for text in texts), similarity=0.7)
    duplicates.keep(1, "second", *texts[1], answerable=True)  # the first one did not pass
    assert duplicates.near(2, *texts[2]) == "second"
    assert duplicates.same(3, texts[3][0], answerable=True) == "second"
    assert duplicates.same(0, ASKED, answerable=True) is None


def test_a_twin_repeats_no_answerable_question() -> None:
    duplicates = duplicates_of((ASKED, "Norma", True), (ASKED, "Norma", False))
    duplicates.keep(0, "first", ASKED, "Norma", answerable=True)
    assert duplicates.same(1, ASKED, answerable=False) is None
    assert duplicates.near(1, ASKED, "Norma") is None


def test_questions_without_a_word_are_no_trouble() -> None:
    assert find(("?", "1"), ("?", "1")) == "first"
    assert band_keys([]).shape == (0, 16)


def test_keys_are_the_same_on_every_machine() -> None:
    assert band_keys([(ASKED, "Norma", True)])[0, :2].tolist() == [7087970222315970178, 7887371002439031230]
