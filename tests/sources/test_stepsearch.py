"""The StepSearch release's rows, as its dataset and its training file hold them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.core.text import normalise
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources import stepsearch as module
from stepsearch_data.sources.asked import parse_asked
from stepsearch_data.sources.record import Record
from stepsearch_data.stages.rules import decompose
from tests.rows import COMPOSER, OPERA, QUESTION, Row, line, stepsearch, stepsearch_training


def parse(row: Row) -> Question:
    question, paragraphs = module.parse(Record(7, line(row)))
    assert question
    assert [p.passage_id for p in paragraphs] == question.paragraph_ids
    return question


def test_each_paragraph_brings_its_queries() -> None:
    question = parse(stepsearch(4, answer_aliases=["Pisaurum"]))
    assert (question.question_id, question.position, question.hops) == ("4", 7, 2)
    assert (question.answer, question.answer_aliases) == ("Pesaro", ["Pisaurum"])
    assert [(p.title, p.text) for p in question.supporting] == [OPERA, COMPOSER]
    assert [p.queries for p in question.supporting] == stepsearch(4)["sub_searchs"]


def test_sub_questions_that_share_a_paragraph_share_its_queries() -> None:
    row = stepsearch("a")
    row["sub_support_docs"].append(row["sub_support_docs"][0])
    row["sub_searchs"].append(["opera", " ", row["sub_searchs"][0][0]])
    question = parse(row)
    assert [p.queries for p in question.supporting] == [[*row["sub_searchs"][0], "opera"], row["sub_searchs"][1]]


def test_the_training_file_holds_the_same() -> None:
    question, trained = parse(stepsearch("musi_train_3")), parse(stepsearch_training(3))
    assert trained == question
    assert trained.question == QUESTION
    assert parse(stepsearch_training(3, target=["Pesaro", "Pisaurum"])).answer_aliases == ["Pisaurum"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": [{"role": "user", "content": "Who?"}]}, "the prompt holds no 'Question:'"),
        ({"prompt": []}, "not as the authors' scripts write it"),
        ({"reward_model": {"ground_truth": {"target": []}}}, "not as the authors' scripts write it"),
        ({"reward_model": "rule"}, "not as the authors' scripts write it"),
        ({"extra_info": {"split": "test", "index": 3, "support_docs": []}}, "sub_support_docs is empty"),
    ],
)
def test_a_training_row_that_does_not_hold_enough(change: Row, reason: str) -> None:
    with pytest.raises(RowRejected, match=reason):
        parse(stepsearch_training(3) | change)


def test_a_test_row_is_asked_though_nothing_can_be_built_of_it() -> None:
    row = stepsearch_training(3, search_keys=[])
    row["extra_info"]["support_docs"] = []
    question = parse_asked("stepsearch", Record(1, line(row)))
    assert question
    assert (question.question_id, question.question, question.answer) == ("musi_train_3", QUESTION, "Pesaro")
    assert question.supporting == []


@pytest.mark.parametrize(
    ("query", "found", "template"),
    [
        ("Rossini's birthplace", "Rossini", "#1's birthplace"),
        ("birthplace of Gioachino Rossini, composer", "Gioachino Rossini", "birthplace of #1, composer"),
        ("birthplace", "Gioachino Rossini", "birthplace"),  # the next paragraph's title
        ("the opera in Seville", "Gioachino Rossini", "the opera in Seville"),  # words that were known before
    ],
)
def test_hops_are_read_off_the_queries(query: str, found: str, template: str) -> None:
    first, second = decompose(parse(stepsearch("a", sub_searchs=[["opera composer", "who composed it"], [query]])))
    assert (first.sub_question, first.sub_answer, first.method) == ("opera composer", found, "queries")
    assert (second.sub_question, second.template, second.sub_answer) == (query, template, "Pesaro")
    assert second.depends_on == ([1] if "#1" in template else [])


def test_a_paragraph_that_hands_nothing_on_says_all_of_it() -> None:
    row = stepsearch("a", sub_searchs=[["opera"], ["birthplace"]])
    row["sub_support_docs"][0]["paragraph_text"] = "An opera."
    assert decompose(parse(row))[0].sub_answer == "An opera."


def as_reference(row: Row) -> Row:
    """A MuSiQue row as the authors' dataset would hold it: queries that say earlier answers, as its own do."""
    steps = row["question_decomposition"]
    paragraphs = {p["idx"]: p for p in row["paragraphs"]}
    queries = []
    for step in steps:
        query = step["question"].replace(">>", "")
        for number, earlier in enumerate(steps, start=1):
            query = query.replace(f"#{number}", earlier["answer"])
        queries.append([query])
    documents = [paragraphs[step["paragraph_support_idx"]] for step in steps]
    return stepsearch(
        row["id"],
        question=row["question"],
        final_answer=row["answer"],
        sub_searchs=queries,
        sub_support_docs=documents,
    )


def test_most_answers_of_real_hops_are_found_again(shared_data: Path) -> None:
    lines = (shared_data / "musique_ans_dev.sample.jsonl").read_text(encoding="utf-8").splitlines()
    right = of = 0
    for row in map(json.loads, lines):
        golds = [step["answer"] for step in row["question_decomposition"]]
        hops = decompose(parse(as_reference(row)))
        assert len(hops) == len(golds)
        for hop, gold in list(zip(hops, golds, strict=True))[:-1]:
            said, wanted = set(normalise(hop.sub_answer).split()), set(normalise(gold).split())
            right += len(said & wanted) >= len(said | wanted) / 2
            of += 1
    assert of == 160
    assert right / of > 0.75
