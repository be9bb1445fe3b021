"""`compose` with a model, through the command line: documents of a world, and a writer that parses prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import rows
from tests.batch_api import BatchApi
from tests.composer import SKIPPED, is_about_a_chain, write_documents, writing
from tests.fake import Fault
from tests.llm_server import LlmServer
from tests.model_builds import PRICE, ModelBuilds, counted
from tests.reader import Reader
from tests.tree import tree

MODELS = ("--set", "compose.llm=mock", "--set", "verify.llm=mock", "--set", "verify.samples=1")
CHAINS = 30
NEW = [
    ("Quillon Works", "Alda Vexley", "Marrowick"),
    ("Thistle Yards", "Bram Okonjo", "Felstone"),
    ("Umber Foundry", "Cora Lindqvist", "Harrowgate"),
]
"""Firms, their founders, and where these were born: documents that come later."""


class World(ModelBuilds):
    """Builds of a world's documents, up to the questions that have passed."""

    def __init__(self, folder: Path, server: LlmServer) -> None:
        source = f"corpus={folder / 'docs.jsonl'}"
        drawn = ("--set", f"mine.questions={CHAINS}", "--to", "gather")
        super().__init__(folder, server, "--source", source, *MODELS, *drawn)
        write_documents(folder / "docs.jsonl", 20)

    def composed(self, store: Path | None = None) -> dict[str, str]:
        """What came of each chain."""
        return {row["chain_id"]: row["status"] for row in self.rows("SELECT chain_id, status FROM composed", store)}

    def asked(self) -> list[dict[str, Any]]:
        """The requests for a question of a chain, without repairs."""
        return [each for each in self.server.requests if is_about_a_chain(each) and len(each["messages"]) == 2]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with LlmServer(counted(writing(Reader()))) as server:
        yield World(tmp_path, server)


def test_documents_become_questions_that_the_reader_can_prove(world: World) -> None:
    done = world.build()
    assert done.returncode == 0, done.stderr
    status = [*world.composed().values()]
    assert len(status) == CHAINS
    assert status.count("kept") >= 15
    assert world.rows("SELECT count(*) AS n FROM rejects") == [{"n": 0}]  # attrition is no fault
    passed = world.rows("SELECT question_id FROM verdicts WHERE passed ORDER BY question_id")
    assert passed == world.rows("SELECT question_id FROM questions ORDER BY question_id")
    assert len(passed) == status.count("kept")  # with an exact writer and reader
    assert world.rows("SELECT count(*) AS n FROM questions WHERE len(notes) > 0") == [{"n": 0}]
    (hops,) = world.rows("SELECT max(hops) AS most, bool_and(len(decomposition) = hops) AS whole FROM questions")
    assert hops == {"most": 4, "whole": True}


def test_pairs_are_compared(world: World) -> None:
    world.given = ("--source", "corpus=sample", *MODELS, "--to", "compose")
    done = world.build()
    assert done.returncode == 0, done.stderr
    compared = "SELECT * FROM composed WHERE question_type = 'comparison' AND question LIKE 'Who%'"
    found = world.rows(compared)
    assert len(found) >= 5
    for row in found:
        earlier, later = sorted(row["decomposition"], key=lambda step: step["answer"])
        titles = {passage["passage_id"]: passage["title"] for passage in row["supporting"]}
        assert (row["status"], row["answer"]) == ("kept", titles[earlier["passage_id"]])
        assert titles[later["passage_id"]] in row["question"]


def test_a_second_build_and_another_rule_send_nothing(world: World) -> None:
    sent = world.sent_by_builds()
    other = world.build("--set", "decide.gates=[]")
    assert other.returncode == 0, other.stderr
    assert "compose       current" in other.stderr
    assert len(world.server.requests) == sent


@pytest.mark.long  # tests/test_llm_build.py kills a build in each run
def test_kill_9_in_the_middle_sends_little_again(world: World) -> None:
    command = ("--max-concurrency", "2")
    world.kill_after(25, *command)
    assert "composed" not in world.tables()
    done = world.build(*command)
    assert done.returncode == 0, done.stderr
    assert {*world.composed().values()} >= {"kept", "faulty"}
    assert world.sent_again() <= world.lost_at_most(2) < 25


