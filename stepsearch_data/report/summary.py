"""The overview of a store: headline numbers, the funnel from rows to trajectories, charts and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.version import __version__
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report.charts import charts
from stepsearch_data.report.facts import tables
from stepsearch_data.report.listing import facets
from stepsearch_data.report.rollouts import NONE, Rollouts
from stepsearch_data.report.shapes import Facts, Step, Summary
from stepsearch_data.report.tables import up_to_date
from stepsearch_data.schemas.tables import QUALITY, QUERIES, QUESTIONS, SUB_QUESTIONS, TRAJECTORIES, VOTES, Table
from stepsearch_data.stages import STAGES
from stepsearch_data.stages.gates.config import QualityConfig

if TYPE_CHECKING:
    import duckdb

_REASONS = 8  # that are told apart; the others are counted together
_NUMBERS = """
SELECT (SELECT count(*) FROM loaded) AS loaded, (SELECT count(*) FROM questions) AS questions,
       (SELECT count(*) FROM sub_questions) AS hops,
       queries, kept, waiting, dropped,
       (SELECT count(*) FROM trajectories) AS trajectories, (SELECT count(*) FROM quality WHERE passed) AS passed,
       (SELECT count(*) FROM rejects WHERE stage = 'load') AS refused,
       (SELECT avg(information_gain) FROM rounds WHERE role = 'gold') AS gain,
       (SELECT avg(found::INT) FROM (
           SELECT coalesce(bool_or(kept AND gold_rank <= 3), false) AS found
           FROM sub_questions s LEFT JOIN queries USING (question_id, hop)
           WHERE len(s.gold_passage_ids) > 0 GROUP BY question_id, hop
       )) AS found,
       (SELECT sum(cost) FROM llm_calls) AS cost
