"""The list of all trajectories, a row per trajectory: what the page's browser searches, filters and sorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pyarrow as pa

from stepsearch_data.core.errors import QueryError
from stepsearch_data.report.parts import ENDS, UNITS, conditions, make_parts
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
RANGES = {name: name for name in ("hops", "queries", "kept", "gain", "redundancy", "reward", "words")} | {
    "share": "kept / queries"
}
"""What is filtered by a smallest and a largest value, each as SQL."""
WORDS = "strlen({0}) - strlen(replace(replace({0}, ' ', ''), chr(10), '')) + 1"
"""How many words a text has: one more than spaces and ends of lines."""
POLICY = "policy."
"""Before the name of a policy, in a filter."""
_ANSWERS = {"right": "{0}", "wrong": "NOT {0}", "some": "{0} NOTNULL", "none": "{0} IS NULL"}
"""What is asked of a policy, as SQL."""
LARGEST_PAGE = 500
_PAGE = 100
_REJECTS = 10_000  # that a page lists
_SHOWN = ", ".join(f'"{name}"' for name in COLUMNS)

_LISTING = """
CREATE TABLE listing AS
WITH placed AS (SELECT *, row_number() OVER () AS place FROM trajectories), written AS (
    SELECT question_id, count(*) AS queries, count(*) FILTER (kept) AS kept,
           coalesce(bool_or(valid_engines > 0 AND valid_engines < engines), false) AS disagree
    FROM queries GROUP BY question_id
), lines AS (  -- what is searched beside question, answer and id: each text once, in the order of the trajectory
    SELECT question_id, 1 AS kind, hop AS turn, sub_question AS line FROM sub_questions
    UNION ALL SELECT question_id, 2, hop, query FROM queries
    UNION ALL SELECT question_id, 3, round, unnest(documents).title FROM rounds
), said AS (
    SELECT question_id, string_agg(line, chr(10) ORDER BY kind, turn, line) AS texts FROM (
        SELECT question_id, replace(line, chr(10), ' ') AS line, min(kind) AS kind, min(turn) AS turn FROM lines
        GROUP BY ALL
    ) GROUP BY question_id
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
       {words} AS words, coalesce("right", []) AS "right", coalesce(texts, '') AS texts, place
FROM placed t LEFT JOIN quality USING (question_id) LEFT JOIN written USING (question_id)
     LEFT JOIN rewards USING (question_id) LEFT JOIN said USING (question_id) LEFT JOIN answered USING (question_id)
ORDER BY place
"""
_TAKE_MARKS = """
UPDATE listing SET marks = ['none'] WHERE marks <> ['none'] AND id NOT IN (SELECT question_id FROM said)
"""
_PUT_MARKS = """
UPDATE listing SET marks = now FROM (
    SELECT question_id, list_filter([mark, if(note = '', '', 'note')], lambda word: word <> '') AS now FROM said
) WHERE id = question_id AND marks <> now
"""  # only rows that differ: after one more mark, one


class Answered(NamedTuple):
    """Policies, and by question whether each is right; None where one has no rollout of it."""

    policies: Sequence[str] = ()
    right: Mapping[str, Sequence[bool | None]] = {}


NO_POLICY = Answered()


class Page(NamedTuple):
    """Rows `offset` and following of those that fit, how many fit in all, and of each unit asked for its parts."""

    total: int
    offset: int
    rows: list[dict[str, Any]]
    parts: dict[str, int]


def make_listing(
    connection: duckdb.DuckDBPyConnection, rejecting: Sequence[str], answered: Answered = NO_POLICY
) -> None:
    """Make the table `listing`, which all else here reads, and its parts; rows are in the order of the store.

    `rejecting` are the gates that reject a trajectory, and not only flag it.
    """
    columns = {"question_id": pa.array(answered.right, pa.string())}
    columns["right"] = pa.array(answered.right.values(), pa.list_(pa.bool_()))
    connection.register("answered", pa.table(columns))
    connection.register("given", pa.table({"name": pa.array(answered.policies, pa.string())}))
    connection.execute("CREATE TABLE policies AS SELECT * FROM given")
    connection.execute(_LISTING.format(words=WORDS.format("rollout")), {"rejecting": rejecting})
    make_parts(connection)


def put_marks(connection: duckdb.DuckDBPyConnection, marks: Mapping[str, Mark]) -> None:
    """Show in the listing what a reader says now, in place of what was said before."""
    connection.register("said", MARKS.to_arrow(marks.values()))
    for statement in ("BEGIN", _TAKE_MARKS, _PUT_MARKS, "COMMIT"):
        connection.execute(statement)
    connection.unregister("said")


def read_index(connection: duckdb.DuckDBPyConnection, chunk_rows: int) -> Index:
    """Read all rows, a list per column."""
    columns = connection.sql(f"SELECT {_SHOWN} FROM listing ORDER BY place").to_arrow_table().to_pydict()
    return cast("Index", {"chunk_rows": chunk_rows, **columns})


def read_texts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Read what else is searched of each row, in lines."""
    return [texts for (texts,) in connection.execute("SELECT texts FROM listing ORDER BY place").fetchall()]


def read_rejects(connection: duckdb.DuckDBPyConnection) -> Rejects:
    """Read the first rejected rows, in the order of the stages."""
    ((total,),) = connection.execute("SELECT count(*) FROM rejects").fetchall()
    columns = "stage, source, position, question_id AS id, reason"
    rows = connection.sql(f"SELECT {columns} FROM rejects LIMIT {_REJECTS}").to_arrow_table().to_pylist()
    return {"total": total, "rows": cast("list[Reject]", rows)}


def policies(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the names of the policies whose answers are listed."""
    return [name for (name,) in connection.execute("SELECT name FROM policies").fetchall()]


def facets(connection: duckdb.DuckDBPyConnection) -> Facets:
    """Return the values that occur in the columns that are filtered by value."""
    return cast("Facets", {name: values(connection, name) for name in CHOICES})


def values(connection: duckdb.DuckDBPyConnection, name: str) -> list[Any]:
    """Return the values that occur in a column."""
    column = f"unnest({name})" if name in _LISTS else name
    rows = connection.execute(f"SELECT DISTINCT {column} AS value FROM listing ORDER BY value").fetchall()
    return [value for (value,) in rows]


def find(connection: duckdb.DuckDBPyConnection, asked: Mapping[str, Sequence[str]]) -> Page:
    """Find the rows that fit a query string: text, choices, switches, ranges, policies, parts, sort, offset, limit.

    Where words are searched for, rows have `texts` too. Raises QueryError.
    """
    where, values = fitting(connection, asked)
    offset, limit = _whole(asked, "offset", 0, 1 << 62), _whole(asked, "limit", _PAGE, LARGEST_PAGE)
    ((total,),) = connection.execute(f"SELECT count(*) FROM listing WHERE {where}", values).fetchall()
    part = f"ORDER BY {order(asked)} LIMIT {limit} OFFSET {offset}"
    shown = f"{_SHOWN}, texts" if _words(asked) else _SHOWN
    found = connection.sql(f"SELECT {shown} FROM listing WHERE {where} {part}", params=values)
    rows = found.to_arrow_table().to_pylist()
    parts = {
        unit: connection.execute(
            f"SELECT count(*) FROM part_{unit} WHERE {sql} AND place IN (SELECT place FROM listing WHERE {where})",
            [*of_unit, *values],
        ).fetchall()[0][0]
        for unit, sql, of_unit in conditions(connection, asked)
    }
    return Page(total, offset, rows, parts)


def fitting(connection: duckdb.DuckDBPyConnection, asked: Mapping[str, Sequence[str]]) -> tuple[str, list[Any]]:
    """Return an SQL condition for the rows of `listing` that fit, and the values of its placeholders.

    Raises QueryError.
    """
    known = {"text", "sort", "offset", "limit", *CHOICES, *SWITCHES, *(f"{n}_{end}" for n in RANGES for end in ENDS)}
    own = (POLICY, *(f"{unit}." for unit in UNITS))
    unknown = [name for name in asked if name not in known and not name.startswith(own)]
    if unknown:
        raise QueryError(f"unknown: {', '.join(sorted(unknown))}")
    parts, values = _conditions(asked)
    parts += _by_policy(connection, asked)
    for unit, sql, of_unit in conditions(connection, asked):
        parts.append(f"place IN (SELECT place FROM part_{unit} WHERE {sql})")
        values += of_unit
    return " AND ".join(parts) or "true", values


def _words(asked: Mapping[str, Sequence[str]]) -> list[str]:
    return [word for text in asked.get("text", ()) for word in text.lower().split()]


def _conditions(asked: Mapping[str, Sequence[str]]) -> tuple[list[str], list[Any]]:
    """Return SQL conditions, and the values of their placeholders."""
    words = _words(asked)
    searched = "lower(concat_ws(chr(10), id, question, answer, texts))"
    conditions, values = [f"contains({searched}, ?)"] * len(words), list[Any](words)
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
        for end, sign in ENDS.items():
            for text in asked.get(f"{name}_{end}", ()):
                conditions.append(f"{sql} {sign} ?")
                values.append(_value(f"{name}_{end}", text, float))
    return conditions, values


def _by_policy(connection: duckdb.DuckDBPyConnection, asked: Mapping[str, Sequence[str]]) -> list[str]:
    """Return SQL conditions on what policies answered."""
    known = policies(connection)
    made = []
    for name, texts in asked.items():
        if not name.startswith(POLICY):
            continue
        policy = name.removeprefix(POLICY)
        if policy not in known:
            raise QueryError(f"{name}: there is no policy {policy!r}")
        for text in texts:
            if text not in _ANSWERS:
                raise QueryError(f"{name}: expected {', '.join(_ANSWERS)}")
            made.append(_ANSWERS[text].format(f'"right"[{known.index(policy) + 1}]'))
    return made


def order(asked: Mapping[str, Sequence[str]]) -> str:
    """Return the SQL of the order that is asked for. Raises QueryError."""
    (sort,) = asked.get("sort", ("",))[-1:] or ("",)
    column, descending = sort.removeprefix("-"), sort.startswith("-")
    if not column:
        return "place"
    if column not in {*COLUMNS, "share"} - {*_LISTS, "right"}:
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
