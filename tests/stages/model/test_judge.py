from __future__ import annotations

import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.stages.model import judge, load_prompt
from tests.builders import question, sub_question
from tests.stages.model.scripted import SETTINGS, ScriptedModel, wait

PROMPT = load_prompt("judge")
HOPS = [sub_question(1), sub_question(2, template="Where was #1 born?", sub_answer="Pesaro")]


def test_the_steps_get_a_score_and_its_reason() -> None:
    model = ScriptedModel({"reason": "Each step is needed.", "score": 5})
    assert wait(judge(model, PROMPT, question(), HOPS, SETTINGS)) == (5, "Each step is needed.")
    steps = "1. Who composed The Barber of Seville? → Gioachino Rossini\n2. Where was #1 born? → Pesaro"
    assert steps in model.requests[0].messages[1].content


def test_a_score_off_the_scale_or_without_a_reason_is_sent_back() -> None:
    model = ScriptedModel({"reason": "", "score": 6}, {"reason": "Fine.", "score": 0}, {"reason": "Fine.", "score": 4})
    assert wait(judge(model, PROMPT, question(), HOPS, SETTINGS)) == (4, "Fine.")
    assert "- the score must be 1 to 5, not 6\n- the reason is empty" in model.requests[1].messages[-1].content
    assert "- the score must be 1 to 5, not 0" in model.last_complaint


def test_no_score_rejects_the_row() -> None:
    with pytest.raises(RowRejected, match="no JSON object"):
        wait(judge(ScriptedModel("Nice!", "Nice!", "Nice!"), PROMPT, question(), HOPS, SETTINGS))
