from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from stepsearch_data.core.errors import QueryError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.facts import rejecting
from stepsearch_data.report.listing import COLUMNS, facets, find, make_listing, read_index, read_texts
from stepsearch_data.report.records import records
from stepsearch_data.report.shapes import Facets, Index
from stepsearch_data.report.tables import open_tables
from tests.report.holds import check

if TYPE_CHECKING:
    import duckdb


@pytest.fixture(scope="module")
def connection(rich: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_tables(rich, rich.manifest()) as opened:
        make_listing(opened, rejecting(rich.manifest()))
        yield opened


@pytest.fixture(scope="module")
def rows(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    index: Any = read_index(connection, 100)
    check(index, Index)
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*(index[name] for name in COLUMNS), strict=True)]


@pytest.fixture(scope="module")
def texts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return read_texts(connection)


def test_a_row_says_what_its_record_says(rich: Store, rows: list[dict[str, Any]]) -> None:
    wholes: list[Any] = list(records(rich, rich.manifest()))
    shared = COLUMNS[: COLUMNS.index("queries")]
    assert [[row[name] for name in shared] for row in rows] == [[whole[name] for name in shared] for whole in wholes]
    for row, whole in zip(rows, wholes, strict=True):
        for name in ("gain", "redundancy", "reward"):
            assert row[name] == pytest.approx(sum(step[name] for step in whole["rounds"]), abs=1e-4)
        if all(step["role"] == "gold" for step in whole["rounds"]):
            queries = [query for step in whole["rounds"] for query in step["queries"]]
            assert row["queries"] == len(queries)
            chosen_kept = sum(step["kept"] for step in whole["rounds"])
            assert row["kept"] == chosen_kept + sum(query["verdict"] == "kept" for query in queries)


FILTERS: list[tuple[dict[str, list[str]], Any]] = [
    ({}, lambda row: row),
    ({"source": ["musique"]}, lambda row: row["source"] == "musique"),
    ({"hops": ["3", "4"]}, lambda row: row["hops"] in {3, 4}),
    ({"split": [""]}, lambda row: row["split"] == ""),
    ({"passed": ["true"], "source": ["hotpotqa"]}, lambda row: row["passed"] and row["source"] == "hotpotqa"),
    ({"complete": ["false"]}, lambda row: not row["complete"]),
    ({"answerable": ["false"]}, lambda row: not row["answerable"]),
    ({"difficulty": ["easy", "hard"]}, lambda row: row["difficulty"] in {"easy", "hard"}),
    ({"disagree": ["true"]}, lambda row: row["disagree"]),
    ({"rejected_by": ["gold_not_shown", "leak"]}, lambda row: row["rejected_by"] in {"gold_not_shown", "leak"}),
    ({"flags": ["gold_not_shown", "leak"]}, lambda row: {"gold_not_shown", "leak"} & set(row["flags"])),
    ({"reward_min": ["0.5"], "reward_max": ["0.8"]}, lambda row: 0.5 <= row["reward"] <= 0.8),
    ({"share_max": ["0.99"]}, lambda row: row["kept"] / row["queries"] <= 0.99),
    ({"text": ["BORN the"]}, lambda row: all(word in words(row) for word in ("born", "the"))),
    ({"words_below": ["300"]}, lambda row: row["words"] < 300),
    ({"text": ["100%_'; DROP TABLE listing"]}, lambda row: "drop table" in words(row)),
]


def words(row: dict[str, Any]) -> str:
    return f"{row['question']} {row['answer']} {row['id']} {row['texts']}".lower()


def test_sub_questions_queries_and_titles_are_searched_each_once(rich: Store, texts: list[str]) -> None:
    for record, lines in zip(records(rich, rich.manifest()), texts, strict=True):
        steps = record["rounds"]
        searched = [step["sub_question"] for step in steps]
        searched += [query["query"] for step in steps for query in step["queries"]]
        searched += [document["title"] for step in steps for document in step["documents"]]
        found = lines.split("\n")
        assert set(searched) <= set(found)
        assert len(found) == len(set(found))


@pytest.mark.parametrize(("asked", "fits"), FILTERS, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_filters_keep_what_fits(
    connection: duckdb.DuckDBPyConnection,
    rows: list[dict[str, Any]],
    texts: list[str],
    asked: dict[str, list[str]],
    fits: Any,
) -> None:
    shown = [{**row, "texts": text} for row, text in zip(rows, texts, strict=True)] if "text" in asked else rows
    expected = [row for row in shown if fits(row)]
    page = find(connection, {**asked, "limit": ["500"]})
    assert (page.total, page.rows) == (len(expected), expected)
    assert len(expected) < len(rows) or not asked


def test_every_facet_is_a_filter_that_finds_something(
    connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]
) -> None:
    offered: Any = facets(connection)
    check(offered, Facets)
    for name, values in offered.items():
        totals = [find(connection, {name: [str(value)]}).total for value in values]
        assert all(totals)
        if name != "flags":
            assert sum(totals) == len(rows)


@pytest.mark.parametrize("column", ["reward", "kept", "share", "question", "hops"])
def test_rows_are_sorted_both_ways_and_ties_keep_the_stores_order(
    connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], column: str
) -> None:
    def key(row: dict[str, Any]) -> Any:
        return row["kept"] / row["queries"] if column == "share" else row[column]

    upwards, downwards = (find(connection, {"sort": [sort], "limit": ["500"]}).rows for sort in (column, f"-{column}"))
    assert upwards == sorted(rows, key=key)
    assert [key(row) for row in downwards] == sorted(map(key, rows), reverse=True)
    places = [rows.index(row) for row in downwards]
    pairs = list(zip(downwards, places, strict=True))
    assert all(a[1] < b[1] for a, b in pairwise(pairs) if key(a[0]) == key(b[0]))


def test_pages_join_to_the_whole(connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    pages = [find(connection, {"offset": [str(start)], "limit": ["7"]}) for start in range(0, len(rows) + 7, 7)]
    assert [row for page in pages for row in page.rows] == rows
    assert {page.total for page in pages} == {len(rows)}


@pytest.mark.parametrize(
    "asked",
    [
        {"nonsense": ["1"]},
        {"passed": ["yes"]},
        {"hops": ["two"]},
        {"reward_min": ["x"]},
        {"sort": ["searched"]},
        {"sort": ["-flags"]},
        {"limit": ["501"]},
        {"limit": ["-1"]},
        {"offset": ["9" * 40]},
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused(connection: duckdb.DuckDBPyConnection, asked: dict[str, list[str]]) -> None:
    with pytest.raises(QueryError):
        find(connection, asked)


@pytest.mark.parametrize("asked", [{"hops": ["9" * 40]}, {"reward_min": ["nan"]}, {"text": ["\0 \ufffd"]}], ids=str)
def test_odd_values_find_nothing(connection: duckdb.DuckDBPyConnection, asked: dict[str, list[str]]) -> None:
    assert find(connection, asked).total == 0
