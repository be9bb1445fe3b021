from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest

from stepsearch_data.core.errors import ConfigError, ProviderError, RowRejected
from stepsearch_data.llm.chat import CallMessage, Message, Reply, Request, ToolRequest, TurnRequest, Usage
from stepsearch_data.llm.endpoint import Endpoint
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.remote.http import TransientError
from tests.fake import FakeServer, Fault, reach
from tests.llm_server import Answer, LlmServer, completion, error

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
REQUEST = Request("mock", (Message("system", "Be brief."), Message("user", "Hi")), SCHEMA)
KEY = "sk-made-up-123456789abc"
OK = '{"ok": true}'
pytestmark = pytest.mark.anyio


def open_endpoint(server: FakeServer | str, timeout: float = 5.0) -> AbstractAsyncContextManager[Endpoint]:
    url, transport = reach(server)
    return aclosing(Endpoint(LlmSettings(base_url=url, timeout=timeout), connections=8, transport=transport))


def ask(server: FakeServer | str, *requests: Request, key: str = "", timeout: float = 5.0) -> list[Reply]:
    """The replies to some requests, one after the other, over one endpoint."""

    async def go() -> list[Reply]:
        async with open_endpoint(server, timeout) as endpoint:
            return [await endpoint.send(request) for request in requests]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", key)
        return asyncio.run(go())


def outcome(answer: Answer | str | Fault | dict[str, Any], timeout: float = 5.0, key: str = "") -> Reply | Exception:
    """What becomes of one call that is answered so."""
    with LlmServer(answer if callable(answer) else lambda _: answer).serving(answer) as server:
        try:
            return ask(server, REQUEST, key=key, timeout=timeout)[0]
        except (RowRejected, ProviderError, TransientError) as fault:
            return fault


def test_a_usual_reply() -> None:
    server = LlmServer(lambda _: OK, delay=0.05)
    (reply,) = ask(server, REQUEST, key=KEY)
    assert (reply.text, reply.finish_reason, reply.usage) == (OK, "stop", Usage(100, 20))
    assert (reply.attempts, reply.cached) == (1, False)
    assert 0.05 <= reply.latency < 1
    assert server.requests == [
        {
            "model": "mock",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "max_tokens": 1024,
            "temperature": 0.0,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
            },
        }
    ]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent_and_a_sample_is_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = LlmServer(lambda _: "text")
    server.url += "/"
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-0123456789")  # it is for OpenAI's own server
    ask(server, Request("mock", (Message("user", "Hi"),), temperature=0.5, max_tokens=7, sample=2))
    assert "Authorization" not in server.headers[0]
    assert "sk-admin-0123456789" not in str(server.headers)
    assert server.requests[0] == {
        "model": "mock",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "seed": 2,
    }


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (error(401, "who are you"), ProviderError, r"refuses the key \(401\): who are you"),
        (error(402, "Insufficient balance"), ProviderError, "out of credit: Insufficient balance"),
        (error(403, "not you"), ProviderError, r"refuses the key \(403\)"),
        (error(404, "no model x"), ProviderError, r"no such model or path \(404\): no model x"),
        (error(429, "check your plan and billing details"), ProviderError, "out of credit"),
        (error(400, "a word of yours"), RowRejected, r"refuses the request \(400\): a word of yours"),
        (error(400, "your text says billing"), RowRejected, "says billing"),
        (error(413, "too large"), RowRejected, "413"),
        (error(422, "what"), RowRejected, "422"),
        (Fault(body=b'"' + b"x" * 10_000_000), RowRejected, "larger than 8 MiB"),
        *((error(status, "later"), TransientError, f"^{status}: later$") for status in (408, 409, 429, 500, 502, 503)),
        *((error(status, "later"), TransientError, f"^{status}: later$") for status in (504, 520, 521, 523, 530)),
        (error(501, "later"), RowRejected, "501"),
        (error(400, "later", **{"x-should-retry": "true"}), TransientError, "400"),
        (error(503, "later", **{"x-should-retry": "false"}), RowRejected, "503"),
        (error(503, "later", **{"x-should-retry": "perhaps"}), TransientError, "503"),
        (Fault(500, b'"' + b"long " * 1000 + b'"'), TransientError, "^.{250,350}$"),
        (Fault(500, b"<html>\n<b>oops</b>\xff</html>"), TransientError, "500: <html> <b>oops</b>\ufffd</html>"),
        (Fault(503, b""), TransientError, "503"),
        (Fault(500, b'{"error": "plain"}'), TransientError, "500: plain"),
        (Fault(500, b'["odd"]'), TransientError, "odd"),
        (Fault(body=b"<html>hello</html>"), TransientError, "not JSON"),
        (Fault(body=b'{"choices": [{"message": {"con'), TransientError, "not JSON"),
        (Fault(body=b""), TransientError, "not JSON"),
        (Fault(body=b"[1]"), TransientError, "not a JSON object"),
        (Fault(body=b"{}"), TransientError, "no choice"),
        ({"choices": []}, TransientError, "no choice"),
        ({"choices": None}, TransientError, "no choice"),
        ({"choices": {"0": 1}}, TransientError, "no choice"),
        ({"choices": ["text"]}, TransientError, "no choice"),
        (Fault(cut=True), TransientError, "ClientPayloadError|ServerDisconnected|ClientConnection"),
        (Fault(drip=True), TransientError, "did not answer in time"),
    ],
)
def test_what_a_failure_means(answer: Fault | dict[str, Any], kind: type[Exception], words: str) -> None:
    fault = outcome(answer, timeout=0.3 if answer == Fault(drip=True) else 5.0)
    assert type(fault) is kind
    with pytest.raises(kind, match=words):
        raise fault


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://127.0.0.1/v1", "http://[bad/v1", "/v1", "http://h:99999"]
)
def test_what_is_no_url_is_not_tried_again(url: str) -> None:
    with pytest.raises(ProviderError, match="is not a URL") as fault:
        ask(url, REQUEST)
    assert "OPENAI_BASE_URL" in fault.value.hint


