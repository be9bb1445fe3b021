"""Small valid rows for tests; every field can be overridden."""

from __future__ import annotations

from typing import Any

from stepsearch_data.schemas.rows import Hit, Passage, Query, Question, SubQuestion, SupportingParagraph, Vote


def supporting(passage_id: str, title: str, text: str, **fields: Any) -> SupportingParagraph:
    defaults: dict[str, Any] = {"sentence_ends": [], "supporting_sentences": []}
    return SupportingParagraph(passage_id=passage_id, title=title, text=text, **{**defaults, **fields})


def question(question_id: str = "q1", **fields: Any) -> Question:
    defaults: dict[str, Any] = {
        "source": "musique",
        "position": 1,
        "question": "Where was the composer of The Barber of Seville born?",
        "answer": "Pesaro",
        "answer_aliases": [],
        "answerable": True,
        "question_type": "2hop",
        "level": "",
        "hops": 2,
        "paragraph_ids": ["p1", "p2"],
        "supporting": [
            supporting("p1", "The Barber of Seville", "The opera was composed by Gioachino Rossini."),
            supporting("p2", "Gioachino Rossini", "Rossini was born in Pesaro."),
        ],
        "decomposition": [],
        "evidences": [],
    }
    return Question(question_id=question_id, **{**defaults, **fields})


def sub_question(hop: int = 1, **fields: Any) -> SubQuestion:
    defaults: dict[str, Any] = {
        "question_id": "q1",
        "source": "musique",
        "hops": 2,
        "sub_question": "Who composed The Barber of Seville?",
        "template": "Who composed The Barber of Seville?",
        "relation_form": "",
        "sub_answer": "Gioachino Rossini",
        "depends_on": [],
        "gold_passage_ids": ["p1"],
        "method": "official",
    }
    return SubQuestion(hop=hop, **{**defaults, **fields})


def query(n: int = 1, hop: int = 1, question_id: str = "q1", text: str | None = None) -> Query:
    return Query(
        query_id=f"{question_id}/{hop}/{n}",
        question_id=question_id,
        hop=hop,
        n=n,
        query=text or f"query {n} of hop {hop}",
        form="test",
    )


def hit(of: Query, rank: int | None, passage_id: str | None, *, engine: str = "bm25", gold: bool = False) -> Hit:
    return Hit(
        query_id=of.query_id,
        question_id=of.question_id,
        hop=of.hop,
        engine=engine,
        rank=rank,
        score=None if rank is None else 10.0 - rank,
        passage_id=passage_id,
        is_gold=gold,
    )


def vote(of: Query, *, kept: bool = True, gold_rank: int | None = 1, valid_engines: int = 1) -> Vote:
    return Vote(
        query_id=of.query_id,
        question_id=of.question_id,
        hop=of.hop,
        engines=1,
        valid_engines=valid_engines,
        needed=1,
        kept=kept,
        gold_rank=gold_rank,
    )


def passage(passage_id: str, title: str, text: str) -> Passage:
    return Passage(passage_id=passage_id, title=title, text=text, questions=1, gold_questions=0)