FROM (
    SELECT count(*) AS queries, count(*) FILTER (kept) AS kept, count(*) FILTER (waiting) AS waiting,
           count(*) FILTER (NOT kept AND NOT waiting) AS dropped FROM queries
)
"""
_COUNTED_IN: dict[str, Table[Any]] = {
    "questions": QUESTIONS,
    "hops": SUB_QUESTIONS,
    "queries": QUERIES,
    **dict.fromkeys(("kept", "waiting", "dropped", "found"), VOTES),
    "trajectories": TRAJECTORIES,
    "passed": QUALITY,
}
"""The table that must be built for a number to mean anything."""
_REJECTS = r"""
SELECT stage, regexp_replace(reason, '''[^'']*''|"[^"]*"|\d+', '…', 'g') AS said, count(*) AS n
FROM rejects WHERE list_contains(?, stage) GROUP BY ALL ORDER BY n DESC, stage, said
"""
_LEFT_OUT = """
SELECT count(*) FROM questions ANTI JOIN sub_questions USING (question_id)
ANTI JOIN (SELECT question_id FROM rejects WHERE stage = 'decompose') USING (question_id)
"""
_GATES = """
SELECT rejected_by, count(*) AS n FROM listing WHERE NOT passed GROUP BY rejected_by ORDER BY n DESC, rejected_by
"""


def summarize(
    store: Store,
    manifest: Manifest,
    connection: duckdb.DuckDBPyConnection,
    title: str | None = None,
    rollouts: Rollouts = NONE,
) -> Summary:
    """Make the overview; `connection` has the tables that are up to date, and the listing.

    Raises StoreError where there is nothing to show.
    """
    shown = up_to_date(manifest)
    numbers = _numbers(connection, shown)
    if not numbers["questions"] and not numbers["read"]:
        raise StoreError(f"{store.name} has no questions to show", f"stepsearch-data build --store {store.name}")
    known = {question_id for (question_id,) in connection.execute("SELECT id FROM listing").fetchall()}
    return {
        "title": title or _title(connection),
        "made_with": f"stepsearch-data {__version__}",
        "store": store.digest(),
        "notes": [*_notes(manifest, shown), *rollouts.notes(known)],
        "facets": facets(connection),
        "tiles": _tiles(numbers),
        "funnel": _funnel(connection, shown, numbers),
        "charts": charts(connection),
        "tables": [*rollouts.facts(known), *tables(connection, shown)],
    }


def _numbers(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> dict[str, Any]:
    """Count by name; None for what no stage has made yet: a zero would say that the stage found nothing."""
    cursor = connection.execute(_NUMBERS)
    names = [column[0] for column in cursor.description or []]
    counted = dict(zip(names, *cursor.fetchall(), strict=True))
    unknown = [name for name, table in _COUNTED_IN.items() if manifest.output(table.name) is None]
    return {**counted, **dict.fromkeys(unknown), "read": counted["loaded"] + counted["refused"]}


def _title(connection: duckdb.DuckDBPyConnection) -> str:
    rows = connection.execute("SELECT DISTINCT source FROM questions ORDER BY source").fetchall()
    return f"Search trajectories of {', '.join(source for (source,) in rows)}"


def _notes(committed: Manifest, shown: Manifest) -> list[str]:
    """Say what of the pipeline is not in the report."""
    missing = [stage.name for stage in STAGES if stage.name not in committed.stages]
    outdated = [stage.name for stage in STAGES if stage.name in committed.stages and stage.name not in shown.stages]
    notes = []
    if missing:
        notes.append(f"Not built yet: {', '.join(missing)}.")
    if outdated:
        notes.append(f"Left out, because made from earlier inputs: {', '.join(outdated)}. A build renews them.")
    return notes


def _tiles(numbers: dict[str, Any]) -> list[Facts]:
    shown = {
        "Trajectories": numbers["trajectories"],
        "Pass the gates": _share(numbers["passed"], numbers["trajectories"]),
        "Hops found by a kept query, in its top 3": _percent(numbers["found"]),
        "Queries kept": _share(numbers["kept"], numbers["queries"]),
        "Information gain per round": round(numbers["gain"], 3) if numbers["gain"] is not None else None,
        "Spent on models": f"${numbers['cost']:,.2f}" if numbers["cost"] is not None else None,
    }
    told = {name: value for name, value in shown.items() if value is not None}
    return [{"title": name, "columns": [], "rows": [[value]], "filters": {}} for name, value in told.items()]


def _share(part: int | None, whole: int | None) -> str | None:
    return _percent(part / whole) if part is not None and whole else None


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _funnel(connection: duckdb.DuckDBPyConnection, manifest: Manifest, numbers: dict[str, Any]) -> list[Step]:
    def step(name: str, note: str, lost: Sequence[Step] = (), link: str | None = None) -> Step:
        return {
            "name": name,
            "count": numbers[name],
            "note": note,
            "link": link,
            "lost": [reason for reason in lost if reason["count"]],
        }

    def rejects(*stages: str) -> list[Step]:
        rows = connection.execute(_REJECTS, [list(stages)]).fetchall()
        links = ["#/r?" + urlencode({"stage": stage, "reason": said}) for stage, said, _ in rows]
        return _shortened([_lost(name, said, n, link) for (name, said, n), link in zip(rows, links, strict=True)])

    voted = [_lost("voted out", "too few engines find a gold passage", numbers["dropped"] or 0)]
    waiting = [_lost("waiting", "too few engines answered: stepsearch-data retry-failed", numbers["waiting"] or 0)]
    steps = [
        step("read", "rows of the sources", rejects("load")),
        step("questions", "questions that can be used", [*rejects("decompose"), *_left_out(connection, manifest)]),
        step("hops", "sub-questions", rejects("queries")),
        step("queries", "search queries written for the hops", [*voted, *waiting]),
        step("kept", "queries that pass the vote", rejects("retrieve", "filter", "trajectories")),
        step("trajectories", "whole rollouts, one per question", _by_gate(connection, manifest), "#/t"),
        step("passed", "trajectories that pass all gates", link="#/t?passed=true"),
    ]
    return [each for each in steps if each["count"] is not None]


def _lost(name: str, note: str, count: int, link: str | None = None) -> Step:
    return {"name": name, "count": count, "note": note, "link": link, "lost": []}


def _shortened(reasons: list[Step]) -> list[Step]:
    others = reasons[_REASONS:]
    rest = _lost("others", f"{len(others)} other reasons", sum(reason["count"] for reason in others))
    return [*reasons[:_REASONS], *([rest] if others else [])]


def _left_out(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Step]:
    """Count unanswerable twins, of which hops are made only by choice."""
    ((count,),) = connection.execute(_LEFT_OUT).fetchall()
    if not count or manifest.output(SUB_QUESTIONS.name) is None:
        return []
    return [_lost("unanswerable", "left out: decompose.unanswerable is off", count)]


def _by_gate(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Step]:
    """Count rejected trajectories, each by the first gate that rejects it."""
    if manifest.output(QUALITY.name) is None:
        return []
    rows = connection.execute(_GATES).fetchall()
    fields = QualityConfig.model_fields
    notes = {gate: fields[gate].description or "" if gate in fields else "" for gate, _ in rows}
    return [
        _lost(gate, notes[gate], n, "#/t?" + urlencode({"passed": "false", "rejected_by": gate})) for gate, n in rows
    ]
