"""The list of all trajectories, a row per trajectory: what the page's browser searches, filters and sorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from stepsearch_data.core.errors import QueryError
from stepsearch_data.report.shapes import Facets, Index, Reject, Rejects
from stepsearch_data.schemas.rows import Mark
from stepsearch_data.schemas.tables import MARKS

if TYPE_CHECKING:
    import duckdb

COLUMNS = tuple(name for name in Index.__annotations__ if name != "chunk_rows")
CHOICES = {
    **dict.fromkeys(("source", "type", "split", "difficulty", "flags", "rejected_by", "marks"), str),
    "hops": float,
}
"""Columns that are filtered by some of their values."""
_LISTS = {"flags", "marks"}
SWITCHES = ("passed", "complete", "answerable", "disagree")
RANGES = {name: name for name in ("hops", "queries", "kept", "gain", "redundancy", "reward")} | {
    "share": "kept / queries"
}
"""What is filtered by a smallest and a largest value, each as SQL."""
LARGEST_PAGE = 500
_PAGE = 100
_REJECTS = 10_000  # that a page lists

_LISTING = """
CREATE TABLE listing AS
WITH placed AS (SELECT *, row_number() OVER () AS place FROM trajectories), written AS (
    SELECT question_id, count(*) AS queries, count(*) FILTER (kept) AS kept,
           coalesce(bool_or(valid_engines > 0 AND valid_engines < engines), false) AS disagree
    FROM queries GROUP BY question_id
), rewards AS (
    SELECT question_id, sum(information_gain) AS gain, sum(redundancy_penalty) AS redundancy, sum(step_reward) AS reward
    FROM rounds GROUP BY question_id
)
SELECT question_id AS id, t.question, t.answer, t.source, question_type AS type, t.hops,
       coalesce(split, '') AS split, passed, complete, answerable, coalesce(difficulty, '') AS difficulty,
       coalesce(flags, []) AS flags, coalesce(queries, 0) AS queries, coalesce(kept, 0) AS kept,
       coalesce(round(gain, 4), 0) AS gain, coalesce(round(redundancy, 4), 0) AS redundancy,
       coalesce(round(reward, 4), 0) AS reward, coalesce(disagree, false) AS disagree,
       CASE WHEN passed IS NOT false THEN ''
            ELSE coalesce(list_filter(flags, lambda flag: list_contains($rejecting::VARCHAR[], flag))[1], 'gates')
       END AS rejected_by,
       ['none'] AS marks,
       lower(t.question || ' ' || t.answer || ' ' || question_id) AS searched, place
FROM placed t LEFT JOIN quality USING (question_id) LEFT JOIN written USING (question_id)
     LEFT JOIN rewards USING (question_id)
