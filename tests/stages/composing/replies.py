"""A chain of two passages and two passages to compare, with the reply of a good writer for each."""

from __future__ import annotations

from typing import Any

from stepsearch_data.search.documents import Document
from stepsearch_data.stages.composing.drafts import Draft, draft_of
from tests.builders import chain

OPERA = Document("p1", "Seville (1816 opera)", "It has two acts. Seville was composed by Gioachino Rossini in Rome.")
COMPOSER = Document("p2", "Gioachino Rossini", "Rossini, or Ross, was born in Pesaro. He died in 1868.")
OTHER = Document("p3", "Gaetano Donizetti", "Donizetti was born in Bergamo. He died in 1848.")


def bridge(*passages: Document) -> Draft:
    return draft_of(chain("p1", "p2"), 1, passages or (OPERA, COMPOSER))


def comparison() -> Draft:
    return draft_of(chain("p2", "p3", kind="comparison", mentions=["person", "died"]), 1, (COMPOSER, OTHER))


def hop(question: str, answer: str, paragraph: int, sentence: int, **fields: Any) -> dict[str, Any]:
    given = {"question": question, "answer": answer, "paragraph": paragraph, "sentence": sentence}
    return {**given, "aliases": [], "relation": "fact", "one_valued": True, **fields}


def composition(**fields: Any) -> dict[str, Any]:
    """A good question over the chain."""
    good = {
        "skip": "",
        "hops": [
            hop("Who composed Seville, the 1816 opera?", "Gioachino Rossini", 1, 2),
            hop("In which town was #1 born?", "Pesaro", 2, 1),
        ],
        "question": "In which town was the composer of the 1816 opera Seville born?",
        "answer": "Pesaro",
        "answer_type": "place",
    }
    return {**good, **fields}


def compared(**fields: Any) -> dict[str, Any]:
    """A good question over the pair."""
    good = {
        "skip": "",
        "hops": [
            hop("When did Gioachino Rossini die?", "1868", 1, 2),
            hop("When did Gaetano Donizetti die?", "1848", 2, 2),
        ],
        "question": "Who died first, Gioachino Rossini or Gaetano Donizetti?",
        "answer": "Gaetano Donizetti",
        "answer_type": "person",
    }
    return {**good, **fields}


def with_hop(number: int, of: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A reply, with some fields of a hop (from 1) replaced."""
    hops = [dict(each) for each in of["hops"]]
    hops[number - 1] |= fields
    return {**of, "hops": hops}
