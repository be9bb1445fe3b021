"""Builds by a language model, through the command line, against a real server that knows the answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.pipeline.store import Store
from stepsearch_data.remote.cache import WINDOW_REPLIES
from stepsearch_data.sql import query as sql
from stepsearch_data.stages.model import load_prompt
from tests.conftest import run_cli
from tests.fake import Fault
from tests.llm_server import Answer, LlmServer, error
from tests.oracle import Oracle, question_of, sub_question_of
from tests.tree import tree

KEY = "sk-made-up-123456789abc"
NOWHERE = "http://127.0.0.1:9/v1"  # where nobody listens
Done = subprocess.CompletedProcess[str]


class World:
    """A server, and a folder for stores and for the replay cache."""

    def __init__(self, folder: Path, server: LlmServer) -> None:
        self.folder, self.server = folder, server
        self.env = {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": KEY,
        }

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def build(self, *arguments: str | Path, store: Path | None = None, llm: str = "mock", **env: str) -> Done:
        command = ("build", "--store", store or self.store, "--llm", llm, *arguments)
        return run_cli(*command, env={**self.env, **env})

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A build that goes on in the background."""
        command = [sys.executable, "-m", "stepsearch_data", "build", "--store", self.store, "--llm", "mock"]
        return subprocess.Popen(
            [*map(str, command), *map(str, arguments)],
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rows(self, query: str, store: Path | None = None) -> list[dict[str, Any]]:
        with sql(Store.open(store or self.store), query) as reader:
            return reader.read_all().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types

    def sent(self, number: int) -> None:
        """Wait until the server got so many requests."""
        deadline = time.monotonic() + 120
        while len(self.server.requests) < number:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def sent_again(self) -> int:
        """How many requests the server got more than once."""
        return len(self.server.requests) - len({json.dumps(request) for request in self.server.requests})


@pytest.fixture(scope="session")
def oracle(sample_store: Path) -> Oracle:
    return Oracle(sample_store)


@pytest.fixture
def world(tmp_path: Path, oracle: Oracle) -> Iterator[World]:
    with LlmServer(oracle) as server:
        yield World(tmp_path, server)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Oracle]:
    """`--source` of a hundred synthetic questions, and who knows their answers: about 430 calls."""
    folder = tmp_path_factory.mktemp("synthetic")
    source = f"musique={folder / 'world.jsonl'}"
    made = run_cli("synth", "-n", "100", "-o", folder / "world.jsonl", "--quiet")
    assert made.returncode == 0, made.stderr
    built = run_cli("build", "--store", folder / "store", "--source", source, "--to", "queries", "--quiet")
    assert built.returncode == 0, built.stderr
    return source, Oracle(folder / "store")


def tables(store: Path) -> dict[str, str]:
    """Digests of all tables, whatever the fingerprints are called that made them."""
    return {Path(name).name: digest for name, digest in tree(store / "stages").items()}


def first_question(oracle: Oracle, source: str) -> str:
    return next(q.question for q in oracle.questions.values() if q.source == source and q.answerable)


