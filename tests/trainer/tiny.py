"""A world of four facts, an engine that knows them, and the configuration of a run in one process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stepsearch_data.pipeline.config import RunConfig, load_config
from stepsearch_data.stages import STAGES
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


def load(first: Iterable[str]) -> RunConfig:
    return load_config(STAGES, None, [*first, "run.workers=1"], {})
