"""A world of four facts, and an engine that knows them."""

from __future__ import annotations

from collections.abc import Sequence

from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.search_env import Task

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Greece": "Athens"}
PARAGRAPHS = [Paragraph(country, f"The capital of {country} is {city}") for country, city in CAPITALS.items()]
TASKS = [
    Task(country, f"capital of {country} ?", f"capital of {country} ?\n", (city,), [[f"capital {country}"]], (gold,))
    for (country, city), gold in zip(CAPITALS.items(), PARAGRAPHS, strict=True)
]


def retrieve(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
    """The paragraphs that share the most words with each query."""

    def shared(query: str, paragraph: Paragraph) -> int:
        return len(set(query.split()) & set(paragraph.text.split()))

    return [sorted(PARAGRAPHS, key=lambda paragraph: -shared(query, paragraph))[:k] for query in queries]
