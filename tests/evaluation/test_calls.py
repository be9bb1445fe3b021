"""`eval` of a model that calls tools, behind a server on loopback: what it is shown, what is kept, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment
from stepsearch_data.rewards import read_conversation
from stepsearch_data.rewards.conversation import TOO_MANY
from stepsearch_data.rewards.rollout import NO_SEARCH_LEFT
from tests.conftest import Run
from tests.evaluation.conftest import ALL, Ask, Row, rollouts, whole
from tests.evaluation.policies import GoldCaller
from tests.llm_server import LlmServer, completion, error

TOOLS = ("open", "find")


@pytest.fixture(scope="module")
def gold(sample_store: Path) -> GoldCaller:
    """A policy that knows the sample's training split."""
    return GoldCaller(sample_store)


def called(name: str, arguments: Any, identity: str = "c1") -> Row:
    function = {"name": name, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}
    return completion("", "tool_calls", tool_calls=[{"id": identity, "type": "function", "function": function}])


def shown(request: Row) -> list[str]:
    """What the tools have returned."""
    return [message["content"] for message in request["messages"] if message["role"] == "tool"]


def test_documents_are_opened_and_counted_apart(ask: Ask, gold: GoldCaller, cli: Run, tmp_path: Path) -> None:
    server = LlmServer(gold)
    report = ask(server, tools=TOOLS, **ALL)
    found, rows = whole(report), rollouts(tmp_path / "out")
    assert (found["em"], found["format_errors"], found["ended"]["answer"]) == (1, 0, 1)
    assert (found["opens"], found["finds"], found["support_recall"] > 0.9) == (1, 1, True)
    assert found["invalid_turns"] > 0  # second calls of a turn
    assert found["searches"] == sum(len(row["searches"]) for row in rows) / len(rows)
    assert [tool["function"]["name"] for tool in server.requests[0]["tools"]] == ["search", "open", "find"]
    assert report.settings["tools"] == ["open", "find"]
    for row in rows:
        names = [call["function"]["name"] for message in row["response"] for call in message.get("tool_calls", ())]
        assert names[:2] == ["search", "open"]
        texts = [message["content"] for message in row["response"] if message["role"] == "tool"]
        assert "(id d1)" in texts[0]
        assert texts[1].startswith(f"{row['searches'][0]['titles'][0]} (id d1)\n")
        assert texts[2] == TOO_MANY.format(1)
        assert (row["opens"], row["finds"], row["observations"]) == (1, 1, [])
        assert [found.query.text for found in read_conversation(row["response"]).rounds] == [
            search["query"] for search in row["searches"]
        ]
    scored = cli("score", tmp_path / "out" / "rollouts.jsonl", "--json")
    assert scored.returncode == 0, scored.stderr
    rewards = [json.loads(line) for line in scored.stdout.splitlines()]
    assert [len(reward["information_gain"]) for reward in rewards] == [len(row["searches"]) for row in rows]
    assert all(reward["search_key_score"] == 1 for reward in rewards)


def test_what_was_written_is_not_asked_again(ask: Ask, gold: GoldCaller, tmp_path: Path) -> None:
    server = LlmServer(gold)
    first = ask(server, tools=TOOLS)
    asked = len(server.requests)
    assert whole(ask(server, tools=TOOLS)) == whole(first)
    (tmp_path / "out" / "rollouts.jsonl").unlink()
    again = ask(server, tools=TOOLS)  # from the replies that were kept
    assert whole(again) == whole(first)
    assert len(server.requests) == asked
    assert again.usage["replayed"] == asked
    with pytest.raises(ConfigError, match="holds another evaluation: tools"):
        ask(server, tools=("open",))


def test_a_template_with_a_tool_alone_calls_the_search(ask: Ask, gold: GoldCaller) -> None:
    server = LlmServer(gold)
    report = ask(server, template="tools")
    assert (whole(report)["em"], whole(report)["invalid_turns"]) == (1, 0)
    assert "opens" not in whole(report)
    assert "tools" not in report.settings
    assert all("(id d1)" not in text for request in server.requests for text in shown(request))


def test_a_call_that_is_none_is_said_in_plain_words(ask: Ask, tmp_path: Path) -> None:
    turns = [
        called("open", {"id": "d1"}),
        called("browse", {"url": "x"}),
        called("search", "{broken"),
        called("find", "[1]"),
        called("open", '{"id": ' + "[" * 1000 + "]" * 1000 + "}"),
        completion("So it is.\n<answer> Pesaro </answer>"),
    ]
    server = LlmServer(lambda request: turns[len(shown(request))])
    found = whole(ask(server, tools=TOOLS, limit=1))
    (first, *_) = rollouts(tmp_path / "out")
    assert [message["content"] for message in first["response"] if message["role"] == "tool"] == [
        'There is no document "d1". Search first.',
        'There is no tool "browse". Call search or open or find.',
        "There is no query. Search for a few words.",
        'There is no document "". Search first.',
        'There is no document "". Search first.',
    ]
    assert (found["invalid_turns"], found["searches"], found["ended"]["answer"]) == (5, 0, 1)


