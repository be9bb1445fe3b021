"""Two stores compared, as the page shows it: what `compare` finds, with the questions of the trajectories it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import polars as pl

from stepsearch_data.compare import Pair, compare
from stepsearch_data.core.toml import write_value
from stepsearch_data.pipeline.catalog import frame
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.links import trajectories
from stepsearch_data.report.shapes import Change, Comparison, Facts
from stepsearch_data.schemas.tables import QUESTIONS

_FILTERS: dict[str, dict[str, Any]] = {
    "trajectories": {},
    "trajectories_complete": {"complete": True},
    "trajectories_passed": {"passed": True},
    "trajectories_in_train": {"passed": True, "split": "train"},
    "trajectories_in_validation": {"passed": True, "split": "validation"},
}
"""Filters of the trajectories that a count is of."""


def comparison(a: Store, b: Store) -> Comparison:
    """Compare two stores; a report of `b` shows it. No path of this machine is in it.

    Raises StoreError where one of them is not complete or not up to date.
    """
    found = compare(a, b)
    counts, gates, shares = found["counts"], found["gates"], found["kept_share"]
    words = {name.replace("_", " "): pair for name, pair in counts.items()}
    return {
        "a": a.label,
        "b": b.label,
        "fit": counts.get("trajectories_passed", (0, 0)),
        "kept_share": shares,
        "tables": [
            _settings(found["settings"]),
            _counted("Rows", "what", words, [_FILTERS.get(name) for name in counts]),
            _counted("Trajectories that a gate flags", "gate", gates, [{"flags": gate} for gate in gates]),
        ],
        "changes": _changes(a, b, found),
        "first_chunk": 0,
        "others": [],
    }


def _settings(differing: Mapping[str, Pair]) -> Facts:
    rows: list[list[Any]] = [
        [key, *(None if value is None else write_value(value) for value in pair)] for key, pair in differing.items()
    ]
    return {"title": "Settings that differ", "columns": ["setting", "A", "B"], "rows": rows, "links": []}


def _counted(
    title: str, what: str, counts: Mapping[str, tuple[int, int]], filters: Sequence[Mapping[str, Any] | None]
) -> Facts:
    """Tabulate counts of both stores; `filters` are those of the trajectories that a count of B is of."""
    rows: list[list[Any]] = [[name, ours, theirs, theirs - ours] for name, (ours, theirs) in counts.items()]
    links = [{} if asked is None else {"B": trajectories(asked)} for asked in filters]
    return {"title": title, "columns": [what, "A", "B", "B − A"], "rows": rows, "links": links}


def _changes(a: Store, b: Store, found: Mapping[str, Any]) -> list[Change]:
    """Name the trajectories that were lost, gained and changed, with the questions that either store has of them."""
    named: Iterable[tuple[str, str, list[str]]] = [
        *(("lost", one["question_id"], [one["why"]]) for one in found["lost"]),
        *(("gained", one["question_id"], [one["why"]]) for one in found["gained"]),
        *(("changed", one["question_id"], one["differs"]) for one in found["changed"]),
    ]
    columns = ("question", "source", "hops")
    changes = pl.DataFrame(named, {"kind": pl.String, "id": pl.String, "reasons": pl.List(pl.String)}, orient="row")
    for store, suffix in ((a, ""), (b, "_b")):
        asked = frame(store, store.manifest(), QUESTIONS.name).select(pl.col("question_id").alias("id"), *columns)
        changes = changes.join(asked.collect(), on="id", how="left", maintain_order="left", suffix=suffix)
    told = changes.select("id", "kind", "reasons", *(pl.coalesce(name, f"{name}_b") for name in columns))
    return cast("list[Change]", told.to_dicts())
