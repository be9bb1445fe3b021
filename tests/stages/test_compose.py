"""`compose` without a model: a row for every chain, marked as a demonstration."""

from __future__ import annotations

from stepsearch_data.pipeline.demonstrations import TEMPLATE
from stepsearch_data.schemas.rows import Paragraph
from stepsearch_data.stages import compose
from tests.builders import chain
from tests.stages.composing.replies import COMPOSER, OPERA
from tests.stages.conftest import RunStage

PARAGRAPHS = [Paragraph(passage_id=each.id, title=each.title, text=each.text) for each in (OPERA, COMPOSER)]
TWIN = Paragraph(passage_id="p4", title=OPERA.title, text=f"{OPERA.text} It is known.")


def test_every_chain_has_a_row_in_order(run_stage: RunStage) -> None:
    chains = [chain("p1", "p2", chain_id="b"), chain("p2", "p1", chain_id="a")]
    tables = run_stage(compose.STAGE, chains=chains, paragraphs=PARAGRAPHS)
    assert [(row.question_id, row.position, row.status) for row in tables["composed"]] == [
        ("corpus__b", 1, "kept"),
        ("corpus__a", 2, "skipped"),
    ]
    assert {note for row in tables["composed"] for note in row.notes} == {TEMPLATE}
    assert tables["rejects"] == []


def test_a_question_that_repeats_an_earlier_one_is_faulty(run_stage: RunStage) -> None:
    chains = [chain("p1", "p2", chain_id="b"), chain("p4", "p2", chain_id="a")]
    first, second = run_stage(compose.STAGE, chains=chains, paragraphs=[*PARAGRAPHS, TWIN])["composed"]
    assert (first.question, first.status) == (second.question, "kept")
    assert (second.status, second.reason) == ("faulty", "it repeats the question corpus__b")
    assert second.decomposition == []
