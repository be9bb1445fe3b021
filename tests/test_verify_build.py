"""`verify` with a model, through the command line: questions with known faults, and a reader that parses prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.batch_api import BatchApi
from tests.fake import Fault
from tests.faults import FAULTS, GOOD, Questions, make
from tests.llm_server import LlmServer
from tests.model_builds import PRICE, counted
from tests.proof import GivenQuestions
from tests.reader import Reader
from tests.tree import tree


@pytest.fixture(scope="module")
def questions() -> Questions:
    return make(good=6, each=1)


@pytest.fixture
def world(tmp_path: Path, questions: Questions) -> Iterator[GivenQuestions]:
    with LlmServer(counted(Reader(questions.known))) as server:
        yield GivenQuestions(tmp_path, server, questions)


CAUGHT_BY = {
    "wrong_bridge": "answerable",
    "ambiguous_relation": "unique",
    "ambiguous_bridge": "unique",
    "answer_leak": "answer_named",
    "bridge_leak": "bridge_named",
    "closed_book": "closed_book",
    "one_paragraph": "one_paragraph",
    "gold_silent": "answerable",
    "wrong_answer": "answerable",
}


def test_every_fault_is_caught_by_its_check_and_no_good_question(world: GivenQuestions) -> None:
    assert CAUGHT_BY.keys() == FAULTS.keys()
    done = world.build()
    assert done.returncode == 0, done.stderr
    found = world.outcomes()
    assert {name: found[f"{name}__0"] for name in CAUGHT_BY} == CAUGHT_BY
    assert [found[row["id"]] for row in world.questions.rows[GOOD]] == [None] * 6


def test_readings_alone_find_what_signals_find(world: GivenQuestions) -> None:
    alone = '["closed_book", "answerable", "left_one_out", "unique"]'
    done = world.build("--set", f"verify.stop={alone}", "--set", f"decide.gates={alone}")
    assert done.returncode == 0, done.stderr
    found = world.outcomes()
    assert found["one_paragraph__0"] == found["bridge_leak__0"] == "left_one_out"
    assert [found[row["id"]] for row in world.questions.rows[GOOD]] == [None] * 6


@pytest.mark.long
def test_a_second_build_and_another_rule_send_nothing(world: GivenQuestions) -> None:
    sent = world.sent_by_builds()
    strict = world.build("--set", "decide.need=3")
    assert strict.returncode == 0, strict.stderr
    assert len(world.server.requests) == sent
    assert "verify        current" in strict.stderr
    assert [world.outcomes()[row["id"]] for row in world.questions.rows[GOOD]] == [None] * 6


@pytest.mark.long  # tests/test_llm_build.py kills a build in each run
def test_kill_9_in_the_middle_sends_little_again(world: GivenQuestions) -> None:
    command = ("--max-concurrency", "4", "--set", "verify.samples=5")
    world.kill_after(60, *command)
    done = world.build(*command)
    assert done.returncode == 0, done.stderr
    assert len(world.server.requests) > 150
    assert world.sent_again() <= world.lost_at_most(4) < 60


def test_a_budget_stops_inside_and_leaves_whole_verdicts(world: GivenQuestions) -> None:
    stopped = world.build(*PRICE, "--max-cost", "0.01", "--max-concurrency", "2")
    assert stopped.returncode == 4, stopped.stderr
    assert "the budget of $0.01 is reached" in stopped.stderr
    assert "verdicts" not in world.tables()
    sent = len(world.server.requests)
    assert sent > 10
    done = world.build(*PRICE, "--max-cost", "10")
    assert done.returncode == 0, done.stderr
    assert world.sent_again() == 0
    assert world.rows("SELECT count(*) AS n FROM verdicts WHERE complete") == [{"n": 15}]


def test_a_dry_run_tells_bounds_that_hold_the_bill(world: GivenQuestions) -> None:
    told = world.build(*PRICE, "--dry-run", "--json")
    assert told.returncode == 0, told.stderr
    least = next(stage["estimate"] for stage in json.loads(told.stdout) if stage["stage"] == "verify")
    most = least["most"]
    assert world.server.requests == []
    assert world.build(*PRICE).returncode == 0
    (bill,) = world.rows("SELECT count(*) AS calls, sum(cost) AS cost FROM llm_calls")
    assert least["calls"] <= bill["calls"] <= most["calls"]
    assert least["cost"] <= bill["cost"] <= most["cost"]
    lines = world.build(*PRICE, "--dry-run", store=world.folder / "other").stdout
    assert "verify, at least" in lines
    assert "verify, at most" in lines


@pytest.mark.long
def test_a_batch_gives_the_same_rows(world: GivenQuestions) -> None:
    assert world.build().returncode == 0
    BatchApi(world.server)
    other = world.folder / "batch"
    batch = ("--llm-mode", "batch", "--set", "llm.batch_poll=0.01")
    done = world.build(*batch, store=other, XDG_CACHE_HOME=str(world.folder / "empty"))
    assert done.returncode == 0, done.stderr
    assert tree(other / "stages") == tree(world.store / "stages")
    assert world.rows("SELECT count(*) AS n FROM llm_calls WHERE batch", other)[0]["n"] > 100


def test_a_model_that_refuses_one_question_rejects_it_alone(world: GivenQuestions) -> None:
    refused = world.questions.rows[GOOD][0]
    reads = world.server.answer

    def answer(request: dict[str, Any]) -> Any:
        return Fault(400, b'{"error": {"message": "no"}}') if refused["question"] in str(request) else reads(request)

    world.server.answer = answer
    done = world.build()
    assert done.returncode == 3, done.stderr
    assert [row["question_id"] for row in world.rows("SELECT question_id FROM rejects")] == [refused["id"]]
    assert refused["id"] not in world.outcomes()


def test_no_unanswerable_twin_takes_the_place_of_a_question_that_is_drawn(world: GivenQuestions) -> None:
    file = world.folder / "questions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    twins = [row | {"id": f"{row['id']}_{n}", "answerable": False} for row in rows for n in range(5)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in (*rows, *twins)))
    done = world.build("--set", "verify.sample_all=1", "--set", "verify.samples=1", "--set", "verify.sample=4")
    assert done.returncode == 0, done.stderr
    (counts,) = world.rows("SELECT count(DISTINCT question_id) AS n FROM checks WHERE \"check\" = 'unique'")
    assert counts == {"n": 4}


def test_a_few_may_be_drawn_and_go_through_all_checks(world: GivenQuestions) -> None:
    done = world.build("--set", "verify.sample_all=1", "--set", "verify.samples=1", "--set", "verify.sample=4")
    assert done.returncode == 0, done.stderr
    assert world.rows("SELECT count(*) AS n FROM checks WHERE outcome = 'unasked'") == [{"n": 0}]
    (counts,) = world.rows("SELECT count(DISTINCT question_id) AS n FROM checks WHERE \"check\" = 'unique'")
    assert counts == {"n": 4}
    assert world.rows("SELECT count(*) AS n FROM verdicts") == [{"n": 15}]
