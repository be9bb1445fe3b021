"""How often a policy passes a question: counted in the table `rollouts`."""

from __future__ import annotations

from pathlib import Path

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.intervals import Passes

KEEP_SOME = "play some: stepsearch-data rollouts --help"
"""What to say where a store keeps no rollouts."""


def count_passes(rollouts: Path, policy: str) -> dict[str, Passes]:
    """Count the rollouts of each question, of a policy or of the only one. Raises ConfigError where it is not clear."""
    import polars as pl

    table = pl.scan_parquet(rollouts, glob=False)
    policies = sorted(table.select(pl.col("policy").unique()).collect()["policy"].to_list())
    if policy not in policies and (policy or len(policies) > 1):
        known = f"no rollouts of {policy}" if policy else f"rollouts of {len(policies)} policies"
        named = ", ".join(policies) or "none"
        raise ConfigError(f"the store has {known}", f"--set quality.policy=NAME, one of {named}")
    chosen = table.filter(policy=policy) if policy else table
    counted = chosen.group_by("question_id").agg(pl.col("right").sum(), pl.len())
    return {question_id: Passes(right, count) for question_id, right, count in counted.collect().iter_rows()}
