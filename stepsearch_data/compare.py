"""Two stores compared: settings that differ, counts, gates, and trajectories gained, lost and changed, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import polars as pl

from stepsearch_data.core.errors import StoreError
from stepsearch_data.pipeline.catalog import check_current
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.remembered import flat
from stepsearch_data.schemas.tables import REJECTS, TABLES
from stepsearch_data.sql import connect

Pair = tuple[Any, Any]
"""A value of each store; None where it has none."""

_PARTS = ("answer", "sub_questions", "queries", "alternatives", "documents", "split")
"""What may differ between two trajectories of a question."""
# A trajectory is one line of hashes, so that two stores of any size can be joined in memory.
_TRAJECTORIES = """
WITH known AS (
    SELECT question_id FROM questions UNION SELECT question_id FROM rejects WHERE question_id IS NOT NULL
), parts AS (
    SELECT question_id,
           bit_xor(hash(round, hop, role, sub_question, sub_answer)) AS sub_questions,
           bit_xor(hash(round, query)) AS queries,
           bit_xor(hash(round, alternatives)) AS alternatives,
           bit_xor(hash(round, [coalesce(d.passage_id, d.title || d.text) FOR d IN documents])) AS documents
    FROM rounds GROUP BY question_id
), rejected AS (
    SELECT question_id, any_value(stage || ' rejected it: ' || reason) AS reason FROM rejects GROUP BY question_id
)
SELECT question_id, coalesce(complete AND passed, false) AS fit,
       hash(t.answer) AS answer, sub_questions, queries, alternatives, documents, split,
       CASE WHEN passed AND NOT complete THEN 'it is not complete'
            WHEN NOT passed THEN array_to_string(reasons, '; ')
            ELSE coalesce(reason, 'it has no trajectory') END AS why
FROM known LEFT JOIN trajectories t USING (question_id) LEFT JOIN quality USING (question_id)
     LEFT JOIN parts USING (question_id) LEFT JOIN rejected USING (question_id)
"""
_COUNTS = """
SELECT 'queries_kept' AS name, count(*) FILTER (kept) AS count FROM queries UNION ALL
SELECT 'trajectories_complete', count(*) FILTER (complete) FROM trajectories UNION ALL
SELECT 'trajectories_passed', count(*) FILTER (passed) FROM quality UNION ALL
SELECT 'trajectories_in_' || split, count(*) FROM quality WHERE passed GROUP BY split ORDER BY name
"""
_GATES = "SELECT flag, count(*) FROM (SELECT unnest(flags) AS flag FROM quality) GROUP BY flag ORDER BY flag"


def compare(a: Store, b: Store) -> dict[str, Any]:
    """Return what differs between two stores; every pair is a value of `a` and one of `b`.

    `settings` differ; `counts` are rows of tables and parts of them; `kept_share` of all queries; `gates` flag so many
    trajectories. A trajectory counts where it is fit for training: complete, and passed by the gates. `gained` are
    only in `b`, `lost` only in `a`, each with the reason why the other store lacks it. `changed` are in both, with what
    `differs`: answer, sub_questions, queries, alternatives (the other kept queries), documents, split.

    Raises StoreError where one of them is not complete or not up to date.
    """
    ours, theirs = _Side(a), _Side(b)
    both = ours.trajectories.join(theirs.trajectories, on="question_id", how="full", coalesce=True, suffix="_b")
    both = both.with_columns(pl.col("fit", "fit_b").fill_null(value=False)).sort("question_id")
    absent = pl.lit("it is not among its questions")
    gained = both.filter(~pl.col("fit"), pl.col("fit_b")).select("question_id", pl.col("why").fill_null(absent))
    lost = both.filter(pl.col("fit"), ~pl.col("fit_b")).select("question_id", why=pl.col("why_b").fill_null(absent))
    differs = [pl.when(pl.col(part).ne_missing(pl.col(f"{part}_b"))).then(pl.lit(part)) for part in _PARTS]
    changed = both.filter("fit", "fit_b").select("question_id", differs=pl.concat_list(differs).list.drop_nulls())
    return {
        "stores": (a.name, b.name),
        "digests": (ours.digest, theirs.digest),
        "settings": dict(_differing(ours.manifest, theirs.manifest)),
        "counts": _paired(ours.counts, theirs.counts),
        "kept_share": tuple(side.counts["queries_kept"] / max(1, side.counts["queries"]) for side in (ours, theirs)),
        "gates": _paired(ours.gates, theirs.gates),
        "gained": gained.to_dicts(),
        "lost": lost.to_dicts(),
        "changed": changed.filter(pl.col("differs").list.len() > 0).to_dicts(),
    }


class _Side:
    """What is compared of one store."""

    def __init__(self, store: Store) -> None:
        check_current(store)
        with store.reading() as self.manifest, connect(store, self.manifest) as connection:
            try:
                self.trajectories = connection.sql(_TRAJECTORIES).pl()
                parts = dict(connection.execute(_COUNTS).fetchall())
                self.gates = dict(connection.execute(_GATES).fetchall())
            except duckdb.CatalogException as error:
                build = f"stepsearch-data build --store {store.name}"
                raise StoreError(f"the store {store.name} is not built to its end", build) from error
            self.digest = store.digest()
        outputs = {table.name: self.manifest.output(table.name) for table in TABLES if table is not REJECTS}
        self.counts: dict[str, int] = {name: output.rows or 0 for name, output in outputs.items() if output} | parts


def _paired(ours: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, Pair]:
    return {name: (ours.get(name, 0), theirs.get(name, 0)) for name in {**ours, **theirs}}


def _differing(ours: Manifest, theirs: Manifest) -> Iterator[tuple[str, Pair]]:
    """Yield settings that differ, under the names that `--set` takes, and versions, sources, files and prompts."""
    before, after = dict(_settings(ours)), dict(_settings(theirs))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield key, (before.get(key), after.get(key))


def _settings(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    written = {name for entry in manifest.stages.values() for name in entry.outputs}
    for stage, entry in manifest.stages.items():
        for key, value in flat({name: part for name, part in entry.fingerprint.items() if name != "outputs"}):
            part, _, name = key.partition(".")
            if part == "inputs" and name in written:
                continue  # it follows from an earlier stage
            yield {"config": f"{stage}.{name}", "engines": key}.get(part, f"{stage}.{key}"), value
