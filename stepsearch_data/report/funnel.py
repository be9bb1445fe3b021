"""The funnel from rows of sources to trajectories, with what was lost on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepsearch_data.pipeline.store import Manifest
from stepsearch_data.report.links import rejects, trajectories
from stepsearch_data.report.shapes import Step
from stepsearch_data.schemas.tables import QUALITY, SUB_QUESTIONS
from stepsearch_data.stages.gates.config import QualityConfig

if TYPE_CHECKING:
    import duckdb

_REASONS = 8  # that are told apart; the others are counted together
_REJECTS = r"""
SELECT stage, regexp_replace(reason, '''[^'']*''|"[^"]*"|\d+', '…', 'g') AS said, count(*) AS n
FROM rejects WHERE list_contains(?, stage) AND (stage = 'load' AND source IN (SELECT source FROM origins)) = ?
GROUP BY ALL ORDER BY n DESC, stage, said
"""
_LEFT_OUT = """
SELECT count(*) FROM questions ANTI JOIN sub_questions USING (question_id)
ANTI JOIN (SELECT question_id FROM rejects WHERE stage = 'decompose') USING (question_id)
"""
_GATES = """
SELECT rejected_by, count(*) AS n FROM listing WHERE NOT passed GROUP BY rejected_by ORDER BY n DESC, rejected_by
"""


def funnel(connection: duckdb.DuckDBPyConnection, manifest: Manifest, numbers: Mapping[str, Any]) -> list[Step]:
    """Return the steps of which there is a number. Questions, hops and queries each have their own 100 %.

    There is none where no question was read, and none was composed of documents.
    """
    if not numbers["read"]:
        return []

    def step(name: str, note: str, whole: str, lost: Sequence[Step] = (), link: str | None = None) -> Step:
        reasons = [each for each in lost if each["count"]]
        return {
            "name": name,
            "count": numbers[name],
            "note": note,
            "whole": numbers[whole],
            "link": None if numbers["trajectories"] is None else link,
            "lost": reasons,
        }

    def queries(name: str, note: str, verdict: str) -> Step:
        link = trajectories({"queries.verdict": _VERDICTS[verdict]})
        return reason(name, note, numbers[verdict] or 0, None if numbers["trajectories"] is None else link)

    dropped = queries("voted out", "too few engines find a gold passage", "dropped")
    waiting = queries("waiting", "too few engines answered: stepsearch-data retry-failed", "waiting")
    unusable = [*rejected(connection, "decompose"), *_left_out(connection, manifest)]
    have_all = numbers["questions"] == numbers["trajectories"]  # else the list has fewer than this
    steps = [
        step(
            "read",
            "questions, of documents too" if numbers["composed"] else "rows of the sources",
            "read",
            rejected(connection, "load"),
        ),
        step("questions", "that can be used", "read", unusable, trajectories() if have_all else None),
        step("hops", "sub-questions", "hops", rejected(connection, "queries"), trajectories({"hops.hop_min": 1})),
        step(
            "queries",
            "search queries written for the hops",
            "queries",
            [dropped, waiting],
            trajectories({"queries.hop_min": 1}),
        ),
        step(
            "kept",
            "queries that pass the vote",
            "queries",
            rejected(connection, "retrieve", "filter", "trajectories"),
            trajectories({"queries.verdict": "kept"}),
        ),
        step(
            "trajectories",
            "whole rollouts, one per question",
            "read",
            _by_gate(connection, manifest),
            trajectories(),
        ),
        step("passed", "trajectories that pass all gates", "read", link=trajectories(passed=True)),
    ]
    return [each for each in steps if each["count"] is not None]


_VERDICTS = {"dropped": "rejected", "waiting": "waiting"}
"""The verdicts of queries that are counted under these names."""


def reason(name: str, note: str, count: int, link: str | None = None) -> Step:
    """Make a reason for which rows are lost."""
    return {"name": name, "count": count, "note": note, "whole": None, "link": link, "lost": []}


def rejected(connection: duckdb.DuckDBPyConnection, *stages: str, documents: bool = False) -> list[Step]:
    """Count the rejects of stages by reason: documents that could not be read, or all others."""
    rows = connection.execute(_REJECTS, [list(stages), documents]).fetchall()
    return shortened([reason(stage, said, n, rejects(stage=stage, reason=said)) for stage, said, n in rows])


def shortened(reasons: list[Step]) -> list[Step]:
    """Keep the most frequent reasons, and count the others together."""
    others = reasons[_REASONS:]
    rest = reason("others", f"{len(others)} other reasons", sum(each["count"] for each in others))
    return [*reasons[:_REASONS], *([rest] if others else [])]


def _left_out(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Step]:
    """Count unanswerable twins, of which hops are made only by choice."""
    ((count,),) = connection.execute(_LEFT_OUT).fetchall()
    if not count or manifest.output(SUB_QUESTIONS.name) is None:
        return []
    return [reason("unanswerable", "left out: decompose.unanswerable is off", count)]


def _by_gate(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Step]:
    """Count rejected trajectories, each by the first gate that rejects it."""
    if manifest.output(QUALITY.name) is None:
        return []
    rows = connection.execute(_GATES).fetchall()
    fields = QualityConfig.model_fields
    notes = {gate: fields[gate].description or "" if gate in fields else "" for gate, _ in rows}
    return [reason(gate, notes[gate], n, trajectories(passed=False, rejected_by=gate)) for gate, n in rows]
