"""Hops, queries and rounds of the listed trajectories, so that a count of them leads to the trajectories they are of.

A filter `UNIT.COLUMN` keeps the trajectories that have such a part; all filters of a unit speak of the same part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsearch_data.core.errors import QueryError
from stepsearch_data.report.shapes import Parts

if TYPE_CHECKING:
    import duckdb

UNITS = ("hops", "queries", "rounds")
ENDS = {"min": ">=", "max": "<=", "below": "<"}
"""The ends of a range, as they follow a filter's name."""
RANK = "CASE WHEN gold_rank IS NULL THEN 'none' WHEN gold_rank > 9 THEN '10+' ELSE gold_rank::VARCHAR END"
"""The class of a gold rank."""

_HOPS = """
CREATE TABLE part_hops AS
SELECT place::UINTEGER AS place, s.hop::USMALLINT AS hop,
       CASE WHEN bool_or(q.kept NOTNULL) THEN (count(*) FILTER (q.kept))::USMALLINT END AS kept,
       CASE WHEN bool_or(q.kept NOTNULL) AND len(s.gold_passage_ids) > 0
            THEN coalesce(bool_or(q.kept AND q.gold_rank <= 3), false) END AS found
FROM sub_questions s JOIN listing ON id = s.question_id LEFT JOIN queries q USING (question_id, hop)
GROUP BY place, s.hop, s.gold_passage_ids ORDER BY place, s.hop
"""
_QUERIES = """
CREATE TABLE part_queries AS
WITH said AS (SELECT query_id{engines} FROM engine_votes WHERE answered GROUP BY query_id)
SELECT place::UINTEGER AS place, hop::USMALLINT AS hop,
       CASE WHEN q.kept IS NULL THEN 'not voted' WHEN q.kept THEN 'kept' WHEN waiting THEN 'waiting' ELSE 'rejected' END
       AS verdict,
       engines::USMALLINT AS engines, valid_engines::USMALLINT AS valid,
       (engines - valid_engines)::USMALLINT AS invalid,
       said.* EXCLUDE (query_id)
FROM queries q JOIN listing ON id = q.question_id LEFT JOIN said USING (query_id) ORDER BY place, hop, query_id
"""
_ROUNDS = """
CREATE TABLE part_rounds AS
SELECT place::UINTEGER AS place, round::USMALLINT AS round, round(information_gain, 4) AS gain,
       round(redundancy_penalty, 4) AS redundancy
FROM rounds JOIN listing ON id = question_id ORDER BY place, round
"""


class Condition(NamedTuple):
    """What a part of a unit must be, as SQL with placeholders."""

    unit: str
    sql: str
    values: list[Any]


def make_parts(connection: duckdb.DuckDBPyConnection) -> None:
    """Make a table of each unit; `listing` is there already."""
    rows = connection.execute("SELECT DISTINCT engine FROM engine_votes ORDER BY engine").fetchall()
    said = "".join(
        f", max({RANK}) FILTER (engine = {_text(engine)}) AS {name_of(f'rank.{engine}')}"
        f", bool_or(valid) FILTER (engine = {_text(engine)}) AS {name_of(f'valid.{engine}')}"
        for (engine,) in rows
    )
    for sql in (_HOPS, _QUERIES.format(engines=said), _ROUNDS):
        connection.execute(sql)


def read_parts(connection: duckdb.DuckDBPyConnection) -> Parts:
    """Read all parts, a list per column."""
    return {unit: connection.table(f"part_{unit}").to_arrow_table().to_pydict() for unit in UNITS}


def conditions(connection: duckdb.DuckDBPyConnection, asked: Mapping[str, Sequence[str]]) -> list[Condition]:
    """Return what is asked of each unit. Raises QueryError for a column that there is not."""
    wanted = {name: values for name, values in asked.items() if name.partition(".")[0] in UNITS and "." in name}
    columns = _columns(connection) if wanted else {}
    found: dict[str, Condition] = {}
    for name, texts in wanted.items():
        unit, _, column = name.partition(".")
        made = found.setdefault(unit, Condition(unit, "true", []))
        sql, values = _condition(name, column, columns[unit], texts)
        found[unit] = Condition(unit, f"{made.sql} AND {sql}", made.values + values)
    return list(found.values())


def _condition(name: str, column: str, known: Sequence[str], texts: Sequence[str]) -> tuple[str, list[Any]]:
    if column in known:
        return f"{name_of(column)}::VARCHAR IN ({', '.join('?' * len(texts))})", list(texts)
    measured, _, end = column.rpartition("_")
    if measured not in known or end not in ENDS:
        raise QueryError(f"unknown: {name}")
    try:
        return " AND ".join([f"{name_of(measured)} {ENDS[end]} ?"] * len(texts)), [float(text) for text in texts]
    except ValueError:
        raise QueryError(f"{name}: {texts[0]!r} is not a number") from None


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Return the columns of each unit that can be asked for."""
    return {unit: [name for name in connection.table(f"part_{unit}").columns if name != "place"] for unit in UNITS}


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def name_of(column: str) -> str:
    """Quote the name of a column."""
    return '"' + column.replace('"', '""') + '"'
