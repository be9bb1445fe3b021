"""Filters by hops, queries and rounds keep the trajectories that have such a part, and count the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from stepsearch_data.core.errors import QueryError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.listing import find
from stepsearch_data.report.parts import UNITS, read_parts
from stepsearch_data.report.records import records
from stepsearch_data.report.shapes import Record
from tests.report.shown import opened

if TYPE_CHECKING:
    import duckdb


@pytest.fixture(scope="module")
def connection(rich: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    with opened(rich) as opened_:
        yield opened_


@pytest.fixture(scope="module")
def gold(rich: Store) -> list[Record]:
    return list(records(rich, rich.manifest()))


def queries(record: Record) -> list[Any]:
    """The queries of all hops; a hop with a distractor has two rounds."""
    return [query for step in {step["hop"]: step for step in record["rounds"]}.values() for query in step["queries"]]


def said(query: Any, engine: str) -> Any:
    return next(vote for vote in query["engine_votes"] if vote["engine"] == engine)


FILTERS: list[tuple[str, dict[str, list[str]], Callable[[Record], int]]] = [
    ("rounds", {"rounds.round": ["3"]}, lambda one: len(one["rounds"]) >= 3),
    (
        "rounds",
        {"rounds.gain_min": ["0.2"], "rounds.gain_below": ["0.5"]},
        lambda one: sum(0.2 <= round(step["gain"], 4) < 0.5 for step in one["rounds"]),
    ),
    (
        "queries",
        {"queries.valid.bm25": ["true"], "queries.valid.chargram": ["false"]},
        lambda one: sum(said(q, "bm25")["valid"] and not said(q, "chargram")["valid"] for q in queries(one)),
    ),
    (
        "queries",
        {"queries.rank.bm25": ["2", "none"]},
        lambda one: sum(said(query, "bm25")["gold_rank"] in {2, None} for query in queries(one)),
    ),
]


@pytest.mark.parametrize(("unit", "asked", "counted"), FILTERS)
def test_trajectories_with_such_parts_are_found_and_the_parts_counted(
    connection: duckdb.DuckDBPyConnection,
    gold: list[Record],
    unit: str,
    asked: dict[str, list[str]],
    counted: Callable[[Record], int],
) -> None:
    expected = {each["id"]: int(counted(each)) for each in gold if counted(each)}
    page = find(connection, {**asked, "limit": ["500"]})
    assert 0 < page.total < len(gold)
    assert [row["id"] for row in page.rows] == [*expected]
    assert page.parts == {unit: sum(expected.values())}


def test_filters_of_a_unit_speak_of_one_part_and_those_of_two_units_do_not(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    hop = find(connection, {"hops.hop": ["1"], "hops.kept": ["0"]})
    of_any = find(connection, {"hops.hop": ["1"], "queries.hop": ["2"]})
    assert hop.parts["hops"] == hop.total < of_any.total
    assert of_any.parts["queries"] > of_any.parts["hops"] == of_any.total


def test_parts_are_of_the_rows_in_order(connection: duckdb.DuckDBPyConnection) -> None:
    parts = read_parts(connection)
    total = find(connection, {}).total
    assert [*parts] == [*UNITS]
    for columns in parts.values():
        places = columns["place"]
        assert places == sorted(places)
        assert set(places) == set(range(1, total + 1))
        assert {len(column) for column in columns.values()} == {len(places)}


@pytest.mark.parametrize(
    "asked",
    [
        {"queries.nothing": ["1"]},
        {"hops.": ["1"]},
        {"rounds.gain_min": ["x"]},
        {"queries.place": ["1"]},
        {"words.x": ["1"]},
    ],
    ids=str,
)
def test_what_parts_do_not_have_is_refused(connection: duckdb.DuckDBPyConnection, asked: dict[str, list[str]]) -> None:
    with pytest.raises(QueryError):
        find(connection, asked)


def test_a_store_that_is_not_voted_on_has_parts_without_a_verdict(hostile: Store) -> None:
    with opened(hostile) as connection:
        assert find(connection, {"queries.verdict": ["kept", "rejected", "not voted"]}).total == 1
