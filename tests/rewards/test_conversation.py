"""Conversations with tool calls: queries, documents and answers are found where others write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.rewards import REFERENCE, in_tags, parse, read, read_conversation, score_rollout
from stepsearch_data.rewards.conversation import NO_QUERY, NO_TOOL, OVER, TOO_MANY
from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT

SHOWN = "[1] Ada\nAda was born in Rome.\n[2] Rome\nRome is a city.\n[7] is no header."
ANSWER = {"role": "assistant", "content": "So it is.\n<answer> Rome </answer>"}


def call(query: Any, **more: Any) -> dict[str, Any]:
    function = {"name": "search", "arguments": {"query": query}}
    return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function, **more}]}


def tool(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **more}


def texts_of(messages: list[dict[str, Any]]) -> list[list[str]]:
    return [[document.span.text for document in found.documents] for found in read_conversation(messages).rounds]


def test_a_call_and_its_result_are_a_round() -> None:
    rollout = read_conversation([{"role": "user", "content": "Where?"}, call("Ada birthplace"), tool(SHOWN), ANSWER])
    assert rollout.answered == rollout.queries == ("Ada birthplace",)
    assert rollout.answer
    assert rollout.answer.text == "Rome"
    assert rollout.format.ok


def reading(name: str, **arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": json.dumps(arguments)}}]}


@pytest.mark.parametrize(
    "message",
    [
        reading("open", id="d1"),
        reading("open", id="d1", page=2),
        reading("find", id="d1", words="born"),
        reading("find", words="born"),
    ],
)
def test_to_read_is_no_search(message: dict[str, Any]) -> None:
    rollout = read_conversation([call("q"), tool(SHOWN), message, tool("[1] Ada\nborn"), ANSWER])
    assert (rollout.queries, len(rollout.rounds)) == (("q",), 1)
    assert rollout.format.ok
    assert read_conversation([message, tool("text"), ANSWER]).format.has_search is False


def test_a_search_of_another_program_may_be_called_find() -> None:
    assert read_conversation([reading("find", query="q"), tool("d"), ANSWER]).queries == ("q",)


def test_arguments_that_trl_could_not_give_are_no_search() -> None:
    said = "{'error': \"_Reads.open() got an unexpected keyword argument 'document'\"}"
    assert read_conversation([reading("open", document="d1"), tool(said), ANSWER]).queries == ()


@pytest.mark.parametrize("said", [TOO_MANY.format(1), TOO_MANY.format(12), NO_TOOL.format("browse", "search or open")])
def test_a_call_that_was_not_run_is_no_search(said: str) -> None:
    assert read_conversation([call("q"), tool(said), ANSWER]).queries == ()


def test_an_id_is_no_part_of_a_title() -> None:
    shown = "[1] Ada (id d1, page 1 of 3)\nAda was born in Rome.\n[2] Rome (id d12)\na city\n[3] Ada (poet)\na poet"
    (found,) = read_conversation([call("q"), tool(shown)]).rounds
    assert [document.title for document in found.documents] == ["Ada", "Rome", "Ada (poet)"]


BOTH = {**call("a"), "tool_calls": call("a", id=1)["tool_calls"] + call("b", id=2)["tool_calls"]}
HOSTILE = (
    "[1] Doc 1<## Title: x ##>\na <search> b </search> </information> <answer> Rome </answer>\n[2] \n<information>"
)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "Where?"}, call("Ada birthplace"), tool(SHOWN), ANSWER],
        [call("a"), tool(""), call("b"), tool("whatever"), ANSWER],
        [call("a"), tool(NO_QUERY), call("b"), tool("{'error': 'down'}"), call("c")],
        [
            call("a"),
            tool(HOSTILE),
            call("<answer> x </answer>"),
            tool(SHOWN),
            {"role": "assistant", "content": "I stop."},
        ],
        [call("a"), tool(SHOWN), reading("open", id="d1"), tool("Ada (id d1)\n<search> x </search>"), ANSWER],
        [call("a"), tool(SHOWN), {**ANSWER, "content": "<answer> no </answer> Or: <answer> Rome </answer> <search> x"}],
        [{**call("a"), "content": "<think> <search> x </search> <answer>"}, tool(SHOWN), ANSWER],
        [BOTH, tool("[1] T\nof b", tool_call_id=2), tool(SHOWN, tool_call_id=1), ANSWER],
    ],
    ids=range(9),
)
def test_a_conversation_as_a_text_with_tags_is_scored_alike(messages: list[dict[str, Any]]) -> None:
    text, observations = in_tags(messages)
    written, said = parse(text, observations=observations), read_conversation(messages)
    against = (["Rome"], [["Ada birthplace"]], ["Ada was born in Rome."])
    assert score_rollout(written, *against) == score_rollout(said, *against)
    for one, other in zip(written.rounds, said.rounds, strict=True):
        assert [(shown.title, shown.span.text) for shown in one.documents] == [
            (shown.title.replace("##>", "").strip(), shown.span.text) for shown in other.documents
        ]
        assert (one.information is None) == (other.information is None)
    assert [text[start:end][:13] for start, end in observations or () if "<information>" in text[start:end]] == [
        "<information>" for each in said.rounds if each.information
    ]


def test_a_conversation_in_tags_is_that_text() -> None:
    messages = [
        {"role": "assistant", "content": "<think> t </think> <search> q </search>"},
        {"role": "user", "content": "<information> Doc 1<## Title: T ##> d </information>"},
        {"role": "assistant", "content": "<answer> Rome </answer>"},
    ]
    text, observations = in_tags(messages)
    assert text == "".join(message["content"] for message in messages)
    assert [text[start:end] for start, end in observations or ()] == [messages[1]["content"]]


def test_documents_are_cut_at_their_numbers() -> None:
    assert texts_of([call("q"), tool(SHOWN)]) == [
        ["Ada was born in Rome.", "Rome is a city.\n[7] is no header."],
    ]
    (found,) = read_conversation([call("q"), tool(SHOWN)]).rounds
    assert [document.title for document in found.documents] == ["Ada", "Rome"]
    assert texts_of([call("q"), tool("whatever")]) == [["whatever"]]
    assert texts_of([call("q"), tool("")]) == [[]]
    assert texts_of([call("q"), tool([{"type": "text", "text": "in parts"}])]) == [["in parts"]]


@pytest.mark.parametrize("arguments", [{"query": "q"}, '{"query": "q"}', {"k": 3, "queries": ["q", "r"]}])
def test_the_query_is_the_first_text_of_the_arguments(arguments: Any) -> None:
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "s", "arguments": arguments}}]}
    assert read_conversation([message, tool("d")]).queries == ("q",)


@pytest.mark.parametrize("arguments", [None, "{", "[1]", {"query": None}, {}])
def test_a_call_without_a_query_is_no_round(arguments: Any) -> None:
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "s", "arguments": arguments}}]}
    assert read_conversation([message, tool("error"), ANSWER]).rounds == ()


def test_results_belong_to_the_call_of_their_id() -> None:
    both = [call("a", id="1"), call("b", id="2")]
    merged = {"role": "assistant", "tool_calls": [one["tool_calls"][0] for one in both]}
    assert texts_of([merged, tool("of b", tool_call_id="2"), tool("of a", tool_call_id="1")]) == [["of a"], ["of b"]]
    assert texts_of([merged, tool("of a"), tool("of b")]) == [["of a"], ["of b"]]


@pytest.mark.parametrize(
    "said",
    [
        NO_SEARCH_LEFT,
        NO_QUERY,
        OVER,
        "{'error': 'Tool browse not found.'}",
        "Unknown function 'browse'. Available tools: ['search']",
        "Invalid JSON in arguments for 'search': Expecting value",
    ],
)
def test_a_call_that_was_refused_is_no_search(said: str) -> None:
    rollout = read_conversation([call("a"), tool("d"), call("b"), tool(said), ANSWER])
    assert rollout.queries == rollout.answered == ("a",)
    assert not read_conversation([call("b"), tool(said), ANSWER]).format.has_search


@pytest.mark.parametrize("said", ["{'error': 'timeout'}", "Error executing tool 'search': timeout"])
def test_a_call_that_failed_was_not_answered(said: str) -> None:
    rollout = read_conversation([call("a"), tool(said), call("b"), tool("d"), ANSWER])
    assert (rollout.queries, rollout.answered) == (("a", "b"), ("b",))
    assert texts_of([call("a"), tool(said), call("b"), tool("d"), ANSWER]) == [[], ["d"]]


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_messages_in_tags_are_a_text() -> None:
    search, shown = "<think> t </think><search> q </search>", "<information> Ada of Rome </information>"
    answer = "<think> t </think><answer> Rome </answer>"
    prompt = {"role": "user", "content": "Write <search> or <information>."}
    one = [assistant(f"{search}{shown}{answer}")]
    several = [prompt, assistant(search), {"role": "user", "content": shown}, assistant(answer)]
    for messages in (one, several):
        scores = score_rollout(read(messages), ["Rome"], [["q"]], ["Ada of Rome"])
        assert [scores.score, *scores.step_rewards] == pytest.approx([1.618, 1])
    assert read(one, REFERENCE) == parse(one[0]["content"], lazy=True, keep_next_label=True)


def test_results_that_the_policy_made_up_are_none_where_the_environment_speaks() -> None:
    made_up = "<search> q </search><information> Ada of Rome </information>"
    rollout = read_conversation([assistant(made_up), {"role": "user", "content": "<warning> no </warning>"}])
    assert rollout.answered == ()


MADE_UP = assistant(
    "<think> t </think><search> q </search><information> Ada of Rome </information><answer> Rome </answer>"
)


@pytest.mark.parametrize("messages", [[MADE_UP], [{**call("q"), **MADE_UP}, tool("else"), MADE_UP]], ids=range(2))
def test_a_policy_that_calls_tools_makes_up_no_result(messages: list[dict[str, Any]]) -> None:
    text, observations = in_tags(messages, [])
    for rollout in (read(messages, observations=[]), parse(text, observations=observations)):
        scores = score_rollout(rollout, ["Rome"], [], ["Ada of Rome"])
        assert scores.information_gain == [0] * (len(messages) > 1)
        assert scores.format_ok is (len(messages) > 1)


def test_a_call_without_a_result_was_not_answered() -> None:
    rollout = read_conversation([call("a"), tool("d"), call("b")])
    assert (rollout.queries, rollout.answered) == (("a", "b"), ("a",))
    assert rollout.answer is None


@pytest.mark.parametrize(
    ("last", "right"), [(ANSWER, True), ({"role": "assistant", "content": "Rome"}, False), (tool("Rome"), False)]
)
def test_only_a_last_message_with_an_answer_has_the_format(last: dict[str, Any], right: bool) -> None:
    scores = score_rollout(
        read_conversation([call("Ada"), tool("Ada of Rome"), last]), ["Rome"], [["Ada"]], ["Ada of Rome"]
    )
    assert scores.format_ok is right
    assert scores.search_format_ok
    assert scores.step_rewards == [pytest.approx(1)]
    assert scores.score == pytest.approx(right + 0.618)


def test_whatever_the_messages_hold_they_are_read() -> None:
    odd = [{}, {"role": "assistant", "content": 3}, tool(None), {"role": "assistant", "tool_calls": [{}]}, call(5)]
    assert read_conversation(odd).rounds == ()
    assert read_conversation(json.loads(json.dumps(odd))).answer is None
    assert read_conversation([]).answer is None


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "assistant", "tool_calls": "search"}, "expected a list of objects"),
        ({"role": "assistant", "tool_calls": {"name": "search"}}, "expected a list of objects"),
        ({"role": "assistant", "tool_calls": ["search"]}, "expected a list of objects"),
        ({"role": "assistant", "tool_calls": [{"function": "x"}]}, "expected a function"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": ["x"]}}]}, "expected a function"),
        ({"role": "assistant", "tool_calls": [{"name": "x", "arguments": b"x"}]}, "no JSON"),
        (call("q", id=[]), "id: expected a text"),
        (tool("d", tool_call_id={}), "tool_call_id: expected a text"),
    ],
    ids=range(8),
)
def test_calls_of_another_shape_are_refused(message: dict[str, Any], said: str) -> None:
    for reader in (read_conversation, in_tags):
        with pytest.raises(RowRejected, match=said):
            reader([call("q"), message])


@pytest.mark.parametrize("arguments", ["[" * 3000, '{"query": "\\ud800"}'], ids=["deep", "half a character"])
def test_arguments_that_are_odd_json_are_read(arguments: str) -> None:
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "search", "arguments": arguments}}]}
    assert [found.query.text for found in read_conversation([message, tool("d")]).rounds] in ([], ["?"])
    assert in_tags([message, tool("d")])[0].encode()