@pytest.mark.long
def test_a_build_by_a_model_and_again_without_a_single_call(world: World, oracle: Oracle) -> None:
    done = world.build()
    assert done.returncode == 0, done.stderr
    answerable = sum(question.answerable for question in oracle.questions.values())
    (row,) = world.rows(
        "SELECT (SELECT count(*) FROM trajectories) AS trajectories, (SELECT count(*) FROM sub_questions) AS hops,"
        " (SELECT count(*) FROM sub_questions WHERE method <> 'model') AS other_hops,"
        " (SELECT count(*) FROM queries WHERE method <> 'model') AS other_queries,"
        " (SELECT count(*) FROM llm_calls) AS calls, (SELECT count(*) FROM llm_calls WHERE cached) AS cached,"
        " (SELECT sum(prompt_tokens)::INT FROM llm_calls) AS tokens"
    )
    calls = len(world.server.requests)
    assert calls == answerable + row["hops"]
    assert row == {
        "trajectories": answerable,
        "hops": row["hops"],
        "other_hops": 0,
        "other_queries": 0,
        "calls": calls,
        "cached": 0,
        "tokens": 100 * calls,
    }

    again = world.folder / "again"
    second = world.build(store=again)
    assert second.returncode == 0, second.stderr
    assert len(world.server.requests) == calls
    assert (again / "manifest.json").read_bytes() == (world.store / "manifest.json").read_bytes()
    assert tree(again / "stages") == tree(world.store / "stages")
    assert world.rows("SELECT count(*) AS n FROM llm_calls WHERE cached", again) == [{"n": calls}]

    assert world.server.headers[0]["Authorization"] == f"Bearer {KEY}"
    written = [path for path in world.folder.rglob("*") if path.is_file()]
    assert {"replay.sqlite", "llm_calls.jsonl"} <= {path.name for path in written}
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in done.stdout + done.stderr + second.stdout + second.stderr


def test_a_stage_alone_may_ask_the_model(world: World) -> None:
    stages = ("--set", "decompose.llm=offline", "--set", "queries.llm=mock", "--to", "queries", "--limit", "5")
    done = world.build(*stages)
    assert done.returncode == 0, done.stderr
    assert world.server.requests
    assert all(sub_question_of(request) for request in world.server.requests)
    assert world.rows("SELECT count(*) AS n FROM sub_questions WHERE method = 'model'") == [{"n": 0}]


def test_a_store_of_an_earlier_format_is_built_anew_and_pays_for_nothing_twice(world: World) -> None:
    few = ("--to", "queries", "--source", "musique=sample", "--limit", "5")
    assert world.build(*few).returncode == 0
    before, calls = tables(world.store), len(world.server.requests)
    manifest = world.store / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    refused = world.build(*few)
    assert refused.returncode == 1
    assert "has store format 1; this version reads 2" in refused.stderr
    assert f"rm {manifest} && stepsearch-data build --store {world.store} --source KIND=PATH" in refused.stderr
    manifest.unlink()
    assert world.build(*few).returncode == 0
    assert (tables(world.store), len(world.server.requests)) == (before, calls)


def test_ten_more_questions_send_their_own_calls_only(world: World) -> None:
    command = ("--to", "queries", "--source", "musique=sample", "--source", "hotpotqa=sample")
    assert world.build(*command, "--limit", "10").returncode == 0
    earlier = {question_of(request) for request in world.server.requests}
    world.server.requests.clear()
    assert world.build(*command, "--limit", "15").returncode == 0
    later = {question_of(request) for request in world.server.requests}
    assert 1 <= len(later) <= 10
    assert not earlier & later
    paid, needed = world.rows(
        "SELECT count(*) AS n FROM llm_calls WHERE NOT cached UNION ALL SELECT count(*)"
        " + (SELECT count(DISTINCT question_id) FROM sub_questions) FROM sub_questions"
    )
    assert paid == needed


def test_an_edited_prompt_runs_only_what_depends_on_it(world: World) -> None:
    few = ("--to", "queries", "--limit", "10")
    assert world.build(*few).returncode == 0
    before = tables(world.store)
    world.server.requests.clear()
    mine = world.folder / "mine.txt"
    mine.write_text("Think of synonyms. " + load_prompt("queries").text)
    done = world.build(*few, "--prompt", f"queries={mine}")
    assert done.returncode == 0, done.stderr
    assert ["decompose", "current"] in [line.split()[:2] for line in done.stderr.splitlines()]
    assert world.server.requests
    assert all(sub_question_of(request) for request in world.server.requests)
    assert all("Think of synonyms." in json.dumps(request) for request in world.server.requests)
    assert tables(world.store) == before  # the same answers

    world.server.requests.clear()
    assert world.build(*few).returncode == 0  # and back: nothing is paid again
    assert world.server.requests == []


