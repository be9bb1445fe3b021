"""Questions by templates: for demonstrations, and checked as those of a model are."""

from __future__ import annotations

from stepsearch_data.search.documents import Document
from stepsearch_data.stages.composing.drafts import draft_of
from stepsearch_data.stages.composing.templates import by_template
from stepsearch_data.stages.model.replies import Composition
from tests.builders import chain
from tests.stages.composing.replies import COMPOSER, OPERA, bridge, comparison


def test_a_chain_becomes_a_question_with_gaps() -> None:
    row = by_template(bridge(), Composition)
    assert (row.status, row.answer, row.attempts) == ("kept", "1868", 0)
    assert row.question == (
        "Which number fills the gap in “He died in ___.”, said of the name that fills the gap in "
        "“Seville was composed by ___ in Rome.”, said of Seville (1816 opera)?"
    ).replace("Seville was", "… was").replace(".”", "”")
    assert [step.answer for step in row.decomposition] == ["Gioachino Rossini", "1868"]


def test_a_pair_is_compared_by_its_values() -> None:
    row = by_template(comparison(), Composition)
    assert (row.question, row.answer) == (
        "Who died earlier, Gioachino Rossini or Gaetano Donizetti?",
        "Gaetano Donizetti",
    )


def test_a_chain_that_no_template_fits_is_skipped() -> None:
    silent = OPERA._replace(text="It names nobody.")
    row = by_template(bridge(silent, COMPOSER), Composition)
    assert (row.status, row.reason) == ("skipped", "no template fits")


def test_odd_texts_do_no_harm() -> None:
    long = OPERA._replace(text=f"{'x' * 20_000} Gioachino Rossini {'ya' * 10_000}")
    assert by_template(bridge(long, COMPOSER), Composition).status == "faulty"  # its question is too long
    odd = [each._replace(text=f"{each.title} died, says {'1.2.3,4' * 20}, in 1.868.") for each in (COMPOSER, OPERA)]
    pair = draft_of(chain("p2", "p3", kind="comparison", mentions=["town", "population"]), 1, odd)
    assert by_template(pair, Composition).status == "skipped"
    dots = [each._replace(text=f"{each.title} has a population of 1.2.{n}.") for n, each in enumerate(odd)]
    pair = draft_of(chain("p2", "p3", kind="comparison", mentions=["town", "population"]), 1, dots)
    assert by_template(pair, Composition).status == "skipped"


def test_what_every_check_refuses_is_faulty() -> None:
    same = Document("p2", "Gioachino Rossini", "Seville.")
    row = by_template(bridge(OPERA, same), Composition)
    assert (row.status, "gives away" in row.reason) == ("faulty", True)