@pytest.mark.parametrize(
    ("reply", "text", "finish_reason", "usage"),
    [
        (completion("cut o", "length"), "cut o", "length", Usage(100, 20)),
        (completion("", "content_filter"), "", "content_filter", Usage(100, 20)),
        (completion("", refusal="I cannot."), "I cannot.", "refusal", Usage(100, 20)),
        ({"choices": [{"message": {"content": None}, "finish_reason": None}]}, "", "stop", Usage()),
        ({"choices": [{"message": "text"}], "usage": [1]}, "", "stop", Usage()),
        ({"choices": [{}], "usage": {"prompt_tokens": "7", "completion_tokens": None}}, "", "stop", Usage()),
    ],
)
def test_replies_of_other_shapes(reply: dict[str, Any], text: str, finish_reason: str, usage: Usage) -> None:
    got = outcome(reply)
    assert isinstance(got, Reply), got
    assert (got.text, got.finish_reason, got.usage) == (text, finish_reason, usage)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("headers", "seconds"), [({}, None), ({"Retry-After": "2"}, 2.0)])
def test_how_long_to_wait(status: int, headers: dict[str, str], seconds: float | None) -> None:
    fault = outcome(error(status, "later", **headers))
    assert isinstance(fault, TransientError)
    assert (fault.retry_after, fault.throttled) == (seconds, status == 429)


def refusing(*refused: str) -> Answer:
    """A server that refuses these response formats, `max_tokens` or `temperature`."""

    def answer(request: dict[str, Any]) -> str | Fault:
        format_ = request.get("response_format", {}).get("type", "text")
        if format_ in refused:
            return error(400, f"Invalid parameter: 'response_format' of type '{format_}' is not supported")
        if "max_tokens" in refused and "max_tokens" in request:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in refused and "temperature" in request:
            return error(400, "Unsupported value: 'temperature' does not support 0 with this model.")
        return OK

    return answer


@pytest.mark.parametrize("refused", [["json_schema"], ["json_schema", "json_object"]])
def test_each_response_format_is_refused_once(refused: list[str]) -> None:
    server = LlmServer(refusing(*refused))
    assert [reply.text for reply in ask(server, REQUEST, REQUEST, REQUEST)] == [OK] * 3
    left = None if "json_object" in refused else {"type": "json_object"}
    sent = [request.get("response_format") for request in server.requests]
    assert [format_["type"] for format_ in sent[: len(refused)] if format_] == refused
    assert sent[len(refused) :] == [left] * 3


