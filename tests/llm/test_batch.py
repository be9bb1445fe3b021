"""A batch fills the replay cache: everything is asked once, at half the price, and nothing that was sent is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepsearch_data.core.errors import BudgetError, ProviderError, RowRejected
from stepsearch_data.llm import batch as batch_module
from stepsearch_data.llm.batch import Batches, Everyone, Function
from stepsearch_data.llm.chat import Message, Request
from stepsearch_data.llm.endpoint import Endpoint
from stepsearch_data.llm.replay import Replay
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


def request_of(text: str) -> Request:
    return Request("gpt-4o-mini", (Message("user", text),), max_tokens=100)


class Stage:
    """A stage that asks `server`, which has a Batch API, about some texts, first by batches."""

    def __init__(self, folder: Path) -> None:
        self.server = LlmServer(_answer)
        self.api = BatchApi(self.server)
        self.replay = folder / "replay.sqlite"
        self.records: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.rejected: list[str] = []

    def llm(self, **settings: Any) -> Llm:
        url, transport = reach(self.server)
        config = LlmSettings(base_url=url, replay=self.replay, mode="batch", batch_poll=0.01, **settings)
        return Llm(config, "queries", None, self.records.append, transport)

    def run(self, *texts: str, follow_up: bool = False, repair: bool = False, **settings: Any) -> list[str]:
        """The replies; `follow_up` asks again about each reply."""
        return asyncio.run(self._run(texts, follow_up, repair, settings))

    def sizes(self) -> list[int]:
        """How many requests each batch has."""
        return [len(self.api.requests(name)) for name in self.api.batches]

    async def _run(self, texts: tuple[str, ...], follow_up: bool, repair: bool, settings: dict[str, Any]) -> list[str]:
        llm = self.llm(**settings)
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


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_all_but_the_first_request_go_into_one_batch_once(stage: Stage) -> None:
    assert stage.run("a", "b", "c", "b") == ["reply to a", "reply to b", "reply to c", "reply to b"]
    assert "2 of 2 answered" in stage.said[-1]
    stage.records.clear()
    assert stage.run("a", "b", "c") == ["reply to a", "reply to b", "reply to c"]
    assert all(record["cached"] for record in stage.records)
    assert len(stage.server.requests) == 1  # a try-out, which shows what the server refuses
    assert stage.sizes() == [2]


def test_a_batched_request_is_what_would_have_been_sent(stage: Stage) -> None:
    stage.run("a", "b")
    [sent] = stage.api.requests("batch_1")
    request, url = request_of(sent["body"]["messages"][0]["content"]), stage.server.url
    assert sent["body"] == Endpoint(LlmSettings(base_url=url), connections=1).payload(request)
    assert sent["custom_id"] == request.digest(url)
    assert (sent["method"], sent["url"]) == ("POST", "/v1/chat/completions")


def test_a_batch_leaves_out_what_the_server_was_seen_to_refuse(stage: Stage) -> None:
    refusal = error(400, "use max_completion_tokens")
    stage.server.answer = lambda request: refusal if "max_tokens" in request else "fine"
    assert stage.run("a", "b") == ["fine", "fine"]
    assert "max_completion_tokens" in stage.api.requests("batch_1")[0]["body"]


def test_a_batch_costs_half(stage: Stage) -> None:
    stage.run("a", "b")
    paid = {record["batch"]: record["cost"] for record in stage.records if not record["cached"]}
    assert paid[False] == pytest.approx((100 * 0.15 + 20 * 0.60) / 1e6)
    assert paid[True] == pytest.approx(paid[False] / 2)


def test_what_follows_from_a_reply_is_a_batch_of_its_own(stage: Stage) -> None:
    stage.run("a", "b", "c", follow_up=True)
    assert len(stage.server.requests) == 1
    asked = [{r["body"]["messages"][0]["content"] for r in stage.api.requests(name)} for name in stage.api.batches]
    assert sum(map(len, asked)) == 5  # of six, one was the try-out
    assert asked[1] <= {f"judge reply to {text}" for text in "abc"}


def test_repairs_go_online(stage: Stage) -> None:
    assert stage.run("a", "b", repair=True) == ["reply to again", "reply to again"]
    assert (len(stage.server.requests), stage.sizes()) == (3, [1])


def test_a_request_that_fails_in_the_batch_goes_online(stage: Stage) -> None:
    assert stage.run("a", "bad b", "c") == ["reply to a", "reply to c"]
    assert "this row is bad" in stage.rejected[0]
    assert stage.sizes() == [2]


@pytest.mark.parametrize(
    ("end", "answered", "words"),
    [
        ("expired", 2, "batch_1 expired, 2 of 3 requests answered"),
        ("failed", None, "0 of 3 requests answered: Enqueued token limit reached"),
        ("cancelled", 0, "batch_1 cancelled, 0 of 3"),
    ],
)
def test_a_batch_that_does_not_complete_stops_the_build_and_the_rest_is_sent_again(
    stage: Stage, end: str, answered: int | None, words: str
) -> None:
    stage.api.end, stage.api.answered = end, answered
    with pytest.raises(ProviderError, match=words) as caught:
        stage.run("a", "b", "c", "d")
    assert "new batch" in caught.value.hint
    stage.api.end, stage.api.answered = "completed", None
    assert len(stage.run("a", "b", "c", "d")) == 4
    assert len(stage.server.requests) == 2  # the first one left is tried online again
    assert stage.sizes() == ([3] if answered == 2 else [3, 2])


def test_requests_are_spread_over_files(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 2)
    assert len(stage.run(*"abcdef")) == 6
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 100)
    monkeypatch.setattr(batch_module, "MOST_BYTES", 1)
    stage.run(*"ghi")
    assert stage.sizes() == [2, 2, 1, 1, 1]


def test_a_batch_whose_start_was_not_acknowledged_is_not_started_twice(stage: Stage) -> None:
    stage.api.lost = 1
    assert len(stage.run("a", "b")) == 2
    assert stage.sizes() == [1]


def test_a_batch_beyond_the_budget_is_not_sent(stage: Stage) -> None:
    with pytest.raises(BudgetError, match="a batch of 2 requests may cost"):
        stage.run("a", "b", "c", max_cost=0.00003)
    with pytest.raises(BudgetError, match="tokens, above the budget"):
        stage.run("d", "e", "f", max_tokens_total=130)
    assert not stage.api.batches


def test_a_server_without_batches_is_named(stage: Stage) -> None:
    stage.server.more.clear()
    with pytest.raises(ProviderError, match="the batch cannot be sent") as caught:
        stage.run("a", "b")
    assert "--llm-mode online" in caught.value.hint


def test_a_batch_of_another_account_is_not_sent_again(stage: Stage) -> None:
    with closing(Replay(stage.replay)) as replay:
        replay.remember("batch_9", {request_of("a").digest(stage.server.url): "gpt-4o-mini"})
    with pytest.raises(ProviderError, match="batch batch_9 cannot be followed"):
        stage.run("a")
    assert not stage.api.batches
    assert not stage.server.requests


def test_hostile_rows_in_an_output_file_are_passed_over(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'not json\n[1]\n{"response": {"status_code": 200}}\n{"custom_id": 1}\n{"response": "x"}\n'
    monkeypatch.setattr(stage.api, "_write", lambda _: stage.api._add(content))
    assert len(stage.run("a", "b")) == 2
    assert len(stage.server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "words", "hint"),
    [
        (error(400, "expired"), r"what batch batch_1 brought cannot be fetched: .*\(400\): expired", "online"),
        (error(404, "gone"), "cannot be fetched: .*gone", "online"),
        (Fault(cut=True), "cannot be fetched: .* does not answer", "later"),
    ],
)
def test_a_batch_whose_replies_cannot_be_fetched_is_kept_for_later(
    stage: Stage, fault: Fault, words: str, hint: str
) -> None:
    stage.server.more.insert(0, lambda asked: fault if asked.path.endswith("/content") else None)
    with stage.server.serving(fault):
        with pytest.raises(ProviderError, match=words) as caught:
            stage.run("a", "b", patience=0.1)
        assert hint in caught.value.hint
        del stage.server.more[0]
        assert stage.run("a", "b") == ["reply to a", "reply to b"]
    assert (stage.sizes(), len(stage.server.requests)) == ([1], 1)


@pytest.mark.long  # the other tests follow batches without a build
def test_a_build_that_is_killed_follows_its_batch(stage: Stage, tmp_path: Path, sample_store: Path, cli: Run) -> None:
    server, api = stage.server, stage.api
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
