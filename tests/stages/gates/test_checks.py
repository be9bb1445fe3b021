from __future__ import annotations

import pytest

from stepsearch_data.stages.gates.checks import broken, not_english

GOOD = [
    "Where was the composer of The Barber of Seville born?",
    "São Paulo, Ångström, Ólafur, “naïve”, Dvořák’s — 100 °C at 5 £",
    "Ελλάδα και Ρωσία",
    "1990–91?",
    "tabs\tand\nlines\r\n",
    "ÃO",  # a capital word in Portuguese
]


@pytest.mark.parametrize("text", GOOD)
def test_good_text_passes(text: str) -> None:
    assert broken(text, 0.5) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Dvo\ufffdák", "holds a replacement character"),
        ("a\x07b", "holds the control character U+0007"),
        ("1990\x9691", "holds the control character U+0096"),
        ("DvoÅ™Ã¡k", "holds 'Ã¡', UTF-8 read as another encoding"),
        ("Rossiniâ€™s", "holds 'â€™', UTF-8 read as another encoding"),
        ("=== 12345 | 67890 | a", "is 6% letters"),
    ],
)
def test_broken_text_is_named(text: str, reason: str) -> None:
    assert broken(text, 0.5) == reason


def test_english_has_stop_words() -> None:
    assert not_english("Where was the composer of Norma born?", 0.1) == ""
    assert not_english("Wo wurde der Komponist von Norma geboren?", 0.1) == ("has 0 English stop words among 7 words")
    assert not_english("Gioachino Rossini, Pesaro", 0.1) == ""  # too short to tell