def test_all_that_newer_models_refuse_is_left_out_from_then_on() -> None:
    server = LlmServer(refusing("max_tokens", "temperature"))
    ask(server, REQUEST, REQUEST)
    assert len(server.requests) == 4
    assert [r["max_completion_tokens"] for r in server.requests[1:]] == [1024] * 3
    for request in server.requests[2:]:
        assert not {"max_tokens", "temperature"} & request.keys()


def test_a_raw_turn_continues_a_text() -> None:
    choice, usage = {"text": " went on", "finish_reason": "length"}, {"prompt_tokens": 3, "completion_tokens": 2}
    server = FakeServer(lambda _: {"choices": [choice], "usage": usage}, "/v1")
    (reply,) = ask(server, TurnRequest("mock", (Message("user", "It"),), stop=("</search>",), raw=True))
    assert (reply.text, reply.finish_reason, reply.usage) == (" went on", "length", Usage(3, 2))
    sent = {"model": "mock", "prompt": "It", "max_tokens": 1024, "temperature": 0.0, "stop": ["</search>"]}
    assert [(asked.path, asked.body) for asked in server.requests] == [("/v1/completions", sent)]


DEEP = '{"query": ' + "[" * 300 + "]" * 300 + "}"
CALL = {"id": "c7", "type": "function", "function": {"name": "search", "arguments": '{"query":"a"}'}}


def test_functions_are_offered_and_calls_go_back_with_their_results() -> None:
    tool = {"name": "search", "parameters": {"type": "object"}}
    said = (CallMessage("assistant", "", [CALL]), CallMessage("tool", "found", tool_call_id="c7"))
    server = LlmServer(lambda _: completion("", "tool_calls", tool_calls=[CALL]))
    (reply,) = ask(server, ToolRequest("mock", (Message("user", "Who?"), *said), tools=(tool,)))
    assert (reply.text, reply.finish_reason, reply.calls) == ("", "tool_calls", [CALL])
    (sent,) = server.requests
    assert sent["tools"] == [{"type": "function", "function": tool}]
    assert sent["messages"] == [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "found", "tool_call_id": "c7"},
    ]


@pytest.mark.parametrize(
    ("written", "calls"),
    [
        ([{"function": {"name": "s", "arguments": {"query": "a"}}}], [("call-0", "s", '{"query":"a"}')]),
        ([{"id": 7, "function": {"name": "s", "arguments": "{broken"}}], [("7", "s", "{}")]),
        ([{"id": "x", "function": {"name": "s", "arguments": "[1]"}}], [("x", "s", "{}")]),
        ([{"id": "x", "function": {"name": "s"}}], [("x", "s", "{}")]),
        ([{"id": "x", "function": {"name": "s", "arguments": DEEP}}], [("x", "s", DEEP)]),
        ([{"id": "x", "function": {"name": "s", "arguments": json.loads(DEEP)}}], [("x", "s", "{}")]),
        ([{"function": {"name": None}}, {"function": "s"}, "s", None, {}], []),
        ({"function": {"name": "s"}}, []),
        (None, []),
    ],
    ids=range(9),
)
def test_calls_of_other_shapes(written: Any, calls: list[tuple[str, str, str]]) -> None:
    reply = outcome(completion("", tool_calls=written))
    assert isinstance(reply, Reply)
    assert [(each["id"], *each["function"].values()) for each in reply.calls] == calls


def test_a_stop_that_is_refused_is_left_out_from_then_on() -> None:
    turn = TurnRequest("mock", (Message("user", "Hi"),), stop=("</search>",))
    refusal = error(400, "Unsupported parameter: 'stop' is not supported with this model.")
    server = LlmServer(lambda request: refusal if "stop" in request else OK)
    ask(server, turn, turn)
    assert ["stop" in request for request in server.requests] == [True, False, False]


async def test_refusals_that_many_calls_meet_together_cost_one_format_only() -> None:
    server = LlmServer(refusing("json_schema"), delay=0.05)
    async with open_endpoint(server) as endpoint:
        replies = await asyncio.gather(*(endpoint.send(REQUEST) for _ in range(8)))
    assert [reply.text for reply in replies] == [OK] * 8
    assert endpoint.format == "json_object"
    assert len(server.requests) == 16


