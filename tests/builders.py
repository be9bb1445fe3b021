"""Small valid rows for tests; every field can be overridden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepsearch_data.core.progress import Meter
from stepsearch_data.schemas.rows import (
    Chain,
    Composed,
    Hit,
    Passage,
    Query,
    Question,
    Rollout,
    Round,
    SubQuestion,
    SupportingParagraph,
    Verdict,
    Vote,
)
from stepsearch_data.search.documents import Document, Documents, write_documents
from stepsearch_data.search.kinds import choose


def supporting(passage_id: str, title: str, text: str, **fields: Any) -> SupportingParagraph:
    defaults: dict[str, Any] = {"sentence_ends": [], "supporting_sentences": []}
    return SupportingParagraph(passage_id=passage_id, title=title, text=text, **{**defaults, **fields})


def question(question_id: str = "q1", **fields: Any) -> Question:
    defaults: dict[str, Any] = {
        "source": "musique",
        "position": 1,
        "question": "Where was the composer of The Barber of Seville born?",
        "answer": "Pesaro",
        "question_type": "2hop",
        "hops": 2,
        "paragraph_ids": ["p1", "p2"],
        "supporting": [
            supporting("p1", "The Barber of Seville", "The opera was composed by Gioachino Rossini."),
            supporting("p2", "Gioachino Rossini", "Rossini was born in Pesaro."),
        ],
    }
    return Question(question_id=question_id, **{**defaults, **fields})


def composed(question_id: str = "corpus__c1", **fields: Any) -> Composed:
    defaults: dict[str, Any] = {
        "source": "corpus",
        "question_type": "bridge",
        "chain_id": question_id.removeprefix("corpus__"),
        "relations": ["composer", "place of birth"],
        "answer_type": "place",
        "one_valued": True,
        "attempts": 1,
        "status": "kept",
        "reason": "",
    }
    return Composed(**{**question(question_id).model_dump(), **defaults, **fields})


def chain(*passage_ids: str, **fields: Any) -> Chain:
    defaults: dict[str, Any] = {
        "chain_id": "c1",
        "kind": "bridge",
        "hops": len(passage_ids),
        "mentions": ["Gioachino Rossini"],
        "score": 1.0,
    }
    return Chain(passage_ids=list(passage_ids), **{**defaults, **fields})


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
        method="test",
    )


def hit(
    of: Query, rank: int | None, passage_id: str | None, *, engine: str = "bm25", gold: bool = False, **fields: Any
) -> Hit:
    defaults: dict[str, Any] = {"title": None, "text": None, "url": None, "latency": None, "error": None}
    return Hit(
        query_id=of.query_id,
        question_id=of.question_id,
        hop=of.hop,
        engine=engine,
        rank=rank,
        score=None if rank is None else 10.0 - rank,
        passage_id=passage_id,
        is_gold=gold,
        **{**defaults, **fields},
    )


def vote(
    of: Query, *, kept: bool = True, waiting: bool = False, gold_rank: int | None = 1, valid_engines: int = 1
) -> Vote:
    return Vote(
        query_id=of.query_id,
        question_id=of.question_id,
        hop=of.hop,
        asked=1,
        engines=1,
        valid_engines=valid_engines,
        needed=1,
        kept=kept,
        waiting=waiting,
        gold_rank=gold_rank,
    )


def verdict(question_id: str = "q1", **fields: Any) -> Verdict:
    defaults: dict[str, Any] = {
        "source": "musique",
        "passed": True,
        "failed": [],
        "first_failed": None,
        "complete": True,
        "judged_by": ["rules"],
        "corpus_passages": 2,
    }
    return Verdict(question_id=question_id, **{**defaults, **fields})


def search_round(of: Query, number: int | None = None, **fields: Any) -> Round:
    """A round without documents, though it says that gold was ranked first."""
    defaults: dict[str, Any] = {
        "role": "gold",
        "sub_question": f"sub-question {of.hop}",
        "sub_answer": "",
        "kept": True,
        "gold_rank": 1,
        "alternatives": [],
        "documents": [],
    }
    return Round(
        question_id=of.question_id,
        round=number or of.hop,
        hop=of.hop,
        query=of.query,
        query_id=of.query_id,
        **{**defaults, **fields},
    )


def passage(passage_id: str, title: str, text: str) -> Passage:
    return Passage(passage_id=passage_id, title=title, text=text, questions=1, gold_questions=0)


def documents(folder: Path, texts: Sequence[str | tuple[str, str]]) -> Documents:
    """Documents d0, d1, … of these texts, or pairs of title and text."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [("", text) if isinstance(text, str) else text for text in texts]
    write_documents((Document(f"d{number}", *pair) for number, pair in enumerate(pairs)), folder)
    return Documents(folder)


def build_index(folder: Path, texts: Sequence[str | tuple[str, str]], kind: str = "bm25", **config: Any) -> Path:
    """The part of an index that an engine of this kind makes of these texts."""
    (engine,) = choose([kind], {kind: config})
    part = folder / kind
    part.mkdir(parents=True, exist_ok=True)
    assert engine.kind.build is not None
    engine.kind.build(engine, documents(folder, texts), part, Meter(None, kind))
    return part


def rollout(question_id: str = "q1", policy: str = "mine", sample: int = 1, **fields: Any) -> Rollout:
    """A rollout that neither searches nor answers."""
    defaults: dict[str, Any] = {
        "source": "musique",
        "answer": None,
        "right": False,
        "f1": 0.0,
        "format_ok": False,
        "ended": "",
        "searches": 0,
        "gold": 2,
        "gold_found": 0,
        "information_gain": 0.0,
        "redundancy_penalty": 0.0,
        "own_tokens": None,
        "response": "",
        "observations": None,
    }
    return Rollout(question_id=question_id, policy=policy, sample=sample, **{**defaults, **fields})
