"""The first screen: what is in the store, by source and hops, and whether it is fit for training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepsearch_data.audit import measure
from stepsearch_data.pipeline.store import Manifest
from stepsearch_data.report.facts import percent
from stepsearch_data.report.links import Links, trajectories
from stepsearch_data.report.shapes import Facts, Said, Verdict
from stepsearch_data.schemas.tables import QUALITY, VOTES
from stepsearch_data.stages.gates.config import unchecked

if TYPE_CHECKING:
    import duckdb

OUTSIDE = {"eval_overlap": "evaluation data", "eval_single_hop": "MuSiQue's single hops"}
"""The gates that look for evaluation data, and what they look for."""
_ORDER = ["train", "validation", "rejected", "easy", "medium", "hard"]
_MOST = 4  # gates that are named
_FIT = {"passed": True, "complete": True}
_PARTS = """
SELECT source, hops, count(*) AS trajectories, count(*) FILTER (complete AND passed) AS fit,
       count(*) FILTER (passed) AS passed, count(*) FILTER (complete) AS complete,
       count(*) FILTER (list_contains(flags, 'leak')) AS leaks
FROM listing GROUP BY source, hops ORDER BY source, hops
"""
_FAILED = """
SELECT flag, count(*) AS n FROM (SELECT unnest(flags) AS flag FROM listing) GROUP BY flag ORDER BY n DESC, flag
"""


def verdict(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> Verdict:
    """Say what there is and what is fit; what no stage has made yet is left out."""
    judged = manifest.output(QUALITY.name) is not None
    idle = unchecked(manifest.stages[manifest.writer(QUALITY.name)].fingerprint) if judged else {}
    table = _table(connection, manifest, judged=judged)
    failed = dict(connection.execute(_FAILED).fetchall())
    parts = [
        _counted(connection, "Split", "if(split = '', 'rejected', split)", "split"),
        _counted(connection, "Difficulty", "difficulty", "difficulty"),
        _contamination(failed, idle),
        _failing(failed),
    ]
    return {
        "said": _said(connection, idle, judged=judged),
        "table": table,
        "parts": [part for part in parts if part["rows"]] if judged else [],
    }


def _said(connection: duckdb.DuckDBPyConnection, idle: dict[str, str], *, judged: bool) -> list[Said]:
    ((total, fit),) = connection.execute(
        "SELECT count(*), count(*) FILTER (complete AND passed) FROM listing"
    ).fetchall()
    if not total:
        return []
    if not judged:
        return [{"text": f"{total:,} trajectories, which no gate has checked yet.", "link": trajectories()}]
    counted: Said = {"text": f"{fit:,} of {total:,} trajectories", "link": trajectories(_FIT)}
    said: list[Said] = [counted, {"text": " are fit for training: complete, and passed by the gates.", "link": None}]
    if OUTSIDE.keys() <= idle.keys():
        said.append({"text": " Contamination was not checked.", "link": None})
    return said


def _table(connection: duckdb.DuckDBPyConnection, manifest: Manifest, *, judged: bool) -> Facts:
    """Tabulate what `audit` measures of hops and queries, and the trajectories, by source and hops."""
    voted = manifest.output(VOTES.name) is not None
    measured = {tuple(part.split("\n")): of for part, of in measure(connection, "source || chr(10) || hops").items()}
    names = [
        "source",
        "hops",
        "trajectories",
        *(("fit", "not passed", "not complete", "leaks") if judged else ()),
        *(("hops found", "queries kept") if voted else ()),
    ]
    found: Facts = {"title": "By source and hops", "columns": names, "rows": [], "links": []}
    for source, hops, total, fit, passed, complete, leaks in connection.execute(_PARTS).fetchall():
        own: dict[str, Any] = {"source": source, "hops": hops}
        of = measured.get((source, str(hops)), {})
        values = {
            **own,
            "trajectories": total,
            "fit": fit,
            "not passed": total - passed,
            "not complete": total - complete,
            "leaks": leaks,
            "hops found": percent(of.get("hop_hit_at_3")),
            "queries kept": percent(of.get("kept_share")),
        }
        links: Links = {
            "trajectories": trajectories(own),
            "fit": trajectories(own, **_FIT),
            "not passed": trajectories(own, passed=False),
            "not complete": trajectories(own, complete=False),
            "leaks": trajectories(own, flags="leak"),
            "hops found": trajectories(own, **{"hops.found": True}),
            "queries kept": trajectories(own, **{"queries.verdict": "kept"}),
        }
        found["rows"].append([values[name] for name in names])
        found["links"].append({name: link for name, link in links.items() if name in names})
    return found


def _counted(connection: duckdb.DuckDBPyConnection, title: str, shown: str, filtered: str) -> Facts:
    """Count the trajectories by a column of the list."""
    counted = f"SELECT {shown} AS shown, {filtered}, count(*) FROM listing GROUP BY ALL"
    rows = connection.execute(f"FROM ({counted}) ORDER BY list_position({_ORDER}, shown)").fetchall()
    found = _facts(title, [[shown, number] for shown, _, number in rows])
    found["links"] = [{"trajectories": trajectories({filtered: value})} for _, value, _ in rows]
    return found


def _contamination(failed: dict[str, int], idle: dict[str, str]) -> Facts:
    """Count what is like evaluation data, or say that nothing was compared."""
    found = _facts("Contamination", [[told, idle.get(gate, failed.get(gate, 0))] for gate, told in OUTSIDE.items()])
    found["links"] = [{} if gate in idle else {"trajectories": trajectories(flags=gate)} for gate in OUTSIDE]
    return found


def _failing(failed: dict[str, int]) -> Facts:
    most = list(failed.items())[:_MOST]
    found = _facts("Fails most", [[gate.replace("_", " "), number] for gate, number in most])
    found["links"] = [{"trajectories": trajectories(flags=gate)} for gate, _ in most]
    return found


def _facts(title: str, rows: list[list[str | float | None]]) -> Facts:
    return {"title": title, "columns": [title.lower(), "trajectories"], "rows": rows, "links": []}
