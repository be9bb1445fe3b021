from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from stepsearch_data.pipeline.questions import QuestionRows
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.lookup import Lookup
from stepsearch_data.report.records import record, records
from stepsearch_data.report.shapes import Record
from stepsearch_data.schemas.rows import RetrievedDocument, Trajectory
from stepsearch_data.schemas.tables import HITS, QUERIES, ROUNDS, TRAJECTORIES, Table
from stepsearch_data.sql import connect
from stepsearch_data.templates.examples import Paragraph
from tests.builders import hit, query, question, search_round
from tests.report.holds import check


@pytest.fixture(scope="module")
def found(rich: Store) -> list[Record]:
    return list(records(rich, rich.manifest()))


def select(store: Store, sql: str) -> list[tuple[Any, ...]]:
    with connect(store, store.manifest()) as connection:
        return connection.execute(sql).fetchall()


def test_every_trajectory_is_a_record_in_the_order_of_the_store(rich: Store, found: list[Record]) -> None:
    for each in found:
        check(each, Record)
    assert [each["id"] for each in found] == [row[0] for row in select(rich, "SELECT question_id FROM trajectories")]


def test_segments_are_the_rollout(rich: Store, found: list[Record]) -> None:
    rollouts = dict(select(rich, "SELECT question_id, rollout FROM trajectories"))
    for each in found:
        tagged = "".join(f"<{part['kind']}>{part['text']}</{part['kind']}>" for part in each["segments"])
        assert "".join(tagged.split()) == "".join(rollouts[each["id"]].split())


def test_searches_and_results_belong_to_their_rounds(found: list[Record]) -> None:
    for each in found:
        searches = [part for part in each["segments"] if part["kind"] == "search"]
        results = [part for part in each["segments"] if part["kind"] == "information"]
        assert [part["round"] for part in searches] == [part["round"] for part in results] == [*range(len(searches))]
        for step, search, result in zip(each["rounds"], searches, results, strict=True):
            assert search["text"] == step["query"]
            assert all(document["text"].strip() in result["text"] for document in step["documents"])


def test_gold_documents_are_supporting_paragraphs(found: list[Record]) -> None:
    shown = [(each, document) for each in found for step in each["rounds"] for document in step["documents"]]
    gold = [(each, document) for each, document in shown if document["gold"]]
    assert len(shown) > len(gold) > 100
    assert all((document["title"], document["text"]) in each["gold"] for each, document in gold)


def test_rejected_queries_stand_beside_the_kept_ones_with_their_engine_votes(rich: Store, found: list[Record]) -> None:
    hops = {(each["id"], step["hop"]): step for each in found for step in each["rounds"] if step["role"] == "gold"}
    verdicts = Counter(said["verdict"] for step in hops.values() for said in step["queries"])
    ((kept, dropped),) = select(
        rich,
        """SELECT count(*) FILTER (kept), count(*) FILTER (NOT kept) FROM queries
           WHERE (question_id, hop) IN (SELECT (question_id, hop) FROM rounds WHERE role = 'gold')""",
    )
    chosen_unkept = sum(not step["kept"] for step in hops.values())
    assert verdicts["kept"] + verdicts["chosen"] - chosen_unkept == kept
    assert verdicts["rejected"] + chosen_unkept == dropped > 0
    for step in hops.values():
        first, *others = step["queries"]
        assert (first["verdict"], first["query"]) == ("chosen", step["query"])
        assert all(other["verdict"] != "chosen" for other in others)
        assert all(
            [vote["engine"] for vote in said["engine_votes"]] == ["bm25", "chargram"] for said in step["queries"]
        )


def test_searches_that_find_nothing_and_abstentions_are_told(found: list[Record]) -> None:
    roles = Counter(step["role"] for each in found for step in each["rounds"])
    assert roles["distractor"] > 0
    assert roles["abstain"] == sum(not each["answerable"] for each in found) == 4


def test_a_question_is_found_by_id_as_it_is_read_in_order(rich: Store, found: list[Record]) -> None:
    lookup = Lookup(rich, rich.manifest())
    assert [lookup.find(each["id"]) for each in found] == found
    assert lookup.find("no such question") is None


def test_a_trajectory_is_shown_before_votes_and_gates() -> None:
    rows = some_rows()
    shown = record(rows, lambda document: Paragraph(document.title, document.text or ""))
    check(shown, Record)
    assert shown["passed"] is None
    assert shown["split"] == shown["difficulty"] == ""
    assert [said["verdict"] for said in shown["rounds"][0]["queries"]] == ["chosen", "not voted"]


def test_documents_from_elsewhere_have_their_address() -> None:
    rows = some_rows()
    (document,) = record(rows, lambda each: Paragraph(each.title, each.text or ""))["rounds"][0]["documents"]
    assert (document["title"], document["url"]) == ("Pesaro", "https://example.org/pesaro")


def test_a_text_that_breaks_its_tags_is_still_shown_whole() -> None:
    broken = "<think> why </think> stray <search> one </search> <information> a </information> </information> end"
    parts = record(some_rows(broken), lambda each: Paragraph(each.title, each.text or ""))["segments"]
    assert [(part["kind"], part["text"], part["round"]) for part in parts] == [
        ("think", "why", None),
        ("text", "stray", None),
        ("search", "one", 0),
        ("information", "a", 0),
        ("text", "</information> end", None),
    ]


def test_a_search_that_is_not_closed_is_no_round() -> None:
    broken = "<search> lost <search> one </search> <information> a </information>"
    parts = record(some_rows(broken), lambda each: Paragraph(each.title, each.text or ""))["segments"]
    assert [(part["kind"], part["text"], part["round"]) for part in parts] == [
        ("text", "<search> lost", None),
        ("search", "one", 0),
        ("information", "a", 0),
    ]


def some_rows(rollout: str = "<search> query 1 of hop 1 </search>") -> QuestionRows:
    """A question whose only round shows a page of the web."""
    chosen, other = query(1), query(2)
    page = RetrievedDocument(
        rank=1, passage_id=None, title="Pesaro", text="A port.", score=1.0, engine="brave", is_gold=False
    )
    whole = Trajectory(
        question_id="q1",
        source="musique",
        question_type="2hop",
        question="Where?",
        answer="Pesaro",
        answer_aliases=[],
        hops=1,
        complete=False,
        answerable=True,
        rollout=rollout,
        key_reward=1.0,
        answer_reward=1.0,
    )
    found = hit(chosen, 1, None, engine="brave", title="Pesaro", text="A port.", url="https://example.org/pesaro")
    related: dict[Table[Any], list[Any]] = {
        TRAJECTORIES: [whole],
        ROUNDS: [search_round(chosen, documents=[page])],
        QUERIES: [other, chosen],
        HITS: [hit(other, 1, None, engine="brave", url="https://example.org/other"), found],
    }
    return QuestionRows(question(), related)
