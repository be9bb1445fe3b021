"""The documents that a round shows: what its query really returned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from stepsearch_data.core.text import facts, mentions
from stepsearch_data.schemas.rows import Document, Hit, Vote


class Passages:
    """Titles and texts by passage id, kept in Arrow's compact form."""

    def __init__(self, path: Path) -> None:
        self._table = pq.read_table(path, columns=["title", "text"]).combine_chunks()
        ids = pq.read_table(path, columns=["passage_id"])["passage_id"]
        self._places = {passage_id: place for place, passage_id in enumerate(ids.to_pylist())}

    def title(self, passage_id: str) -> str:
        """Title of a passage."""
        return str(self._table["title"][self._places[passage_id]])

    def shown(self, document: Document) -> str:
        """Text of a document: its own where it is from elsewhere, else the passage's."""
        if document.passage_id is None:
            return document.text or ""
        return str(self._table["text"][self._places[document.passage_id]])

    def says(self, found: Sequence[Document], answers: Iterable[str]) -> bool:
        """Whether one of the documents holds one of the answers; `A; B` are two, as a hop joins them."""
        texts = [f"{document.title} {self.shown(document)}" for document in found]
        parts = {part for answer in answers for part in facts(answer)}
        return any(mentions(text, part) for text in texts for part in parts)


def merit(vote: Vote) -> tuple[bool, int, int]:
    """Sorts the best query first: kept, on the most engines, gold ranked highest; ties keep the order of writing."""
    return not vote.kept, -vote.valid_engines, vote.gold_rank or 1_000_000


def shows_gold(shown: Sequence[Document]) -> bool:
    """Whether a gold passage is among the documents."""
    return any(document.is_gold for document in shown)


def documents(
    passages: Passages, shown: int, hits: Sequence[Hit], fits: Callable[[Document], bool] = lambda _: True
) -> list[Document]:
    """The answer of the first engine on which a gold passage is shown, else of the first; `shown` are its documents.

    Documents that do not fit are left out, and the others move up.
    """
    by_engine: dict[str, list[Document]] = {}
    left_out: Counter[str] = Counter()
    for hit in hits:
        answer = by_engine.setdefault(hit.engine, [])
        if hit.rank is None or hit.score is None or hit.rank - left_out[hit.engine] > shown:
            continue
        found = Document(
            rank=hit.rank - left_out[hit.engine],
            passage_id=hit.passage_id,
            title=passages.title(hit.passage_id) if hit.passage_id else hit.title or "",
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
