"""The overview of a store: headline numbers, the funnel from rows to trajectories, charts and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.version import __version__
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report.charts import charts
from stepsearch_data.report.checks import checked
from stepsearch_data.report.documents import documents
from stepsearch_data.report.facts import marked, percent, tables
from stepsearch_data.report.funnel import funnel
from stepsearch_data.report.links import trajectories
from stepsearch_data.report.listing import facets
from stepsearch_data.report.policies import policies
from stepsearch_data.report.rollouts import NONE, Rollouts
from stepsearch_data.report.shapes import Facts, Summary
from stepsearch_data.report.tables import up_to_date
from stepsearch_data.report.verdict import verdict
from stepsearch_data.schemas.tables import QUALITY, QUERIES, QUESTIONS, SUB_QUESTIONS, TRAJECTORIES, VOTES, Table
from stepsearch_data.stages import STAGES

if TYPE_CHECKING:
    import duckdb

FOUND = "Hops found by a kept query, in its top 3"
_NUMBERS = """
SELECT (SELECT count(*) FROM loaded) AS loaded, (SELECT count(*) FROM questions) AS questions,
       (SELECT count(*) FROM sub_questions) AS hops,
       queries, kept, waiting, dropped,
       (SELECT count(*) FROM trajectories) AS trajectories, (SELECT count(*) FROM quality WHERE passed) AS passed,
       (SELECT count(*) FROM rejects WHERE stage = 'load' AND source NOT IN (SELECT source FROM origins)) AS refused,
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
    made = documents(connection, shown)
    if not numbers["read"] and not made:
        raise StoreError(f"{store.name} has no questions to show", f"stepsearch-data build --store {store.name}")
    known = {question_id for (question_id,) in connection.execute("SELECT id FROM listing").fetchall()}
    return {
        "title": title or _title(connection),
        "made_with": f"stepsearch-data {__version__}",
        "store": store.digest(),
        "notes": [*_notes(manifest, shown), *rollouts.notes(known)],
        "facets": facets(connection),
        "policies": rollouts.policies,
        "verdict": verdict(connection, shown),
        "tiles": _tiles(numbers),
        "documents": made,
        "funnel": funnel(connection, shown, numbers),
        "checked": checked(connection, shown),
        "marked": marked(connection),
        "charts": charts(connection),
        "compared": policies(connection, rollouts),
        "tables": tables(connection, shown),
    }


def _numbers(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> dict[str, Any]:
    """Count by name; None for what no stage has made yet: a zero would say that the stage found nothing."""
    cursor = connection.execute(_NUMBERS)
    names = [column[0] for column in cursor.description or []]
    counted = dict(zip(names, *cursor.fetchall(), strict=True))
    unknown = [name for name, table in _COUNTED_IN.items() if manifest.output(table.name) is None]
    composed = max(0, counted["questions"] - counted["loaded"])  # `gather` takes all that was loaded
    read = counted["loaded"] + counted["refused"] + composed
    return {**counted, **dict.fromkeys(unknown), "composed": composed, "read": read}


def _title(connection: duckdb.DuckDBPyConnection) -> str:
    rows = connection.execute(
        "SELECT source FROM questions UNION SELECT source FROM origins ORDER BY source"
    ).fetchall()
    return f"Search trajectories of {', '.join(source for (source,) in rows)}"


def _notes(committed: Manifest, shown: Manifest) -> list[str]:
    """Say what of the pipeline is not in the report."""
    missing = [stage.name for stage in STAGES if stage.name not in committed.stages and not stage.optional]
    outdated = [stage.name for stage in STAGES if stage.name in committed.stages and stage.name not in shown.stages]
    notes = []
    if missing:
        notes.append(f"Not built yet: {', '.join(missing)}.")
    if outdated:
        notes.append(f"Left out, because made from earlier inputs: {', '.join(outdated)}. A build renews them.")
    return notes


def _tiles(numbers: dict[str, Any]) -> list[Facts]:
    gain, cost, made = numbers["gain"], numbers["cost"], numbers["trajectories"] is not None
    shown: dict[str, tuple[str | float | None, str]] = {
        "Trajectories": (numbers["trajectories"], trajectories()),
        "Pass the gates": (_share(numbers["passed"], numbers["trajectories"]), trajectories(passed=True)),
        FOUND: (percent(numbers["found"]), trajectories({"hops.found": True})),
        "Queries kept": (_share(numbers["kept"], numbers["queries"]), trajectories({"queries.verdict": "kept"})),
        "Information gain per round": (None if gain is None else round(gain, 3), trajectories(sort="-gain")),
        "Spent on models": (None if cost is None else f"${cost:,.2f}", ""),
    }
    return [
        {"title": name, "columns": [name], "rows": [[value]], "links": [{name: link} if link and made else {}]}
        for name, (value, link) in shown.items()
        if value is not None
    ]


def _share(part: int | None, whole: int | None) -> str | None:
    return percent(part / whole) if part is not None and whole else None