@pytest.mark.long
def test_more_documents_ask_about_new_chains_only(world: World) -> None:
    assert world.build().returncode == 0
    before, sent = world.composed(), len(world.asked())
    with (world.folder / "docs.jsonl").open("a") as file:
        for firm, founder, town in NEW:
            for title, text in (
                (firm, f"{firm} was founded by {founder}, the founder and first director of the firm."),
                (founder, f"{founder} was born in the city of {town}, the recorded place of birth."),
            ):
                file.write(json.dumps({"title": title, "text": text}) + "\n")
    done = world.build("--set", "mine.questions=1000")
    assert done.returncode == 0, done.stderr
    after = world.composed()
    stayed = before.keys() & after.keys()  # a new chain may take another one's place
    assert len(stayed) > CHAINS / 2
    assert [after[chain] for chain in stayed] == [before[chain] for chain in stayed]
    assert len(world.asked()) - sent == len(after) - len(stayed)
    assert world.sent_again() == 0
    kept = world.rows("SELECT supporting FROM composed WHERE status = 'kept'")
    found = [[passage["title"] for passage in row["supporting"]] for row in kept]
    assert [[firm, founder] in found for firm, founder, _ in NEW] == [True] * len(NEW)


def test_a_budget_stops_inside_and_leaves_whole_rows(world: World) -> None:
    stopped = world.build(*PRICE, "--max-cost", "0.01", "--max-concurrency", "2")
    assert stopped.returncode == 4, stopped.stderr
    assert "the budget of $0.01 is reached" in stopped.stderr
    assert "chains" in world.tables()
    assert "composed" not in world.tables()
    assert 5 < len(world.asked()) < CHAINS
    done = world.build(*PRICE, "--max-cost", "10")
    assert done.returncode == 0, done.stderr
    assert world.sent_again() == 0
    assert len(world.composed()) == CHAINS


def test_a_dry_run_tells_bounds_that_hold_the_bill(world: World) -> None:
    later = ("--to", "queries", "--llm", "mock")
    told = world.build(*PRICE, *later, "--dry-run", "--json")
    assert told.returncode == 0, told.stderr
    estimates = {stage["stage"]: stage["estimate"] for stage in json.loads(told.stdout) if stage["estimate"]}
    assert world.server.requests == []
    assert not world.store.exists()
    assert world.build(*PRICE).returncode == 0
    bills = world.rows("SELECT stage, count(*) AS calls, sum(cost) AS cost FROM llm_calls GROUP BY stage")
    assert {bill["stage"] for bill in bills} == {"compose", "verify"}
    for bill in bills:
        least, most = estimates[bill["stage"]], estimates[bill["stage"]]["most"]
        assert least["calls"] <= bill["calls"] <= most["calls"]
        assert least["cost"] <= bill["cost"] <= most["cost"]
    assert (estimates["compose"]["calls"], estimates["compose"]["most"]["calls"]) == (CHAINS, 3 * CHAINS)
    assert estimates["decompose"]["calls"] == 0  # composed questions have their hops
    exact = json.loads(world.build(*PRICE, *later, "--dry-run", "--json").stdout)
    (queries,) = [stage["estimate"] for stage in exact if stage["stage"] == "queries"]
    assert (queries["most"], queries["calls"] > 0) == (None, True)
    assert 0 == estimates["queries"]["calls"] < queries["calls"] <= estimates["queries"]["most"]["calls"]
    again = world.build(*PRICE, "--dry-run", store=world.folder / "other").stdout
    assert "Estimate. Only 'compose, at most' counts repairs." in again


def test_a_dry_run_knows_the_questions_of_templates(world: World) -> None:
    told = world.build("--set", "compose.llm=offline", "--dry-run", "--json")
    assert told.returncode == 0, told.stderr
    estimates = {stage["stage"]: stage["estimate"] for stage in json.loads(told.stdout) if stage["estimate"]}
    assert estimates.keys() == {"verify"}
    assert 0 == estimates["verify"]["calls"] < estimates["verify"]["most"]["calls"]
    assert not world.store.exists()


