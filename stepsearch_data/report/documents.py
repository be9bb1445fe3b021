"""From documents to questions: what is left after each step, for what reasons, and what a question has cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepsearch_data import attrition
from stepsearch_data.pipeline.store import Manifest
from stepsearch_data.report.funnel import reason, rejected, shortened
from stepsearch_data.report.links import trajectories
from stepsearch_data.report.shapes import Step
from stepsearch_data.schemas.rows import KEPT
from stepsearch_data.stages.proof.decision import CHECKS

if TYPE_CHECKING:
    import duckdb

_READ = "SELECT count(*) FROM (SELECT DISTINCT source, position FROM origins)"
_LEFT_OUT = "SELECT part, count FROM mining WHERE step = 'left out' ORDER BY count DESC, part"
_NOT_COMPOSED = rf"""
SELECT status, regexp_replace(reason, '''[^'']*''|"[^"]*"|\d+', '…', 'g') AS said, count(*) AS n
FROM composed WHERE status <> '{KEPT}' GROUP BY ALL ORDER BY n DESC, status, said
"""
_SOURCES = "SELECT DISTINCT source FROM composed ORDER BY source"
_ENDS = {"complete": {"complete": True}, "fit": {"complete": True, "passed": True}}
_PRICED = ("composed", "passed", "fit")
_NOTES = {
    "composed": "questions written",
    "passed": "questions that pass their checks",
    "trajectories": "whole rollouts, one per question",
    "complete": "trajectories that show all gold passages",
    "fit": "complete, and passed by the gates",
}


def documents(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Step]:
    """Return the steps as far as they are built; none for a store without documents."""
    left = {step.name: step for step in attrition.steps(connection, manifest)}
    if not left:
        return []
    ((read,),) = connection.execute(_READ).fetchall()
    refused = rejected(connection, "load", documents=True)
    unlinked = [reason(part, "mentions of titles, left out", n) for part, n in connection.execute(_LEFT_OUT).fetchall()]
    chains, drawn = (
        sum(step.left for name, step in left.items() if name.startswith(f"{kind} ")) for kind in ("chains", "drawn")
    )
    found = [
        _step("documents", "of the sources", read + sum(each["count"] for each in refused), lost=refused),
        _step("passages", "of the documents", left["passages"].left, lost=unlinked),
        _step("links", "passages that name the title of another one", left["links"].left),
        _step("chains", "of linked passages, and pairs to compare", chains),
        _step("drawn", "chains, to make a question of each", drawn, lost=_not_composed(connection, left)),
    ]
    found += [_made(connection, manifest, left[name], drawn) for name in _NOTES if name in left]
    for step in found:
        if step["name"] == "composed" and "passed" in left:
            step["lost"] = _not_passed(left)
    return found


def _made(connection: duckdb.DuckDBPyConnection, manifest: Manifest, step: attrition.Step, drawn: int) -> Step:
    """Tell how many questions are left, who had a part in it, and what they have cost."""
    by = {"composed": f" by {attrition.model_of(manifest, 'compose') or 'templates, for demonstrations'}"}
    if not attrition.model_of(manifest, "verify"):
        by["passed"] = ", without a model"
    told = step.dollars and step.each and step.name in _PRICED
    cost = f": ${step.dollars:,.2f} up to here, ${step.each:,.4f} each" if told else ""
    sources = [source for (source,) in connection.execute(_SOURCES).fetchall()]
    built = step.name in ("trajectories", *_ENDS)
    link = trajectories({"source": sources, **_ENDS.get(step.name, {})}) if built else None
    return _step(step.name, f"{_NOTES[step.name]}{by.get(step.name, '')}{cost}", step.left, drawn, link)


def _not_composed(connection: duckdb.DuckDBPyConnection, left: dict[str, attrition.Step]) -> list[Step]:
    """Count chains without a question, by what was said of them."""
    if "composed" not in left:
        return []
    said = [reason(status, why, n) for status, why, n in connection.execute(_NOT_COMPOSED).fetchall()]
    return [*shortened(said), *rejected(connection, "compose")]


def _not_passed(left: dict[str, attrition.Step]) -> list[Step]:
    """Count questions by the first check that they fail."""
    failed = [(name, (step.of or 0) - step.left) for name, step in left.items() if name in CHECKS]
    undecided = [(name, step.left) for name, step in left.items() if name == "without a verdict"]
    return [reason(name, "", n) for name, n in (*failed, *undecided) if n]


def _step(
    name: str, note: str, count: int, whole: int | None = None, link: str | None = None, lost: Sequence[Step] = ()
) -> Step:
    reasons = [each for each in lost if each["count"]]
    return {"name": name, "count": count, "note": note, "whole": whole or count, "link": link, "lost": reasons}
