"""A batch fills the replay cache: everything is asked once, at half the price, and nothing that was sent is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepsearch_data.core.errors import BudgetError, ProviderError, RowRejected
from stepsearch_data.llm import batch as batch_module
from stepsearch_data.llm.batch import Batches, Everyone, Function
from stepsearch_data.llm.chat import Message, Request
from stepsearch_data.llm.endpoint import Endpoint
from stepsearch_data.llm.service import Llm
from stepsearch_data.llm.settings import LlmSettings
from tests.batch_api import BatchApi
from tests.conftest import Run
from tests.fake import Fault, reach
from tests.llm_server import LlmServer, error
from tests.oracle import Oracle


def _answer(request: dict[str, Any]) -> str | Fault:
    said = str(request["messages"][-1]["content"])
    return error(400, "this row is bad") if "bad" in said else f"reply to {said}"


class BatchServer(LlmServer):
    """A server with a Batch API."""

    def __init__(self) -> None:
        super().__init__(_answer)
        self.api = BatchApi(self)


@pytest.fixture
def server() -> BatchServer:
    return BatchServer()


@pytest.fixture
def api(server: BatchServer) -> BatchApi:
    return server.api


def request_of(text: str) -> Request:
    return Request("gpt-4o-mini", (Message("user", text),), max_tokens=100)


class Stage:
    """A stage that asks about some texts, first by batches; `follow_up` asks again about each reply."""

    def __init__(self, server: LlmServer, folder: Path, **settings: Any) -> None:
        url, self._transport = reach(server)
        self._settings = LlmSettings(
            base_url=url, replay=folder / "replay.sqlite", mode="batch", batch_poll=0.01, **settings
        )
        self.records: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.rejected: list[str] = []

    def run(self, *texts: str, follow_up: bool = False, repair: bool = False) -> list[str]:
        return asyncio.run(self._run(texts, follow_up, repair))

    async def _run(self, texts: tuple[str, ...], follow_up: bool, repair: bool) -> list[str]:
        llm = Llm(self._settings, "queries", None, self.records.append, self._transport)
        found = []

        async def function(text: str) -> None:
            reply = await llm.complete(request_of(text))
            if follow_up:
                reply = await llm.complete(request_of(f"judge {reply.text}"))
            if repair:
                turns = (Message("user", text), Message("assistant", reply.text), Message("user", "again"))
                reply = await llm.complete(Request("gpt-4o-mini", turns))
            found.append(reply.text)

        async def everyone(work: Function) -> AsyncIterator[None]:
            for done in asyncio.as_completed([work(text) for text in texts]):
                yield await done

        try:
            over: Everyone = everyone
            await Batches(llm, self.said.append).fill(function, over)
            found.clear()
            for text in texts:
                try:
                    await function(text)
                except RowRejected as reason:
                    self.rejected.append(str(reason))
        finally:
            await llm.close()
        return found


def test_all_but_the_first_request_go_into_one_batch(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    stage = Stage(server, tmp_path)
    assert stage.run("a", "b", "c", "b") == ["reply to a", "reply to b", "reply to c", "reply to b"]
    assert len(server.requests) == 1  # a try-out, which shows what the server refuses
    assert [len(api.requests(name)) for name in api.batches] == [2]
    assert "2 of 2 answered" in stage.said[-1]


def test_a_batched_request_is_what_would_have_been_sent(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    Stage(server, tmp_path).run("a", "b")
    [sent] = api.requests("batch_1")
    endpoint = Endpoint(LlmSettings(base_url=server.url), connections=1)
    assert sent["body"] == endpoint.payload(request_of(sent["body"]["messages"][0]["content"]))
    assert sent["custom_id"] == request_of(sent["body"]["messages"][0]["content"]).digest(server.url)
    assert (sent["method"], sent["url"]) == ("POST", "/v1/chat/completions")


def test_a_batch_leaves_out_what_the_server_was_seen_to_refuse(
    api: BatchApi, server: LlmServer, tmp_path: Path
) -> None:
    def answer(request: dict[str, Any]) -> str | Fault:
        return error(400, "use max_completion_tokens") if "max_tokens" in request else "fine"

    server.answer = answer
    assert Stage(server, tmp_path).run("a", "b") == ["fine", "fine"]
    assert "max_completion_tokens" in api.requests("batch_1")[0]["body"]


def test_a_batch_costs_half(server: LlmServer, tmp_path: Path) -> None:
    stage = Stage(server, tmp_path)
    stage.run("a", "b")
    paid = {record["batch"]: record["cost"] for record in stage.records if not record["cached"]}
    assert paid[False] == pytest.approx((100 * 0.15 + 20 * 0.60) / 1e6)
    assert paid[True] == pytest.approx(paid[False] / 2)


def test_a_second_run_sends_nothing(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    Stage(server, tmp_path).run("a", "b", "c")
    again = Stage(server, tmp_path)
    assert again.run("a", "b", "c") == ["reply to a", "reply to b", "reply to c"]
    assert (len(server.requests), len(api.batches)) == (1, 1)
    assert all(record["cached"] for record in again.records)


def test_what_follows_from_a_reply_is_a_batch_of_its_own(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    Stage(server, tmp_path).run("a", "b", "c", follow_up=True)
    assert len(server.requests) == 1
    asked = [{r["body"]["messages"][0]["content"] for r in api.requests(name)} for name in api.batches]
    assert sum(map(len, asked)) == 5  # of six, one was the try-out
    assert asked[1] <= {f"judge reply to {text}" for text in "abc"}


def test_repairs_go_online(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    assert Stage(server, tmp_path).run("a", "b", repair=True) == ["reply to again", "reply to again"]
    assert (len(server.requests), len(api.batches)) == (3, 1)


def test_a_request_that_fails_in_the_batch_goes_online(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    stage = Stage(server, tmp_path)
    assert stage.run("a", "bad b", "c") == ["reply to a", "reply to c"]
    assert "this row is bad" in stage.rejected[0]
    assert len(api.batches) == 1


def test_an_expired_batch_keeps_what_it_brought(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    api.end, api.answered = "expired", 2
    with pytest.raises(ProviderError, match="batch_1 expired, 2 of 3 requests answered") as caught:
        Stage(server, tmp_path).run("a", "b", "c", "d")
    assert "new batch" in caught.value.hint
    api.end, api.answered = "completed", None
    assert len(Stage(server, tmp_path).run("a", "b", "c", "d")) == 4
    assert len(server.requests) == 2  # the first one left is tried online again


def test_a_failed_batch_stops_the_build_and_is_sent_anew(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    api.end = "failed"
    with pytest.raises(ProviderError, match="0 of 2 requests answered: Enqueued token limit reached"):
        Stage(server, tmp_path).run("a", "b", "c")
    api.end = "completed"
    assert len(Stage(server, tmp_path).run("a", "b", "c")) == 3


def test_a_cancelled_batch_stops_the_build(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    api.end, api.answered = "cancelled", 0
    with pytest.raises(ProviderError, match="cancelled"):
        Stage(server, tmp_path).run("a", "b")


def test_requests_are_spread_over_files(
    server: LlmServer, api: BatchApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 2)
    assert len(Stage(server, tmp_path).run(*"abcdef")) == 6
    assert [len(api.requests(name)) for name in api.batches] == [2, 2, 1]
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 100)
    monkeypatch.setattr(batch_module, "MOST_BYTES", 1)
    Stage(server, tmp_path).run(*"ghi")
    assert [len(api.requests(name)) for name in api.batches][3:] == [1, 1]


def test_a_batch_whose_start_was_not_acknowledged_is_not_started_twice(
    server: LlmServer, api: BatchApi, tmp_path: Path
) -> None:
    api.lost = 1
    assert len(Stage(server, tmp_path).run("a", "b")) == 2
    assert len(api.batches) == 1


def test_a_batch_beyond_the_budget_is_not_sent(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="a batch of 2 requests may cost"):
        Stage(server, tmp_path, max_cost=0.00003).run("a", "b", "c")
    with pytest.raises(BudgetError, match="tokens, above the budget"):
        Stage(server, tmp_path, max_tokens_total=130).run("d", "e", "f")
    assert not api.batches


def test_a_server_without_batches_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="the batch cannot be sent") as caught:
        Stage(LlmServer(_answer), tmp_path).run("a", "b")
    assert "--llm-mode online" in caught.value.hint


def test_a_batch_of_another_account_is_not_sent_again(server: LlmServer, api: BatchApi, tmp_path: Path) -> None:
    api.end = "failed"
    kept = api.batches
    stage = Stage(server, tmp_path)

    async def start() -> None:
        llm = Llm(stage._settings, "queries")
        llm.replay.remember("batch_9", {request_of("a").digest(server.url): "gpt-4o-mini"})
        await llm.close()

    asyncio.run(start())
    with pytest.raises(ProviderError, match="batch batch_9 cannot be followed"):
        stage.run("a")
    assert not kept
    assert not server.requests


def test_hostile_rows_in_an_output_file_are_passed_over(
    server: LlmServer, api: BatchApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b'not json\n[1]\n{"response": {"status_code": 200}}\n{"custom_id": 1}\n{"response": "x"}\n'
    monkeypatch.setattr(api, "_write", lambda _: api._add(content))
    assert len(Stage(server, tmp_path).run("a", "b")) == 2
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "words", "hint"),
    [
        (error(400, "expired"), r"what batch batch_1 brought cannot be fetched: .*\(400\): expired", "online"),
        (error(404, "gone"), "cannot be fetched: .*gone", "online"),
        (Fault(cut=True), "cannot be fetched: .* does not answer", "later"),
    ],
)
def test_a_batch_whose_replies_cannot_be_fetched_is_kept_for_later(
    server: LlmServer, api: BatchApi, tmp_path: Path, fault: Fault, words: str, hint: str
) -> None:
    server.more.insert(0, lambda asked: fault if asked.path.endswith("/content") else None)
    with server.serving(fault):
        with pytest.raises(ProviderError, match=words) as caught:
            Stage(server, tmp_path, patience=0.1).run("a", "b")
        assert hint in caught.value.hint
        del server.more[0]
        assert Stage(server, tmp_path).run("a", "b") == ["reply to a", "reply to b"]
    assert (len(api.batches), len(server.requests)) == (1, 1)


def test_a_build_that_is_killed_follows_its_batch(
    server: LlmServer, api: BatchApi, tmp_path: Path, sample_store: Path, cli: Run
) -> None:
    server.answer, api.end = Oracle(sample_store), None
    store = tmp_path / "store"
    command = ["build", "--store", store, "--llm", "gpt-4o-mini", "--llm-mode", "batch", "--limit", "5", "--quiet"]
    command += ["--set", "llm.batch_poll=0.05", "--set", f"llm.replay={tmp_path / 'replay.sqlite'}"]
    with server:
        env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "test"}
        first = subprocess.Popen(
            [sys.executable, "-m", "stepsearch_data", *map(str, command)], env={**os.environ, **env}
        )
        deadline = time.monotonic() + 60
        while api.looks < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert len(api.batches) == 1

        api.end = "completed"
        done = cli(*command, env=env)
        assert done.returncode == 0, done.stderr
        assert len(api.batches) == 2  # one for decompose, one for queries
        calls = [orjson.loads(line) for line in (store / "log" / "llm_calls.jsonl").read_bytes().splitlines()]
        batched = [call["stage"] for call in calls if call["batch"]]
        sizes = [len(api.requests(name)) for name in api.batches]
        assert [batched.count("decompose"), batched.count("queries")] == sizes
        openings = [r for r in server.requests if all(turn["role"] != "assistant" for turn in r["messages"])]
        assert len(openings) == 2  # a try-out for each stage; repairs are asked for online too

        online = len(server.requests)
        again = cli(*command, "--stage", "decompose,queries", "--force", env=env)
    assert again.returncode == 0, again.stderr
    assert (len(api.batches), len(server.requests)) == (2, online)
