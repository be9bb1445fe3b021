"""What a round shows: the documents that its query really returned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from stepsearch_data.core.text import facts, mentions
from stepsearch_data.schemas.rows import Hit, Question, RetrievedDocument, Round, Vote
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.passages import Passages

TEMPLATE = "musique"
"""The template of a store's rollouts. A change of its text needs a new version of `trajectories` and `pairs`."""


def example(
    question: Question, hops: int, rounds: Iterable[Round], passages: Passages, answers: Sequence[str] = ("",)
) -> Example:
    """Make the example that templates write as text. `hops` is how many the question needs."""
    return Example(
        index=0,
        split="",
        question_id=question.question_id,
        source=question.source,
        question=question.question,
        answers=tuple(answers),
        hops=hops,
        steps=tuple(map(passages.step, rounds)),
    )


def says(passages: Passages, found: Iterable[RetrievedDocument], answers: Iterable[str]) -> bool:
    """Tell whether a document holds one of the answers. `A; B` are two answers, as a hop joins them."""
    texts = [f"{shown.title} {shown.text}" for shown in map(passages.shown, found)]
    parts = {part for answer in answers for part in facts(answer)}
    return any(mentions(text, part) for text in texts for part in parts)


def merit(vote: Vote) -> tuple[bool, int, int]:
    """Return a sort key, best query first: kept, valid on most engines, gold ranked highest; ties keep their order."""
    return not vote.kept, -vote.valid_engines, vote.gold_rank or 1_000_000


def shows_gold(shown: Sequence[RetrievedDocument]) -> bool:
    """Tell whether a gold passage is among the documents."""
    return any(document.is_gold for document in shown)


def documents(
    passages: Passages, limit: int, hits: Sequence[Hit], fits: Callable[[RetrievedDocument], bool] = lambda _: True
) -> list[RetrievedDocument]:
    """Return the first `limit` documents of the first engine that has a gold passage among them, else of the first.

    Documents that do not fit are left out, and the others move up.
    """
    by_engine: dict[str, list[RetrievedDocument]] = {}
    left_out: Counter[str] = Counter()
    for hit in hits:
        answer = by_engine.setdefault(hit.engine, [])
        if hit.rank is None or hit.score is None or hit.rank - left_out[hit.engine] > limit:
            continue
        found = RetrievedDocument(
            rank=hit.rank - left_out[hit.engine],
            passage_id=hit.passage_id,
            title=passages[hit.passage_id].title if hit.passage_id else hit.title or "",
            text=hit.text,
            score=hit.score,
            engine=hit.engine,
            is_gold=hit.is_gold,
        )
        if fits(found):
            answer.append(found)
        else:
            left_out[hit.engine] += 1
    answers = list(by_engine.values())
    return next((answer for answer in answers if shows_gold(answer)), answers[0] if answers else [])