class Flaky:
    """Of twenty requests, one gets HTTP 500 and one half a reply, the first time that it is made."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.faults: Counter[str] = Counter()
        self._seen: set[str] = set()

    def __call__(self, request: dict[str, Any]) -> str | Fault:
        text = json.dumps(request)
        reply = self._oracle(request)
        if text in self._seen or len(request["messages"]) > 2:
            return reply
        self._seen.add(text)
        if len(self._seen) % 20 == 5:
            self.faults["500"] += 1
            return error(500, "hiccup")
        if len(self._seen) % 20 == 15:
            self.faults["truncated"] += 1
            return reply[: len(reply) // 2]
        return reply


@pytest.mark.long
def test_all_rows_are_right_from_a_server_that_fails_now_and_then(world: World, oracle: Oracle) -> None:
    assert world.build("--to", "queries").returncode == 0
    right = tables(world.store)
    flaky = world.server.answer = Flaky(oracle)
    bad_weather = world.folder / "flaky"
    done = world.build("--to", "queries", store=bad_weather, XDG_CACHE_HOME=str(world.folder / "empty"))
    assert done.returncode == 0, done.stderr
    assert tables(bad_weather) == right
    assert min(flaky.faults["500"], flaky.faults["truncated"]) >= 10
    repaired = [request for request in world.server.requests if len(request["messages"]) > 2]
    assert len(repaired) == flaky.faults["truncated"]


@pytest.mark.long
def test_bad_rows_are_rejected_alone_and_may_be_tried_again(world: World, oracle: Oracle) -> None:
    refused, silly = first_question(oracle, "musique"), first_question(oracle, "hotpotqa")

    def answer(request: dict[str, Any]) -> str | Fault:
        if question_of(request) == refused:
            return error(400, "this text is not welcome")
        if question_of(request) == silly and sub_question_of(request):
            return json.dumps({"queries": ["one", "One!"]})
        return oracle(request)

    few = ("--to", "queries", "--limit", "10")
    assert world.build(*few).returncode == 0
    right = tables(world.store)
    world.server.answer = answer
    again, cache = world.folder / "again", str(world.folder / "empty")
    done = world.build(*few, store=again, XDG_CACHE_HOME=cache)
    assert done.returncode == 3, done.stderr
    first, second = world.rows("SELECT stage, reason, raw FROM rejects ORDER BY stage", again)
    assert first == {
        "stage": "decompose",
        "reason": "the server refuses the request (400): this text is not welcome",
        "raw": refused,
    }
    assert (second["stage"], second["raw"]) == ("queries", '{"queries": ["one", "One!"]}')
    assert "4 queries are wanted, and 1 of yours can be used" in second["reason"]
    assert second["reason"].endswith("(after 3 replies)")
    (missing,) = world.rows(
        "SELECT count(DISTINCT question) AS n FROM questions WHERE answerable"
        " AND question_id NOT IN (SELECT question_id FROM queries)",
        again,
    )
    assert missing == {"n": 2}

    def retry() -> Done:
        return run_cli("retry-failed", "--store", again, "--llm", "mock", env={**world.env, "XDG_CACHE_HOME": cache})

    still_bad = retry()
    assert "trying 2 questions again" in still_bad.stderr
    assert world.rows("SELECT count(*) AS n FROM rejects WHERE stage IN ('decompose', 'queries')", again) == [{"n": 2}]
    world.server.answer = oracle
    world.server.requests.clear()
    recovered = retry()
    assert recovered.returncode == 0, recovered.stderr
    assert world.rows("SELECT count(*) AS n FROM rejects WHERE stage IN ('decompose', 'queries')", again) == [{"n": 0}]
    assert {question_of(request) for request in world.server.requests} == {refused, silly}
    assert all(request["seed"] for request in world.server.requests if question_of(request) == silly)
    made = tables(again)
    assert {name: made[name] for name in right} == right
    nothing = retry()
    assert (nothing.returncode, nothing.stderr.splitlines()[-1]) == (0, "no model and no engine failed")


def test_a_row_with_one_bad_hop_pays_for_no_hop_twice(world: World, oracle: Oracle) -> None:
    """Its other hops are still in flight when the bad one fails: they are waited for, and recorded."""
    question = first_question(oracle, "musique")
    bad: list[str] = []

    def answer(request: dict[str, Any]) -> str | Fault:
        hop = sub_question_of(request)
        if hop and question_of(request) == question and hop in (bad or [hop]):
            bad.append(hop)
            return error(400, "no")
        return oracle(request)

    world.server.answer, world.server.delay = answer, 0.02
    done = world.build(
        "--to", "queries", "--limit", "1", "--source", "musique=sample", "--set", "run.max_reject_share=1"
    )
    assert done.returncode == 3, done.stderr
    answered = len(world.server.requests) - len(bad)
    assert world.rows("SELECT count(*) AS n FROM llm_calls") == [{"n": answered}]


@pytest.mark.long
def test_kill_9_in_the_middle_sends_little_again(world: World, synthetic: tuple[str, Oracle]) -> None:
    source, world.server.answer = synthetic
    world.server.delay = 0.05
    command = ("--source", source, "--to", "queries", "--max-concurrency", "16")
    with world.start(*command) as process:
        world.sent(250)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    world.server.delay = 0.0
    done = world.build(*command)
    assert done.returncode == 0, done.stderr
    assert len(world.server.requests) > 400
    assert world.sent_again() <= 16 + WINDOW_REPLIES
    (hops, queries) = world.rows("SELECT count(*) AS n FROM sub_questions UNION ALL SELECT count(*) FROM queries")
    assert queries["n"] == 4 * hops["n"] > 1_000


@pytest.mark.long
def test_an_interrupted_build_goes_on(world: World) -> None:
    world.server.delay = 0.05
    command = ("--to", "decompose", "--max-concurrency", "8")
    with world.start(*command) as process:
        world.sent(24)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said.endswith("interrupted; the same command goes on where it stopped\n")
    assert world.build(*command).returncode == 0
    assert world.sent_again() <= 8 + WINDOW_REPLIES


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: error(500, "boom"), "does not answer: 500: boom"),
        (lambda _: error(401, f"bad key {KEY}"), "refuses the key (401): bad key ***"),
        (lambda _: error(404, "The model `mock` does not exist"), "knows no such model or path (404)"),
        (lambda _: Fault(body=b"<html>Sign in</html>"), "does not answer: the server's reply is not JSON"),
        (lambda _: error(429, "You exceeded your current quota: insufficient_quota"), "out of credit"),
        (None, "does not answer: ClientConnectorError"),
    ],
    ids=["500", "401", "404", "HTML", "no credit", "nobody listens"],
)
def test_a_server_that_is_no_use_stops_the_build_and_it_goes_on(
    world: World, oracle: Oracle, answer: Answer | None, words: str
) -> None:
    world.server.answer = answer or oracle
    command = ("--to", "decompose", "--limit", "3", "--set", "llm.patience=2", "--set", "llm.max_attempts=2")
    done = world.build(*command, OPENAI_BASE_URL=world.server.url if answer else NOWHERE)
    assert done.returncode == 5, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert KEY not in done.stdout + done.stderr
    if words.startswith("does not answer: 500"):
        world.server.answer = oracle
        assert world.build(*command).returncode == 0


@pytest.mark.long
def test_a_budget_holds_for_the_store_and_what_was_paid_is_kept(world: World) -> None:
    world.server.delay = 0.1  # so long that even on a busy machine four calls are in flight together
    command = ("--to", "queries", "--limit", "10", "--max-concurrency", "4")  # 120 tokens a call
    done = world.build(*command, "--max-tokens-total", "2400")
    assert done.returncode == 4, done.stderr
    assert "error: the budget of 2,400 tokens is reached" in done.stderr
    assert "--max-tokens-total" in done.stderr
    assert world.server.most_in_flight == 4
    paid = len(world.server.requests)
    assert 14 <= paid <= 20
    log = world.store / "log" / "llm_calls.jsonl"
    assert len(log.read_text().splitlines()) == paid  # those in flight at the end too

    again = world.build(*command, "--max-tokens-total", "2400")
    assert again.returncode == 4
    assert len(world.server.requests) <= 20
    assert world.build(*command, "--max-tokens-total", "1000000").returncode == 0
    assert world.sent_again() == 0
    free = world.build(*command, "--max-tokens-total", "1", store=world.folder / "another")
    assert free.returncode == 0, free.stderr  # replayed replies cost nothing


def test_a_budget_in_dollars_with_a_price_of_ones_own(world: World) -> None:
    command = ("--to", "decompose", "--max-concurrency", "1", "--set", "llm.prices={mock = [10.0, 0.0]}")
    done = world.build(*command, "--max-cost", "0.0105")  # 0.001 a call
    assert done.returncode == 4, done.stderr
    assert "$0.0105 is reached" in done.stderr
    assert len(world.server.requests) == 10


def doctor(world: World, model: str = "mock", **env: str) -> Done:
    return run_cli("doctor", "--llm", model, env={**world.env, **env})


def test_doctor_on_a_good_server(world: World) -> None:
    world.server.answer, world.server.key = (lambda _: '{"ok": true}'), KEY
    done = doctor(world)
    assert done.returncode == 0, done.stderr
    first, key, model, reply, structured = done.stdout.splitlines()
    assert first == f"endpoint   {world.server.url}"
    assert key == "key        set"
    assert model == "model      mock is offered"
    assert "100 + 20 tokens" in reply
    assert '{"ok": true}' in reply
    assert structured == "structured the server accepts JSON schemas"
    assert len(world.server.requests) == 1


@pytest.mark.parametrize(
    ("env", "said", "hint"),
    [
        (
            {"OPENAI_API_KEY": "another-0123"},
            "refuses the key (401): Incorrect API key provided: ***",
            "OPENAI_API_KEY",
        ),
        ({"OPENAI_API_KEY": ""}, "refuses the key (401): Incorrect API key provided:", "OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": NOWHERE}, f"error: {NOWHERE} does not answer: ClientConnectorError", "OPENAI_BASE_URL"),
    ],
)
def test_doctor_says_what_has_to_be_mended(world: World, env: dict[str, str], said: str, hint: str) -> None:
    world.server.key = KEY
    done = doctor(world, **env)
    assert (done.returncode, done.stdout) == (5, "")
    assert said in done.stderr
    assert hint in done.stderr.partition("hint: ")[2]
    assert "0123" not in done.stderr


def test_doctor_with_an_unknown_model(world: World) -> None:
    world.server.answer = lambda _: error(404, "The model `typo` does not exist")
    world.server.models = ["tiny", "large"]
    done = doctor(world, "typo")
    assert done.returncode == 5
    assert "knows no such model or path (404): The model `typo` does not exist" in done.stderr
    assert "typo is not listed; the server lists tiny, large" in done.stderr


def test_doctor_on_a_server_without_schemas_that_lists_no_models(world: World) -> None:
    def answer(request: dict[str, Any]) -> str | Fault:
        return error(400, "response_format is not supported") if "response_format" in request else '{"ok": true}'

    world.server.answer = answer
    world.server.models = Fault(404, b"404: Not Found")
    done = doctor(world, OPENAI_API_KEY="")
    assert done.returncode == 0, done.stderr
    assert "key        none (OPENAI_API_KEY is not set)" in done.stdout
    assert "models     the server does not list them" in done.stdout
    assert "structured the server accepts neither schemas nor JSON mode" in done.stdout
