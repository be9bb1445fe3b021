"""Links: each filter by the failure that it is there for, and what none of them may change."""

from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.stages.mining.links import Found, Text, find_links
from stepsearch_data.stages.mining.titles import Titles

Passages = list[tuple[str, str]]


def find(passages: Passages, **options: Any) -> tuple[Found, Titles]:
    titles = Titles(title for title, _ in passages)
    texts = (Text(f"{number:016x}", *passage) for number, passage in enumerate(passages))
    return find_links(texts, titles, **{"most": 20, "many": 5, "least": 0.5} | options), titles


def links(passages: Passages, **options: Any) -> list[tuple[int, str, float]]:
    """The passage, the title that it names and the rank of each link."""
    found, titles = find(passages, **options)
    return [(int(p), titles.texts[t], float(r)) for p, t, r in zip(found.passage, found.title, found.rank, strict=True)]


def left_out(passages: Passages, **options: Any) -> dict[str, int]:
    found, _ = find(passages, **options)
    return {reason: count for reason, count in found.left_out.items() if count}


OSTWICK = ("Ostwick", "A town on the Lenn.")


def test_a_passage_that_names_a_title_has_a_link_to_it() -> None:
    assert links([("Ada Ferro", "She was born in Ostwick."), OSTWICK]) == [(0, "Ostwick", 1.0)]


def test_the_longest_name_counts() -> None:
    passages = [("Ada", "She loved the New York Yankees."), ("New York", "A city."), ("New York Yankees", "A team.")]
    assert links(passages) == [(0, "New York Yankees", 1.0)]


def test_a_part_of_a_word_is_no_name() -> None:
    assert links([("Ada", "She came from Ostwickshire."), OSTWICK]) == []


def test_another_case_is_no_name() -> None:
    assert links([("Ada", "The ostwick is a bird."), OSTWICK]) == []


def test_a_part_of_the_own_title_is_no_link() -> None:
    passages = [("Ostwick Cathedral", "The cathedral of Ostwick is old."), OSTWICK]
    assert links(passages) == []
    assert left_out(passages) == {"own title": 1}


def test_a_word_of_the_language_is_no_name() -> None:
    passages = [("Ada", "Honey, she said, is sweet. She sold honey in jars."), ("Honey", "A film.")]
    assert links(passages) == []
    assert left_out(passages) == {"common word": 1}
    assert links([("Ada", "She starred in Honey as a bee."), ("Honey", "A film.")]) == [(0, "Honey", 1.0)]


def test_a_title_in_lower_case_is_a_name() -> None:
    assert links([("pandas", "It stands on numpy arrays."), ("numpy", "A library.")]) == [(0, "numpy", 1.0)]


def test_a_name_inside_a_longer_one_is_doubted() -> None:
    passages = [("Ada", "She played in Ostwick Murder Mystery."), OSTWICK]
    assert links(passages) == [(0, "Ostwick", 0.5)]
    assert left_out(passages, least=1) == {"too doubtful": 1}


def test_the_place_with_the_fewest_doubts_counts() -> None:
    found, _ = find([("Ada", "The Ostwick Murder was in Ostwick itself."), OSTWICK])
    assert (found.start.tolist(), found.rank.tolist()) == ([26], [1.0])


@pytest.mark.parametrize(
    ("text", "rank"), [("A street in Manhattan.", 0.5), ("The film Manhattan, of 1979, won.", 1.0)]
)
def test_a_sense_that_the_text_does_not_tell_is_doubted(text: str, rank: float) -> None:
    assert links([("Ada", text), ("Manhattan (1979 film)", "A comedy.")]) == [(0, "Manhattan (1979 film)", rank)]


def test_a_remake_is_left_out_where_two_doubts_meet() -> None:
    passages = [
        ("Ada", "She was in the 1984 film The Karate Kid Returns."),
        ("The Karate Kid (2010 film)", "A remake."),
    ]
    assert left_out(passages) == {"too doubtful": 1}


def test_hubs_are_doubted_and_larger_ones_left_out() -> None:
    passages = [OSTWICK, *((f"Person {n}", "Born in Ostwick.") for n in range(6))]
    assert {rank for *_, rank in links(passages, most=6, many=5)} == {0.5}
    assert {rank for *_, rank in links(passages, most=6, many=6)} == {1.0}
    assert left_out(passages, most=5) == {"named by too many": 6}


def test_a_link_leads_to_the_passage_that_names_its_title_soonest() -> None:
    passages = [
        ("Ada", "Born in Ostwick."),
        ("Ostwick", "Its market is old."),
        ("Ostwick", "The town of Ostwick is old."),
        ("Ostwick", "Ostwick is a town."),
    ]
    found, _ = find(passages)
    assert (found.passage.tolist(), found.target.tolist()) == ([0], [3])


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("他出生在北京市。", "北京"),
        ("彼は東京で生まれた。", "東京"),
        ("그는 서울에서 태어났다.", "서울"),
        ("Он родился в городе Псков.", "Псков"),
        ("ولد في بغداد عام 1900.", "بغداد"),
        ("वह दिल्ली में रहता है।", "दिल्ली"),
    ],
)
def test_other_scripts_have_names_too(text: str, title: str) -> None:
    assert links([("A. B.", text), (title, "…")]) == [(0, title, 1.0)]


@pytest.mark.parametrize("passages", [[], [OSTWICK], [("", "Born in Ostwick.")], [("1984", "A year."), ("II", "Two.")]])
def test_a_corpus_may_have_no_links(passages: Passages) -> None:
    assert links(passages) == []


def test_what_is_named_is_kept_without_links_too() -> None:
    found, titles = find([("Ada", "Born in Ostwick."), OSTWICK, ("Bo", "Born in Ostwick.")], most=1)
    assert len(found.rank) == 0
    assert [divmod(int(pair), len(titles.texts)) for pair in found.named] == [(0, 1), (2, 1)]
