"""Questions that a writer makes of documents, some with a fault: which check finds each, through the command line."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.composer import writing
from tests.faults import FAULTS, GOOD, OF_REPLIES, make
from tests.llm_server import LlmServer
from tests.proof import ComposedQuestions, Writer
from tests.reader import Reader

EACH = 10
STOPPED_BY = {  # a check of `verify`; "faulty" and "repeated" by a check of `compose`, "unreadable" as a reject
    "wrong_bridge": {"answerable"},
    "ambiguous_relation": {"unique"},
    "ambiguous_bridge": {"unique"},
    "answer_leak": {"faulty"},
    "bridge_leak": {"faulty"},
    "closed_book": {"closed_book"},
    "one_paragraph": {"one_paragraph"},
    "gold_silent": {"answerable"},
    "wrong_answer": {"answerable"},
    "unverbatim": {"faulty"},
    "cut_off": {"unreadable"},
    "repeated": {"repeated", "answerable"},  # the one that comes later repeats the other one
    GOOD: {None},
}


@pytest.mark.long
def test_every_fault_is_found_and_no_good_question_is_lost(tmp_path: Path) -> None:
    assert STOPPED_BY.keys() == {*FAULTS, *OF_REPLIES, GOOD}
    questions = make(good=3 * EACH, each=EACH, composed=True)
    with LlmServer(writing(Reader(questions.known), Writer(questions)), keep=False) as server:
        world = ComposedQuestions(tmp_path, server, questions)
        done = world.build("--set", "verify.samples=1")
        assert done.returncode == 3, done.stderr  # replies that were cut off are rejects
        outcomes = world.outcomes()
    assert outcomes.keys() == {row["id"] for of in questions.rows.values() for row in of}  # each chain was drawn
    found = defaultdict(set)
    for question, stopped_by in outcomes.items():
        found[question.partition("__")[0]].add(stopped_by)
    assert found == STOPPED_BY
    (left,) = world.rows("SELECT count(*) AS n FROM rejects WHERE stage = 'compose'")
    assert left == {"n": EACH}
