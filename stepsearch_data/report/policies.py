"""Policies compared on the store's questions: means, shares that are right with intervals, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import TYPE_CHECKING, Any

from stepsearch_data.core.intervals import share_interval
from stepsearch_data.report.facts import interval, percent
from stepsearch_data.report.links import trajectories
from stepsearch_data.report.listing import POLICY, Answered
from stepsearch_data.report.rollouts import Rollouts, summed
from stepsearch_data.report.shapes import Facts

if TYPE_CHECKING:
    import duckdb

_MEANS = ("Exact match", "F1", "Search keys", "Σ (G − P)", "Searches", "Right format")
_SHARES = ("questions", "right", "wrong", "share right", "95 % interval")
_COUNTED = """
SELECT {parts} count("right"[{at}]) AS questions, count(*) FILTER ("right"[{at}]) AS correct
FROM listing GROUP BY ALL HAVING questions > 0 ORDER BY ALL
"""

_DIFFER = """
SELECT count(*) FILTER ({one} AND NOT {other}), count(*) FILTER ({one} NOTNULL AND {other} NOTNULL) FROM listing
"""


def answered(connection: duckdb.DuckDBPyConnection, rollouts: Rollouts) -> Answered:
    """Say whether policies are right about the questions that have a trajectory."""
    if not rollouts.policies:
        return Answered()
    known = {name for (name,) in connection.execute("SELECT question_id FROM trajectories").fetchall()}
    return Answered(rollouts.policies, rollouts.right(known))


def policies(connection: duckdb.DuckDBPyConnection, rollouts: Rollouts) -> list[Facts]:
    """Tabulate policies over the listed trajectories; no table where there are no rollouts."""
    known = [name for (name,) in connection.execute("SELECT id FROM listing ORDER BY place").fetchall()]
    tables = [_means(rollouts, known), _by_hops(connection, rollouts), _between(connection, rollouts)]
    return [each for each in tables if each["rows"]]


def _means(rollouts: Rollouts, known: list[str]) -> Facts:
    found: Facts = {
        "title": "Policies beside the gold trajectories",
        "columns": ["Policy", "Rollouts", *_MEANS],
        "rows": [],
        "links": [],
    }
    for policy in rollouts.policies:
        tallies = [tally for name in known if (tally := rollouts.tally(name).get(policy))]
        if tallies:
            total = summed(tallies)
            means = (None if value is None else value / total.rollouts for value in total[1:])
            found["rows"].append([policy, total.rollouts, *means])
            found["links"].append({"Rollouts": trajectories({POLICY + policy: "some"})})
    return found


def _by_hops(connection: duckdb.DuckDBPyConnection, rollouts: Rollouts) -> Facts:
    """Tabulate shares of questions that are right: of all, then by source and hops."""
    found: Facts = {
        "title": "Right answers of policies, by source and hops",
        "columns": ["source", "hops", "policy", *_SHARES],
        "rows": [],
        "links": [],
    }
    for asked, policy, (questions, right) in _shares(connection, rollouts):
        sure = share_interval(right, questions)
        told = interval(sure.low, sure.high)
        part = [asked.get("source", "all"), asked.get("hops", "all")]
        found["rows"].append([*part, policy, questions, right, questions - right, percent(right / questions), told])
        states = {"questions": "some", "right": "right", "wrong": "wrong"}
        links = {column: trajectories({**asked, POLICY + policy: state}) for column, state in states.items()}
        found["links"].append(links)
    return found


def _shares(
    connection: duckdb.DuckDBPyConnection, rollouts: Rollouts
) -> Iterator[tuple[Mapping[str, Any], str, tuple[int, int]]]:
    """Yield filters of a part, a policy, its questions there, and how many of them are right."""
    named = list(enumerate(rollouts.policies, start=1))
    for at, policy in named:
        for counted in connection.execute(_COUNTED.format(parts="", at=at)).fetchall():
            yield {}, policy, counted
    rows = [
        (source, hops, at, counted)
        for at, _ in named
        for source, hops, *counted in connection.execute(_COUNTED.format(parts="source, hops,", at=at)).fetchall()
    ]
    for source, hops, at, (questions, right) in sorted(rows):
        yield {"source": source, "hops": hops}, rollouts.policies[at - 1], (questions, right)


def _between(connection: duckdb.DuckDBPyConnection, rollouts: Rollouts) -> Facts:
    """Count the questions that one policy has right and another wrong: what a change gained and lost."""
    found: Facts = {
        "title": "Where policies differ",
        "columns": ["right", "wrong", "questions", "of"],
        "rows": [],
        "links": [],
    }
    for (one, first), (other, second) in permutations(enumerate(rollouts.policies, start=1), 2):
        sql = _DIFFER.format(one=f'"right"[{one}]', other=f'"right"[{other}]')
        ((counted, of),) = connection.execute(sql).fetchall()
        names = (POLICY + first, POLICY + second)
        found["rows"].append([first, second, counted, of])
        found["links"].append(
            {
                "questions": trajectories(dict(zip(names, ("right", "wrong"), strict=True))),
                "of": trajectories(dict.fromkeys(names, "some")),
            }
        )
    return found
