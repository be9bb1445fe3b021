"""How often a question is asked about: at least, and at most."""

from __future__ import annotations

from typing import Any

import pytest

from stepsearch_data.schemas.rows import Question
from stepsearch_data.stages.model.bounds import bounds_of
from stepsearch_data.stages.model.prompts import Prompt
from stepsearch_data.stages.verify import VerifyConfig
from tests.builders import question

PROMPTS = {name: Prompt(name, "text") for name in ("recall", "read", "unique", "same")}


def numbers(asked: Question, **config: Any) -> tuple[int, int]:
    bounds = bounds_of(asked, PROMPTS, VerifyConfig(samples=1, sample_all=0, llm="m", **config))
    return bounds.least.number, bounds.most.number


@pytest.mark.parametrize(
    ("stop", "least"),
    [(["closed_book"], 1), (["answerable"], 2), (["left_one_out"], 4), (["unique"], 5), ([], 5), (["one_search"], 0)],
)
def test_a_question_is_asked_about_until_a_check_that_stops(stop: list[str], least: int) -> None:
    assert numbers(question(), stop=stop)[0] == least


def test_signals_stop_only_where_they_are_checked() -> None:
    named = question(question="Was Pesaro the birthplace of the composer of The Barber of Seville?")
    assert numbers(named, stop=["answer_named"]) == (0, 0)
    assert numbers(named, stop=["answer_named"], signals=False) == numbers(named, stop=[])
    assert numbers(question(), stop=["one_search"], signals=False)[0] == 5
