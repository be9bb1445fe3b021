"""Chains with their texts, and the row that says what came of one."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stepsearch_data.schemas.rows import Paragraph
from stepsearch_data.schemas.tables import CHAINS, PARAGRAPHS
from stepsearch_data.stages.composing.drafts import Drafts, sentences_of
from stepsearch_data.stages.model.replies import Composition
from tests.builders import chain
from tests.stages.composing.replies import OPERA, bridge, compared, comparison, composition, with_hop


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! “Three?” Four", ["One.", "Two!", "“Three?”", "Four"]),
        ("J. R. R. Tolkien met Dr. No in St. Ives. He left.", ["J. R. R. Tolkien met Dr. No in St. Ives.", "He left."]),
        ("First line\n\nsecond  line", ["First line", "second line"]),
        ("一。二！三", ["一。", "二！", "三"]),
        ("3.14 is pi.", ["3.14 is pi."]),
        ("", [""]),
    ],
)
def test_a_text_has_sentences(text: str, sentences: list[str]) -> None:
    (first, *_) = bridge(OPERA._replace(text=text), OPERA).passages
    assert sentences_of(first) == sentences
    assert first.sentence_ends[-1] == len(text)


def test_a_kept_question_has_its_hops_and_where_they_stand() -> None:
    reply = with_hop(2, composition(answer_type="town"), aliases=["Ross", "Rossini, or Ross", "Pisaurum", "Pesaro"])
    row = bridge().row("kept", "", 2, Composition.model_validate(reply))
    assert (row.question_id, row.source, row.hops, row.paragraph_ids) == ("corpus__c1", "corpus", 2, ["p1", "p2"])
    assert [(step.text, step.answer, step.passage_id) for step in row.decomposition] == [
        ("Who composed Seville, the 1816 opera?", "Gioachino Rossini", "p1"),
        ("In which town was #1 born?", "Pesaro", "p2"),
    ]
    assert [passage.supporting_sentences for passage in row.supporting] == [[1], [0]]
    assert row.answer_aliases == ["Ross", "Rossini, or Ross"]  # what no passage says may be invented
    assert (row.answer_type, row.one_valued, row.attempts, row.status) == ("other", True, 2, "kept")


def test_what_was_not_kept_has_no_hops() -> None:
    skipped = bridge().row("skipped", "they do not join", 1)
    assert (skipped.question, skipped.answer, skipped.reason, skipped.kept) == ("", "", "they do not join", False)
    faulty = bridge().row("faulty", "no", 3, Composition.model_validate(composition()))
    assert (faulty.question, faulty.decomposition) == (composition()["question"], [])


def test_paragraphs_of_a_comparison_are_in_the_order_of_its_hops() -> None:
    hops = compared()["hops"]
    row = comparison().row("kept", "", 1, Composition.model_validate(compared(hops=[hops[1], hops[0]])))
    assert [step.passage_id for step in row.decomposition] == ["p3", "p2"]
    assert [passage.passage_id for passage in row.supporting] == ["p3", "p2"]


def test_chains_find_their_passages(tmp_path: Path) -> None:
    paragraphs = [Paragraph(passage_id=f"p{n}", title=f"T{n}", text=f"text {n}") for n in range(5_000)]
    chains = [chain("p4999", "p0", chain_id="a"), chain("p7", "p4999", "p3", chain_id="b")]
    files = {CHAINS: tmp_path / "chains.parquet", PARAGRAPHS: tmp_path / "paragraphs.parquet"}
    pq.write_table(CHAINS.to_arrow(chains), files[CHAINS])
    pq.write_table(PARAGRAPHS.to_arrow(paragraphs), files[PARAGRAPHS])
    drafts = Drafts(files, tmp_path)
    assert len(drafts) == 2
    for _ in range(2):  # they can be read again
        found = [(each.question.position, [passage.text for passage in each.passages]) for each in drafts]
        assert found == [(1, ["text 4999", "text 0"]), (2, ["text 7", "text 4999", "text 3"])]
