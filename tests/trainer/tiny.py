"""A world of a few words and a model of a few thousand weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from stepsearch_data.exports.examples import Paragraph  # noqa: E402 - torch must be there
from stepsearch_data.exports.template import Template  # noqa: E402
from stepsearch_data.exports.template_file import load_template  # noqa: E402
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer  # noqa: E402
from stepsearch_data.trainer.episode import Limits, Referee, Task  # noqa: E402
from stepsearch_data.trainer.sampler import end_tokens  # noqa: E402

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


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def template() -> Template:
    return load_template("musique")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    said = "<think> <search> </search> <answer> </answer> </think> <information> </information> <warning> </warning>"
    return make_tokenizer([said, *(f" {task.prompt} {task.golds[0].text}" for task in TASKS)] * 2)


@pytest.fixture
def policy(tokenizer: Any) -> Any:
    return make_model(tokenizer, width=16, layers=2, seed=1)


@pytest.fixture
def referee(tokenizer: Any, policy: Any, template: Template) -> Referee:
    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return found

    limits = Limits(turns=3, documents=2, total=300, turn=12, observation=60)
    return Referee(template, limits, encode, tokenizer.decode, end_tokens(policy, tokenizer))