async def test_a_refused_row_that_has_nothing_to_do_with_it_changes_no_setting() -> None:
    answers: Iterator[Fault | str] = cycle([error(400, "this row is bad"), OK])
    server = LlmServer(lambda _: next(answers))
    async with open_endpoint(server) as endpoint:
        with pytest.raises(RowRejected):
            await endpoint.send(REQUEST)
        await endpoint.send(REQUEST)
    assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
@pytest.mark.parametrize("key", [KEY, "a-key-of-another-form", "sk-other-0123456789"])
@pytest.mark.parametrize("before", [0, 285, 295])
def test_no_message_holds_a_key(status: int, key: str, before: int) -> None:
    own = "sk-mine-0123456789" if key.startswith("sk-other") else key
    fault = outcome(error(status, "." * before + " Incorrect key: " + key), key=own)
    assert isinstance(fault, Exception)
    words = str(fault)
    assert not any(key[start : start + 6] in words for start in range(3, len(key) - 5)), words


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, ["a", "b"]),
        ({"data": []}, []),
        ({"data": None}, []),
        ({"data": 5}, []),
        ({}, []),
    ],
)
async def test_models_that_are_offered(listing: dict[str, Any], names: list[str]) -> None:
    async with open_endpoint(FakeServer(lambda _: listing)) as endpoint:
        assert await endpoint.models() == names


AZURE = {"OPENAI_API_VERSION": "2025-01-01", "AZURE_OPENAI_API_KEY": KEY}


def test_organisation_project_and_custom_headers_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: search\nX-Gateway-Key: gw-0123456789")
    server = LlmServer(lambda _: error(400, "your gateway key is gw-0123456789"))
    with pytest.raises(RowRejected) as fault:
        ask(server, REQUEST, key=KEY)
    sent = server.headers[0]
    assert [sent[name] for name in ("openai-organization", "openai-project", "x-team")] == ["org", "project", "search"]
    assert "gw-0123456789" not in str(fault.value)


@pytest.mark.parametrize(
    ("header", "sent"), [("X-Authorization: a", None), ("authorization: Bearer a", "Bearer a"), ("X-Team: a", None)]
)
def test_without_a_key_a_header_of_the_users_own_may_be_one(
    header: str, sent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", header)
    server = LlmServer(lambda _: OK)
    ask(server, REQUEST)
    assert server.headers[0].get("Authorization") == sent


@pytest.mark.parametrize("headers", ["no header", "X-Näme: 1", "X-Team: caf\u00e9", "a b: c"])
def test_what_is_no_header_is_told(headers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", headers)
    with pytest.raises(ConfigError, match="OPENAI_CUSTOM_HEADERS holds a line that is not a header"):
        ask("http://127.0.0.1:9/v1", REQUEST)


def test_azure_is_asked_where_its_environment_names_this_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(lambda _: completion(OK))
    for name, value in {**AZURE, "AZURE_OPENAI_ENDPOINT": server.url}.items():
        monkeypatch.setenv(name, value)
    (reply,) = ask(server, REQUEST)
    assert reply.text == OK
    asked = server.requests[0]
    assert (asked.path, asked.params) == ("/openai/deployments/mock/chat/completions", {"api-version": "2025-01-01"})
    assert asked.headers["api-key"] == KEY
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("missing", AZURE)
def test_what_azure_needs_besides_is_told(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9"
    for name, value in {**AZURE, "AZURE_OPENAI_ENDPOINT": url, missing: ""}.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="AZURE_OPENAI_ENDPOINT is not enough") as fault:
        ask(url, REQUEST)
    assert missing in str(fault.value)


def test_what_the_user_asks_for_is_sent_and_never_left_out() -> None:
    request = replace(REQUEST, reasoning_effort="low", extra_body={"top_p": 0.9, "max_tokens": 5, "temperature": 1})
    server = LlmServer(refusing("temperature"))
    with pytest.raises(RowRejected, match="'temperature' does not"):
        ask(server, request)
    (sent,) = server.requests
    assert (sent["reasoning_effort"], sent["top_p"], sent["max_tokens"]) == ("low", 0.9, 5)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_kept_apart(name: str) -> None:
    reply = outcome(completion("", "length", **{name: "Let me see."}))
    assert isinstance(reply, Reply)
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", "Let me see.", "length")
