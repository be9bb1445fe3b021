from __future__ import annotations

from stepsearch_data.schemas.rows import Paragraph
from stepsearch_data.stages import corpus
from tests.builders import question, supporting
from tests.stages.conftest import RunStage

PARAGRAPHS = [Paragraph(passage_id=f"p{n}", title=f"T{n}", text=f"text {n}") for n in (3, 1, 2)]


def test_passages_keep_order_and_count_the_questions_that_show_and_need_them(run_stage: RunStage) -> None:
    gold = [supporting("p1", "T1", "text 1")]
    questions = [
        question("q1", paragraph_ids=["p1", "p2", "p2"], supporting=gold),
        question("q2", paragraph_ids=["p1"], supporting=gold),
    ]
    passages = run_stage(corpus.STAGE, questions=questions, paragraphs=PARAGRAPHS)["passages"]
    assert [(p.passage_id, p.questions, p.gold_questions) for p in passages] == [
        ("p3", 0, 0),
        ("p1", 2, 2),
        ("p2", 1, 0),
    ]


def test_documents_without_questions_are_a_corpus_too(run_stage: RunStage) -> None:
    passages = run_stage(corpus.STAGE, questions=[], paragraphs=PARAGRAPHS)["passages"]
    assert [p.text for p in passages] == ["text 3", "text 1", "text 2"]