@pytest.mark.long
def test_a_batch_gives_the_same_rows(world: World) -> None:
    assert world.build().returncode == 0
    BatchApi(world.server)
    other = world.folder / "batch"
    batch = ("--llm-mode", "batch", "--set", "llm.batch_poll=0.01")
    done = world.build(*batch, store=other, XDG_CACHE_HOME=str(world.folder / "empty"))
    assert done.returncode == 0, done.stderr
    assert tree(other / "stages") == tree(world.store / "stages")
    batched = "SELECT count(*) AS n FROM llm_calls WHERE batch AND stage = 'compose'"
    assert world.rows(batched, other)[0]["n"] == CHAINS - 1  # one is tried online


@pytest.mark.long
def test_a_reply_that_cannot_be_read_is_a_reject_that_is_tried_again(world: World) -> None:
    reads, broken = world.server.answer, [0]

    def answer(request: dict[str, Any]) -> Any:
        if is_about_a_chain(request) and broken[0] < 3:
            broken[0] += 1
            return '{"skip": '
        return reads(request)

    world.server.answer = answer
    done = world.build("--max-concurrency", "1")
    assert done.returncode == 3, done.stderr
    (reject,) = world.rows("SELECT stage, source, question_id, reason FROM rejects")
    assert (reject["stage"], reject["source"]) == ("compose", "corpus")
    assert "(after 3 replies)" in reject["reason"]
    assert len(world.composed()) == CHAINS - 1
    sent = len(world.asked())
    again = world.run("retry-failed", "--store", world.store)
    assert again.returncode == 0, again.stderr
    assert "trying 1 questions again" in again.stderr
    assert (len(world.composed()), len(world.asked()) - sent) == (CHAINS, 1)


def test_a_writer_that_skips_all_or_cannot_be_read_ends_as_said(world: World) -> None:
    world.server.answer = lambda _: json.dumps(SKIPPED)
    done = world.build()
    assert done.returncode == 0, done.stderr
    assert {*world.composed().values()} == {"skipped"}
    assert world.rows("SELECT count(*) AS n FROM questions") == [{"n": 0}]
    world.server.answer = lambda _: "I'd rather not."
    stopped = world.build(store=world.folder / "other", XDG_CACHE_HOME=str(world.folder / "empty"))
    assert stopped.returncode == 1
    assert "compose: 30 of 30 rows of corpus were rejected" in stopped.stderr
    assert "max_reject_share" in stopped.stderr


def test_an_error_of_the_server_rejects_that_chain_alone(world: World) -> None:
    reads = world.server.answer

    def answer(request: dict[str, Any]) -> Any:
        refused = is_about_a_chain(request) and request == world.asked()[0]
        return Fault(400, b'{"error": {"message": "no"}}') if refused else reads(request)

    world.server.answer = answer
    assert world.build("--max-concurrency", "1").returncode == 3
    assert len(world.composed()) == CHAINS - 1


def test_without_documents_nothing_is_asked_and_with_some_nothing_is_asked_again(world: World) -> None:
    questions = rows.write_lines(world.folder / "questions.jsonl", [rows.musique(f"2hop__{n}_{n}") for n in range(3)])
    source = f"musique={questions}"
    world.given = ("--source", source, *MODELS, "--to", "gather")
    assert world.build().returncode == 0
    assert world.asked() == []
    sent = len(world.server.requests)
    alone = {
        name: table.read_bytes() for name in ("loaded", "questions") for table in world.store.rglob(f"{name}.parquet")
    }
    assert alone["loaded"] == alone["questions"]
    assert sent > 0
    world.given = (*world.given, "--source", f"corpus={world.folder / 'docs.jsonl'}", "--set", "mine.questions=2")
    both = world.build()
    assert both.returncode == 0, both.stderr
    assert world.sent_again() == 0
    old = world.rows("SELECT * FROM questions WHERE source = 'musique'")
    assert [row["question_id"] for row in old] == [f"2hop__{n}_{n}" for n in range(3)]
    assert len(world.asked()) == 2
