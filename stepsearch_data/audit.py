"""The data's quality in numbers, over a store's committed tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import duckdb

from stepsearch_data.attrition import steps
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.intervals import share_interval
from stepsearch_data.pipeline.catalog import check_current
from stepsearch_data.pipeline.questions import by_question
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import CHECKS, QUALITY, QUERIES, QUESTIONS, SUB_QUESTIONS, VERDICTS
from stepsearch_data.sql import connect
from stepsearch_data.stages.gates.config import GATES, unchecked
from stepsearch_data.stages.proof.decision import CHECKS as IN_ORDER
from stepsearch_data.stages.proof.decision import whole_below
from stepsearch_data.stages.rules import forbidden, leaked

Numbers = dict[str, Any]

_MEASURES = """
WITH ranks AS (  -- best rank of a gold passage, over all engines, for every written query
    SELECT query_id, min(rank) FILTER (is_gold) AS gold_rank FROM hits GROUP BY query_id
), judged AS (
    SELECT s.source, s.question_id, s.hop, s.hops, q.query_id, q.kept, q.waiting, r.gold_rank
    FROM sub_questions s LEFT JOIN queries q USING (question_id, hop) LEFT JOIN ranks r USING (query_id)
    WHERE len(s.gold_passage_ids) > 0  -- an unanswerable twin has hops that nothing can find
), by_hop AS (
    SELECT source, hops, question_id, hop,
           count(query_id) AS written, count(*) FILTER (kept) AS kept, count(*) FILTER (waiting) AS waiting,
           coalesce(bool_or(kept AND gold_rank <= 3), false) AS hit,
           count(*) FILTER (gold_rank <= 1) AS at_1,
           count(*) FILTER (gold_rank <= 3) AS at_3,
           count(*) FILTER (gold_rank <= 5) AS at_5
    FROM judged GROUP BY ALL
)
SELECT {group} AS part,
       count(DISTINCT question_id) AS questions, count(*) AS hops, sum(written)::BIGINT AS queries,
       avg(hit::INT) AS hop_hit_at_3,
       sum(at_1) / sum(written) AS pass_at_1, sum(at_3) / sum(written) AS pass_at_3,
       sum(at_5) / sum(written) AS pass_at_5,
       sum(kept) / sum(written) AS kept_share, avg(kept) AS kept_per_hop, min(kept) AS kept_per_hop_min,
       sum(waiting)::BIGINT AS waiting
FROM by_hop GROUP BY part ORDER BY part
"""
_ENGINES = """
SELECT engine AS part, count(*) AS queries, count(*) FILTER (answered) AS answered,
       avg(valid::INT) FILTER (answered) AS valid,
       avg(coalesce(b.gold_rank <= 1, false)::INT) FILTER (answered) AS gold_at_1,
       avg(coalesce(b.gold_rank <= 3, false)::INT) FILTER (answered) AS gold_at_3,
       count(*) FILTER (valid AND valid_engines = 1 AND v.engines > 1) AS valid_alone,
       count(*) FILTER (answered AND NOT valid AND valid_engines = v.engines - 1 AND v.engines > 1) AS invalid_alone
FROM engine_votes b JOIN votes v USING (query_id) GROUP BY part ORDER BY part
"""
_GATES = """
SELECT flag AS part, source, count(*) AS count FROM (SELECT source, unnest(flags) AS flag FROM quality) GROUP BY ALL
"""
_SPLITS = """
SELECT if(passed, split, 'rejected') AS part, source, count(*) AS count FROM quality GROUP BY ALL
"""
_CHECKS = """
WITH asked AS (
    SELECT source, "check", question_id, max(judge) AS judge FROM checks
    WHERE outcome IN ('passed', 'failed') GROUP BY ALL
), found AS (SELECT question_id, unnest(failed) AS "check" FROM verdicts)
SELECT source, "check", count(*) AS asked, count(f.question_id) AS failed,
       count(*) FILTER (whole) AS asked_whole, count(f.question_id) FILTER (whole) AS failed_whole,
       max(judge) AS judge, (SELECT max(corpus_passages) FROM verdicts) AS passages
