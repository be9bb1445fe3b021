"""Questions by templates: for demonstrations, and checked as those of a model are."""

from __future__ import annotations

from stepsearch_data.search.documents import Document
from stepsearch_data.stages.composing.templates import by_template
from stepsearch_data.stages.model.replies import Composition
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


def test_what_every_check_refuses_is_faulty() -> None:
    same = Document("p2", "Gioachino Rossini", "Seville.")
    row = by_template(bridge(OPERA, same), Composition)
    assert (row.status, "gives away" in row.reason) == ("faulty", True)
