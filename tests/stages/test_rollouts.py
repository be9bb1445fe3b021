"""Rollouts of policies become rows: scored turn by turn, in the order of the questions, nothing lost silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepsearch_data.core.errors import ConfigError, SourceError, StepSearchError
from stepsearch_data.schemas.rollouts import READ
from stepsearch_data.stages.rollouts import STAGE, RolloutsConfig
from tests.builders import question
from tests.stages.conftest import RunStage, Tables

GOLD_1, GOLD_2 = "The opera was composed by Gioachino Rossini.", "Rossini was born in Pesaro."
QUESTIONS = [question("q1"), question("q2", question="Who?", answer="Ada", answer_aliases=["Lovelace"], position=2)]
Line = dict[str, Any] | bytes


def search(query: str, *texts: str) -> str:
    shown = "\n".join(f"Doc {at}<## Title: T{at} ##> {text}" for at, text in enumerate(texts, start=1))
    return f"<think> hm </think>\n<search> {query} </search>\n<information>\n{shown}\n</information>\n"


def answer(text: str) -> str:
    return f"<think> so </think>\n<answer> {text} </answer>"


def line(text: str, question_id: str = "q1", **fields: Any) -> Line:
    return {"id": question_id, "response": text, **fields}


def write(folder: Path, *lines: Line, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_bytes(
        b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)
    )
    return path


def keep(run_stage: RunStage, *policies: str, **options: Any) -> Tables:
    return run_stage(STAGE, RolloutsConfig(policies=policies), questions=QUESTIONS, **options)


def test_a_rollout_is_scored_turn_by_turn(run_stage: RunStage, tmp_path: Path) -> None:
    text = (
        search("Barber", GOLD_1, "Else.")
        + search("barber?", "Rossini was\nborn in  Pesaro.", GOLD_1)
        + answer("Pesaro")
    )
    path = write(tmp_path, line(text, ended="answer", own_tokens=9))
    found = keep(run_stage, f"mine={path}")
    (rollout,), turns = found["rollouts"], found["rollout_turns"]
    assert (rollout.policy, rollout.sample, rollout.answer, rollout.right, rollout.f1) == ("mine", 1, "Pesaro", True, 1)
    assert (rollout.searches, rollout.gold, rollout.gold_found, rollout.format_ok) == (2, 2, 2, True)
    assert (rollout.ended, rollout.own_tokens, rollout.response, rollout.observations) == ("answer", 9, text, None)
    assert [(turn.turn, turn.query, turn.titles) for turn in turns] == [
        (1, "Barber", ["T1", "T2"]),
        (2, "barber?", ["T1", "T2"]),
    ]
    assert [(turn.gold_passage_ids, turn.new_gold, turn.repeated) for turn in turns] == [
        (["p1"], 1, False),
        (["p1", "p2"], 1, True),
    ]
    assert [turn.redundancy_penalty for turn in turns] == [0, 0.5]
    assert sum(turn.information_gain for turn in turns) == pytest.approx(rollout.information_gain)
    assert rollout.information_gain == pytest.approx(1)
    assert all(turn.step_reward == turn.information_gain - turn.redundancy_penalty for turn in turns)


def test_they_stand_in_the_order_of_questions_policies_and_samples(run_stage: RunStage, tmp_path: Path) -> None:
    """Whatever order a run that was killed has left in its file."""
    scattered = [
        line(answer("Ada"), "q2", sample=2),
        line(answer("x"), "q1", sample=1),
        line(answer("Lovelace"), "q2", sample=1),
    ]
    one = write(tmp_path, *scattered, name="one.jsonl")
    more = write(tmp_path, {"question_id": "q1", "responses": [answer("y"), answer("z")]}, name="more.jsonl")
    other = write(tmp_path, line(answer("w")), name="other.jsonl")
    found = keep(run_stage, f"b={one}", f"a={other}", f"b={more}")["rollouts"]
    assert [(row.question_id, row.policy, row.sample, row.answer) for row in found] == [
        ("q1", "b", 1, "x"),
        ("q1", "b", 2, "y"),
        ("q1", "b", 3, "z"),
        ("q1", "a", 1, "w"),
        ("q2", "b", 1, "Lovelace"),
        ("q2", "b", 2, "Ada"),
    ]
    assert [row.right for row in found[-2:]] == [True, True]


def test_what_the_environment_wrote_is_not_the_policys(run_stage: RunStage, tmp_path: Path) -> None:
    theirs = "<answer> Pesaro </answer>"
    text = f"{theirs} <think> no </think> <answer> Rome </answer>"
    path = write(tmp_path, line(text, observations=[[0, len(theirs)]]))
    (row,) = keep(run_stage, f"a={path}")["rollouts"]
    assert (row.answer, row.right, row.observations) == ("Rome", False, [[0, len(theirs)]])


def test_a_conversation_in_tags_is_kept_as_its_text(run_stage: RunStage, tmp_path: Path) -> None:
    """As `score` reads it: what follows the prompt, in which others than the assistant are the environment."""
    own, tag, shown = search("Barber", GOLD_1, "<answer> no </answer>").partition("<information>")
    environment = tag + shown
    said = [("user", "Who?"), ("assistant", own), ("user", environment), ("assistant", answer("Pesaro"))]
    messages = [{"role": role, "content": text} for role, text in said]
    found = keep(run_stage, f"a={write(tmp_path, {'id': 'q1', 'messages': messages})}")
    (row,), (turn,) = found["rollouts"], found["rollout_turns"]
    assert row.response == own + environment + answer("Pesaro")
    assert row.observations == [[len(own), len(own) + len(environment)]]
    assert (row.answer, row.gold_found, row.searches, turn.query) == ("Pesaro", 1, 1, "Barber")
    alone = [{"role": "assistant", "content": own + environment + answer("Pesaro")}]
    (row,) = keep(run_stage, f"a={write(tmp_path, {'id': 'q1', 'messages': alone})}")["rollouts"]
    assert (row.observations, row.answer, row.gold_found) == (None, "Pesaro", 1)


def test_results_that_a_policy_with_tools_made_up_do_not_count(run_stage: RunStage, tmp_path: Path) -> None:
    messages = [{"role": "assistant", "content": search("Barber", GOLD_1) + answer("Pesaro")}]
    path = write(tmp_path, {"id": "q1", "response": messages, "observations": []})
    found = keep(run_stage, f"a={path}")
    (row,) = found["rollouts"]
    assert (row.searches, row.gold_found, row.information_gain, row.format_ok) == (0, 0, 0, False)
    assert (row.answer, row.observations, found["rollout_turns"]) == ("Pesaro", [], [])


@pytest.mark.parametrize("tokens", [18446744073709551615, True, -5, 2.0, "9"])
def test_tokens_that_are_no_count_are_not_kept(run_stage: RunStage, tmp_path: Path, tokens: Any) -> None:
    (row,) = keep(run_stage, f"a={write(tmp_path, line(answer('x'), own_tokens=tokens))}")["rollouts"]
    assert row.own_tokens is None


NAMES = [*READ, "role", "content", "text", "tool_calls", "tool_call_id", "function", "name", "arguments"]
values = st.recursive(
    st.sampled_from([None, True, 0, -1, 2**64 - 1, 0.5, "", "tool", "assistant", '{"query": "q"}', "[" * 3000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
calls = st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "function", "name", "arguments"), values))
said = st.fixed_dictionaries(
    {"role": st.sampled_from(["assistant", "tool", "user", [], {}])},
    optional={"content": values, "tool_call_id": values, "tool_calls": values | st.lists(calls | values, max_size=3)},
)
odd = st.fixed_dictionaries(
    {"id": st.just("q1"), "response": values | st.lists(said, max_size=4)},
    optional=dict.fromkeys(("sample", "observations", "ended", "error", "own_tokens", "target"), values),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(odd, max_size=10))
def test_any_line_is_kept_or_rejected(run_stage: RunStage, tmp_path: Path, lines: list[Any]) -> None:
    found = keep(run_stage, f"a={write(tmp_path, *lines)}")
    kept = {row.sample for row in found["rollouts"]}
    assert len(kept) == len(found["rollouts"])
    assert len(kept) + len(found["rejects"]) >= len(lines)
    assert all(row.reason for row in found["rejects"])


def test_a_conversation_that_calls_tools_is_kept_as_a_text_with_tags(run_stage: RunStage, tmp_path: Path) -> None:
    """With the same numbers; what was opened is no search."""
    calls = [("search", {"query": "Barber"}), ("open", {"id": "d1"}), ("search", {"query": "Rossini"})]
    shown = [f"[1] Barber (id d1)\n{GOLD_1}\n[2] Else (id d2)\nElse.", "Barber (id d1)\n<search> x", f"[1] R\n{GOLD_2}"]
    messages: list[dict[str, Any]] = []
    for (name, arguments), text in zip(calls, shown, strict=True):
        function = {"name": name, "arguments": json.dumps(arguments)}
        messages.append({"role": "assistant", "content": "hm", "tool_calls": [{"id": "1", "function": function}]})
        messages.append({"role": "tool", "tool_call_id": "1", "content": text})
    messages.append({"role": "assistant", "content": "So.\n<answer> Pesaro </answer>"})
    tagged = search("Barber", GOLD_1, "Else.") + search("Rossini", GOLD_2) + answer("Pesaro")
    path = write(tmp_path, {"id": "q1", "response": messages, "observations": None}, line(tagged))
    found = keep(run_stage, f"a={path}")
    called, written = found["rollouts"]
    own = {"response": "", "observations": None, "sample": 1}
    assert called.model_copy(update=own) == written.model_copy(update=own)
    assert called.response.startswith(
        "<think> hm </think>\n<search> Barber </search>\n<information> Doc 1<## Title: Barber"
    )
    assert 'open({"id": "d1"})\nBarber (id d1)\nsearch x\n' in called.response
    assert called.response.endswith("<think> So. </think>\n<answer> Pesaro </answer>")
    assert len(called.observations or ()) == 3
    turns = [turn.model_copy(update={"sample": 1, "titles": []}) for turn in found["rollout_turns"]]
    assert turns[:2] == turns[2:]


def test_an_unanswerable_question_has_the_answer_that_its_line_says(run_stage: RunStage, tmp_path: Path) -> None:
    path = write(tmp_path, line(answer("it cannot be known"), target=["It cannot be known."]))
    rows = run_stage(STAGE, RolloutsConfig(policies=(f"a={path}",)), questions=[question("q1", answerable=False)])
    assert rows["rollouts"][0].right


def test_a_line_that_is_no_rollout_of_a_question_is_rejected(run_stage: RunStage, tmp_path: Path) -> None:
    lines: list[Line] = [
        b"{",
        b"[]",
        {"response": "x"},
        line("x", "q9"),
        line("x", question="Another?"),
        {"id": "q1"},
        line("", ended="refused", error="content policy"),
        b"",
        line(answer("Pesaro"), question=QUESTIONS[0].question),
    ]
    found = keep(run_stage, f"a={write(tmp_path, *lines)}")
    assert [row.answer for row in found["rollouts"]] == ["Pesaro"]
    reasons = {row.position: row.reason.partition(":")[0] for row in found["rejects"]}
    assert reasons == {
        1: "no JSON",
        2: "a rollout is a JSON object",
        3: "it has no question_id or id",
        4: "the store has no question q9",
        5: "the store's question of this id is another one",
        6: "responses",
        7: "the server refused it",
    }
    with pytest.raises(StepSearchError, match="6 of 7 rows of a were rejected"):
        keep(run_stage, f"a={write(tmp_path, *lines)}", max_reject_share=0.2)


def test_the_folder_of_an_evaluation_is_its_file(run_stage: RunStage, tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    write(tmp_path / "evals", line(answer("Pesaro")), name="rollouts.jsonl")
    config = RolloutsConfig(policies=(f"a={tmp_path / 'evals'}",))
    assert config.digests() == {"policies 1": f"a {config.digests()['policies 1'][2:]}"}
    assert len(run_stage(STAGE, config, questions=QUESTIONS)["rollouts"]) == 1


def test_a_policy_has_a_name_and_a_file() -> None:
    with pytest.raises(ValueError, match="expected NAME=PATH"):
        RolloutsConfig(policies=("evals/qwen",))
    with pytest.raises(SourceError, match="cannot read none"):
        RolloutsConfig(policies=("a=none",)).digests()


def test_a_policy_has_a_file_once(tmp_path: Path) -> None:
    """The folder of an evaluation is its file."""
    path = write(tmp_path, line(answer("Pesaro")), name="rollouts.jsonl")
    with pytest.raises(ConfigError, match=r"a has .*rollouts\.jsonl twice"):
        RolloutsConfig(policies=(f"a={path}", f"a={tmp_path}")).digests()
    assert len(RolloutsConfig(policies=(f"a={path}", f"b={path}")).digests()) == 2