FROM (SELECT *, substr(sha256('whole ' || question_id), 1, 16) < '{whole}' AS whole FROM asked)
LEFT JOIN found f USING (question_id, "check") GROUP BY ALL
"""
_WHOLE = ("by_source", "by_source_and_hops", "by_engine", "by_gate", "unchecked", "by_split")
_COMPLETE = "SELECT {group} AS part, count(*) FILTER (complete) AS complete FROM trajectories GROUP BY part"


def audit(store: Store) -> dict[str, dict[str, Any]]:
    """Measure `by_source`, `by_source_and_hops`, `by_engine`, of trajectories `by_gate` and `by_split`, and `by_check`.

    `by_funnel` counts what is left of documents after each step, with the share of its `of`, and dollars.

    Gates that checked nothing have None for numbers, and `unchecked` holds the reason.
    A query leaks when it holds its own hop's answer, or a later one, that the question does not hold.
    A store that is built as far as `mine` or `decide` has only `by_funnel` and `by_check`. Raises StoreError where it
    holds less.
    """
    check_current(store)
    with store.reading() as manifest, connect(store, manifest) as connection:
        by_funnel = _funnel(connection, manifest)
        try:
            by_source = measure(connection, "source")
            by_hops = measure(connection, "source || ' ' || hops || ' hops'")
            by_engine = _numbers(connection, _ENGINES)
            by_gate = _trajectories(connection, _GATES, GATES, by_source)
            idle = unchecked(manifest.stages[manifest.writer(QUALITY.name)].fingerprint)
            by_gate |= {gate: dict.fromkeys(by_source) for gate in idle}
            by_split = _trajectories(connection, _SPLITS, ("train", "validation", "rejected"), by_source)
            by_check = count_checks(connection, manifest)
        except duckdb.CatalogException as error:
            by_check = count_checks(connection, manifest)
            if by_check or by_funnel:
                return {"by_funnel": by_funnel, **{part: {} for part in _WHOLE}, "by_check": by_check}
            raise StoreError(
                "the store is not built to its end", f"stepsearch-data build --store {store.name}"
            ) from error
        for (source, hops), leaks in _leaks(store, manifest).items():
            if leaks:
                by_source[source]["leaks"] += leaks
                by_hops[f"{source} {hops} hops"]["leaks"] += leaks
    return {
        "by_funnel": by_funnel,
        "by_source": by_source,
        "by_source_and_hops": by_hops,
        "by_engine": by_engine,
        "by_gate": by_gate,
        "unchecked": idle,
        "by_split": by_split,
        "by_check": by_check,
    }


def measure(connection: duckdb.DuckDBPyConnection, group: str) -> dict[str, Numbers]:
    """Measure hops and queries by what the SQL expression `group` says of a hop; leaks are not counted yet."""
    complete = dict(connection.execute(_COMPLETE.format(group=group)).fetchall())
    measured = _numbers(connection, _MEASURES.format(group=group))
    return {part: {**numbers, "complete": complete.get(part, 0), "leaks": 0} for part, numbers in measured.items()}


def _funnel(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> dict[str, Numbers]:
    """Return what is left of documents after each step, with the 95 % interval of the share of its `of`."""
    found = {}
    for step in steps(connection, manifest):
        share = share_interval(step.left, step.of) if step.of else None
        numbers = {"count": step.left, "of": step.of, "share": share and share.mean}
        numbers |= {"low": share and share.low, "high": share and share.high}
        found[step.name] = {**numbers, "dollars": step.dollars, "dollars_each": step.each}
    return found


def count_checks(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> dict[str, Numbers]:
    """Return how many questions of each source fail each check, with the 95 % interval of their share.

    `asked_whole` and `failed_whole` count the questions that go through all checks, whatever fails first: only their
    share tells how common a fault is that later checks look for.
    """
    if not {CHECKS.name, VERDICTS.name} <= {output for entry in manifest.stages.values() for output in entry.outputs}:
        return {}
    whole = whole_below(manifest.stages[manifest.writer(CHECKS.name)].fingerprint["config"]["sample_all"])
    found = connection.sql(_CHECKS.format(whole=whole)).pl().to_dicts()
    found.sort(key=lambda row: (IN_ORDER.index(row["check"]), row["source"]))
    measured = {}
    for row in found:
        share = share_interval(row["failed"], row["asked"])
        numbers = {name: row[name] for name in ("asked", "failed")}
        numbers |= {"share": share.mean, "low": share.low, "high": share.high}
        numbers |= {name: row[name] for name in ("asked_whole", "failed_whole", "judge", "passages")}
        measured[f"{row['source']} {row['check']}"] = numbers
    return measured


def _trajectories(
    connection: duckdb.DuckDBPyConnection, sql: str, parts: Sequence[str], sources: Iterable[str]
) -> dict[str, Numbers]:
    """Return how many trajectories of each source a query counts, for all parts, also where there are none."""
    counts = {(part, source): count for part, source, count in connection.execute(sql).fetchall()}
    return {part: {source: counts.get((part, source), 0) for source in sources} for part in parts}


def _numbers(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Numbers]:
    """Return the results of a query for each `part`."""
    return connection.sql(sql).pl().rows_by_key("part", named=True, unique=True)  # type: ignore[no-any-return]


def _leaks(store: Store, manifest: Manifest) -> Counter[tuple[str, int]]:
    """Count the leaking queries, by source and number of hops."""
    leaks: Counter[tuple[str, int]] = Counter()
    for rows in by_question(store.tables(manifest, QUESTIONS, SUB_QUESTIONS, QUERIES), SUB_QUESTIONS, QUERIES):
        hops, question = rows[SUB_QUESTIONS], rows.question
        for query in rows[QUERIES]:
            secrets = forbidden(hops, query.hop, (question.answer, *question.answer_aliases))
            leaks[question.source, len(hops)] += bool(leaked(query.query, question.question, secrets))
    return leaks