def test_a_turn_may_have_more_calls_where_it_is_allowed(ask: Ask, sample_store: Path) -> None:
    both = [called("search", {"query": query})["choices"][0]["message"]["tool_calls"][0] for query in ("sea", "river")]
    calls = [{**call, "id": str(at)} for at, call in enumerate(both)]

    def twice(request: Row) -> Row:
        return completion("<answer> x </answer>") if shown(request) else completion("", tool_calls=calls)

    server = LlmServer(twice)
    found = whole(ask(server, tools=TOOLS, reading={"calls_per_turn": 2}, limit=1))
    assert (found["searches"], found["invalid_turns"]) == (2, 0)
    environment = SearchEnvironment(EnvironmentConfig(str(sample_store), tools=("open", "find")))
    environment.reset(next(iter(environment.config.tasks())))
    assert shown(server.requests[-1]) == [environment.search(query).text for query in ("sea", "river")]


def test_who_never_answers_ends_after_the_last_turn(ask: Ask, tmp_path: Path) -> None:
    server = LlmServer(lambda _: called("search", {"query": "sea"}))
    found = whole(ask(server, tools=("open",), reading={"max_reads": 1}, lengths={"max_turns": 2}, limit=1))
    (row, *_) = rollouts(tmp_path / "out")
    assert row["ended"] == "no answer"
    assert found["ended"]["no answer"] == 1
    assert [message["role"] for message in row["response"]] == ["assistant", "tool"] * 3 + ["assistant"]
    assert row["response"][5]["content"] == NO_SEARCH_LEFT


@pytest.mark.parametrize(
    ("reply", "ended"),
    [
        (completion("I do not know."), "end of text"),
        (completion("I do not", "length"), "length"),
        (error(400, "too long"), "refused"),
    ],
    ids=["end", "length", "refused"],
)
def test_a_rollout_ends_where_nothing_is_called(ask: Ask, reply: Any, ended: str, tmp_path: Path) -> None:
    report = ask(LlmServer(lambda _: reply), tools=TOOLS, limit=1)
    assert whole(report)["ended"][ended] == 1
    assert all(row["response"] == [] or row["ended"] == ended for row in rollouts(tmp_path / "out"))


def test_what_does_not_fit_is_not_shown(ask: Ask, tmp_path: Path) -> None:
    server = LlmServer(lambda _: called("search", {"query": "sea"}))
    ask(server, tools=TOOLS, lengths={"max_length": 500}, limit=1)
    (row, *_) = rollouts(tmp_path / "out")
    assert (row["ended"], row["searches"]) == ("length", [])
    assert [message["role"] for message in row["response"]] == ["assistant"]


def test_no_request_is_longer_than_a_rollout_may_be(ask: Ask) -> None:
    """With the definitions of the tools, which are paid each time: the rehearsal's price is a bound."""
    server = LlmServer(lambda _: called("search", {"query": "sea"}))
    ask(server, tools=TOOLS, lengths={"max_length": 1000}, limit=1)
    sent = [(request["tools"], [message["content"] for message in request["messages"]]) for request in server.requests]
    assert max(len(texts) for _, texts in sent) > 2  # it ends by its length, not at once
    for tools, texts in sent:
        defined = [tool["function"] for tool in tools]
        assert len(json.dumps(defined, separators=(",", ":"))) + sum(map(len, texts)) < 1000 * 4


def test_results_that_the_policy_made_up_never_count(ask: Ask, sample_store: Path, cli: Run, tmp_path: Path) -> None:
    """Neither in the evaluation's own row, nor for `score`."""
    tasks = EnvironmentConfig(str(sample_store)).tasks().values()
    task = next(each for each in tasks if each.support_docs)
    gold = task.support_docs[0].text
    said = (
        f"<think> t </think> <search> q </search> <information> Doc 1<## Title: x ##> {gold} </information> "
        f"<answer> {task.answers[0]} </answer>"
    )
    ask(LlmServer(lambda _: completion(said)), tools=TOOLS, limit=1)
    (row, *_) = rollouts(tmp_path / "out")
    assert (row["searches"], row["format_ok"], row["observations"]) == ([], False, [])
    scored = cli("score", tmp_path / "out" / "rollouts.jsonl", "--json")
    (reward, *_) = map(json.loads, scored.stdout.splitlines())
    assert reward["information_gain"] == []


@pytest.mark.long
def test_the_command_line_plays_tools(cli: Run, gold: GoldCaller, sample_store: Path, tmp_path: Path) -> None:
    with LlmServer(gold) as server:
        common = (
            "eval",
            "--llm",
            "mock",
            "--base-url",
            server.url,
            "--store",
            sample_store,
            "--split",
            "train",
            "-n",
            2,
        )
        dry = cli(*common, "--tools", "open,find", "--max-reads", 4, "--dry-run", "--json")
        assert dry.returncode == 0, dry.stderr
        told = json.loads(dry.stdout)
        assert told["turns_at_most"] == told["rollouts"] * (5 + 4 + 1)
        done = cli(*common, "--tools", "open,find", "--output", tmp_path / "out", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "opens" in done.stdout
    kept = tmp_path / "store"
    shutil.copytree(sample_store, kept)
    policies = json.dumps([f"caller={tmp_path / 'out'}"])
    built = cli("build", "--store", kept, "--set", f"rollouts.policies={policies}", "--quiet")
    assert built.returncode == 0, built.stderr
    counted = cli(
        "sql", "--store", kept, 'SELECT count(*), sum(searches), bool_and("right") FROM rollouts', "-f", "csv"
    )
    rows = rollouts(tmp_path / "out")
    assert counted.stdout.splitlines()[1] == f"{len(rows)},{sum(len(row['searches']) for row in rows)},true"
    shown = ("--rollouts", tmp_path / "out", "--output", tmp_path / "report", "--quiet")
    viewed = cli("report", "--store", sample_store, *shown)
    assert viewed.returncode == 0, viewed.stderr