ORDER BY place
"""
_PUT_MARKS = """
UPDATE listing SET marks = list_filter([said.mark, if(said.note = '', '', 'note')], lambda word: word <> '')
FROM said WHERE id = said.question_id
"""


class Page(NamedTuple):
    """Rows `offset` and following of those that fit, and how many fit in all."""

    total: int
    offset: int
    rows: list[dict[str, Any]]


def make_listing(connection: duckdb.DuckDBPyConnection, rejecting: Sequence[str]) -> None:
    """Make the table `listing`, which all else here reads; rows are in the order of the store.

    `rejecting` are the gates that reject a trajectory, and not only flag it.
    """
    connection.execute(_LISTING, {"rejecting": rejecting})


def put_marks(connection: duckdb.DuckDBPyConnection, marks: Mapping[str, Mark]) -> None:
    """Show in the listing what a reader says now, in place of what was said before."""
    connection.register("said", MARKS.to_arrow(marks.values()))
    connection.execute("BEGIN")
    connection.execute("UPDATE listing SET marks = ['none'] WHERE marks <> ['none']")
    connection.execute(_PUT_MARKS)
    connection.execute("COMMIT")
    connection.unregister("said")


def read_index(connection: duckdb.DuckDBPyConnection, chunk_rows: int) -> Index:
    """Read all rows, a list per column."""
    columns = connection.sql(f"SELECT {', '.join(COLUMNS)} FROM listing ORDER BY place").to_arrow_table().to_pydict()
    return cast("Index", {"chunk_rows": chunk_rows, **columns})


def read_rejects(connection: duckdb.DuckDBPyConnection) -> Rejects:
    """Read the first rejected rows, in the order of the stages."""
    ((total,),) = connection.execute("SELECT count(*) FROM rejects").fetchall()
    columns = "stage, source, position, question_id AS id, reason"
    rows = connection.sql(f"SELECT {columns} FROM rejects LIMIT {_REJECTS}").to_arrow_table().to_pylist()
    return {"total": total, "rows": cast("list[Reject]", rows)}


def facets(connection: duckdb.DuckDBPyConnection) -> Facets:
    """Return the values that occur in the columns that are filtered by value."""
    found = {}
    for name in CHOICES:
        column = f"unnest({name})" if name in _LISTS else name
        rows = connection.execute(f"SELECT DISTINCT {column} AS value FROM listing ORDER BY value").fetchall()
        found[name] = [value for (value,) in rows]
    return cast("Facets", found)


def find(connection: duckdb.DuckDBPyConnection, asked: Mapping[str, Sequence[str]]) -> Page:
    """Find the rows that fit a query string: text, choices, switches, ranges, sort, offset, limit.

    Raises QueryError.
    """
    known = {"text", "sort", "offset", "limit", *CHOICES, *SWITCHES, *(f"{n}_{end}" for n in RANGES for end in _ENDS)}
    unknown = asked.keys() - known
    if unknown:
        raise QueryError(f"unknown: {', '.join(sorted(unknown))}")
    conditions, values = _conditions(asked)
    where = " AND ".join(conditions) or "true"
    offset, limit = _whole(asked, "offset", 0, 1 << 62), _whole(asked, "limit", _PAGE, LARGEST_PAGE)
    ((total,),) = connection.execute(f"SELECT count(*) FROM listing WHERE {where}", values).fetchall()
    part = f"ORDER BY {_order(asked)} LIMIT {limit} OFFSET {offset}"
    found = connection.sql(f"SELECT {', '.join(COLUMNS)} FROM listing WHERE {where} {part}", params=values)
    return Page(total, offset, found.to_arrow_table().to_pylist())


_ENDS = {"min": ">=", "max": "<="}


def _conditions(asked: Mapping[str, Sequence[str]]) -> tuple[list[str], list[Any]]:
    """Return SQL conditions, and the values of their placeholders."""
    words = [word for text in asked.get("text", ()) for word in text.lower().split()]
    conditions, values = ["contains(searched, ?)"] * len(words), list[Any](words)
    for name, kind in CHOICES.items():
        chosen = [_value(name, text, kind) for text in asked.get(name, ())]
        if chosen:
            places = ", ".join("?" * len(chosen))
            conditions.append(f"list_has_any({name}, [{places}])" if name in _LISTS else f"{name} IN ({places})")
            values += chosen
    for name in SWITCHES:
        for text in asked.get(name, ()):
            conditions.append(f"{name} = ?")
            values.append(_switch(name, text))
    for name, sql in RANGES.items():
        for end, sign in _ENDS.items():
            for text in asked.get(f"{name}_{end}", ()):
                conditions.append(f"{sql} {sign} ?")
                values.append(_value(f"{name}_{end}", text, float))
    return conditions, values


def _order(asked: Mapping[str, Sequence[str]]) -> str:
    (sort,) = asked.get("sort", ("",))[-1:] or ("",)
    column, descending = sort.removeprefix("-"), sort.startswith("-")
    if not column:
        return "place"
    if column not in {*COLUMNS, "share"} - _LISTS:
        raise QueryError(f"sort: there is no column {column!r}")
    return f"{RANGES.get(column, column)} {'DESC' if descending else 'ASC'} NULLS LAST, place"


def _whole(asked: Mapping[str, Sequence[str]], name: str, default: int, largest: int) -> int:
    texts = asked.get(name, ())
    number = _value(name, texts[-1], int) if texts else default
    if not 0 <= number <= largest:
        raise QueryError(f"{name}: expected 0 to {largest}")
    return int(number)


def _value(name: str, text: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise QueryError(f"{name}: {text!r} is not a number") from None


def _switch(name: str, text: str) -> bool:
    if text not in {"true", "false"}:
        raise QueryError(f"{name}: expected true or false")
    return text == "true"
