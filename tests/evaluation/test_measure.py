"""Measures of rollouts, computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stepsearch_data.evaluation.measure import Row, Tally, interval, row_of
from stepsearch_data.evaluation.policy import Played
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.search_env import Episode, Search, Task

A, B, C = Paragraph("A", "Ada wrote it."), Paragraph("B", "It was  written\nin 1843."), Paragraph("C", "Else.")
ANSWERED = "<think> t </think><search> q </search><information> i </information><answer> {} </answer>"


def row(
    answer: str | None = "Ada",
    golds: tuple[str, ...] = ("Ada",),
    searches: tuple[tuple[str, tuple[Paragraph, ...]], ...] = (),
    source: str = "musique",
    support: tuple[Paragraph, ...] = (A, B),
    hops: int = 2,
    refused: str = "",
) -> Row:
    task = Task("q1", "Who?", "Who?\n", golds, support_docs=support, source=source)
    text = "<search> q </search>" if answer is None else ANSWERED.format(answer)
    found = [Search(query, documents, 0, 0) for query, documents in searches]
    ended = "no answer" if answer is None else "answer"
    asked = replace(task, hops=hops)
    return row_of(Played(Episode(asked, [], text=text, searches=found, ended=ended), 7, refused))


def measured(*rows: Row) -> Row:
    tally = Tally()
    for each in rows:
        tally.add(each)
    return tally.measures()["all"]["all"]


@pytest.mark.parametrize(
    ("source", "answer", "golds", "em", "f1"),
    [
        ("musique", "the Ada", ("Lovelace", "Ada"), 1, 1),  # aliases count
        ("hotpotqa", "the Ada", ("Lovelace", "Ada"), 0, 0),  # they do not
        ("2wiki", "Ada Byron", ("Lovelace", "Ada"), 0, 2 / 3),
        ("bamboogle", "yes", ("yes it is",), 0, 0),  # yes shares words with itself only
        ("musique", "yes", ("yes it is",), 0, 1 / 2),
        ("jsonl", "Ada", ("Ada",), 1, 1),
        ("musique", None, ("the",), 0, 0),  # no answer is none, though the gold is empty once normalised
    ],
)
def test_each_source_has_the_rules_of_its_own_script(
    source: str, answer: str | None, golds: tuple[str, ...], em: float, f1: float
) -> None:
    found = row(answer, golds, source=source)
    assert (found["em"], found["f1"]) == pytest.approx((em, f1))


def test_recall_is_the_share_of_gold_paragraphs_that_any_search_has_shown() -> None:
    joined = Paragraph("other title", "It was written in 1843.")  # white space is the server's business
    one, two = row(searches=(("q", (C, A)),)), row(searches=(("q", (C,)), ("r", (joined, A))))
    assert [search["gold"] for search in two["searches"]] == [[], [0, 1]]
    assert measured(one, two)["support_recall"] == 0.75
    unknown = row(support=())
    assert measured(unknown)["support_recall"] is None
    assert measured(one, unknown)["support_recall"] == 0.5


def test_a_search_is_redundant_when_all_its_documents_were_shown_before() -> None:
    rounds = (("The q", (A, B)), ("r", (B, A)), ("q!", (A, C)), ("s", ()))
    found = row(searches=rounds)
    assert [search["seen"] for search in found["searches"]] == [0, 2, 1, 0]
    assert [search["repeated"] for search in found["searches"]] == [False, False, True, False]
    whole = measured(found)
    assert (whole["searches"], whole["redundant_searches"], whole["partly_redundant_searches"]) == (4, 0.25, 0.25)
    assert (whole["repeated_queries"], whole["empty_searches"]) == (0.25, 0.25)


def test_without_a_search_no_share_of_them_is_known() -> None:
    whole = measured(row())
    assert (whole["searches"], whole["redundant_searches"], whole["repeated_queries"]) == (0, None, None)


def test_means_are_told_in_all_by_source_and_by_hops() -> None:
    tally = Tally()
    for each in (row(), row("Bob", hops=3), row(source="hotpotqa", hops=0)):
        tally.add(each)
    found = tally.measures()
    assert found["all"]["all"]["em"] == pytest.approx(2 / 3)
    assert {name: part["questions"] for name, part in found["by_source"].items()} == {"hotpotqa": 1, "musique": 2}
    assert {name: part["em"] for name, part in found["by_source_and_hops"].items()} == {
        "hotpotqa, hops unknown": 1,
        "musique, 2 hops": 1,
        "musique, 3 hops": 0,
    }


def test_how_rollouts_ended_and_what_was_wrong_with_their_form() -> None:
    whole = measured(row(), row(None), row(refused="too long"), row())
    ended = {name: share for name, share in whole["ended"].items() if share}
    assert ended == {"answer": 0.5, "no answer": 0.25, "refused": 0.25}
    assert (whole["format_errors"], whole["invalid_turns"], whole["own_tokens"]) == (0.25, 0, 7)


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    scores = np.repeat([[1.0, 0.5], [0.0, 0.5]], [30, 70], axis=0)
    (low, flat_low), (high, flat_high) = interval(scores)
    spread = 1.96 * (0.3 * 0.7 / 100) ** 0.5
    assert (low, high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.015)
    assert (flat_low, flat_high) == (0.5, 0.5)
    assert interval(scores) == interval(scores)
