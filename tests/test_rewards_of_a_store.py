"""The rewards in a store, those that `score` gives its rollouts, and those of an exported row are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepsearch_data.rewards import REFERENCE, score_rollout
from tests.conftest import Run

ROOT = Path(__file__).resolve().parents[1]
SCORES = ("answer_correct", "information_gain", "redundancy_penalty", "step_scores", "search_key_score")


@pytest.fixture
def stored(sample_store: Path, cli: Run) -> dict[str, Any]:
    """The rewards in the store, by question."""
    found = cli(
        "sql",
        "SELECT question_id, any_value(answer_reward) AS answer_correct, any_value(key_reward) AS search_key_score,"
        " list(information_gain ORDER BY round) AS information_gain, list(step_reward ORDER BY round) AS step_scores,"
        " list(redundancy_penalty ORDER BY round) AS redundancy_penalty"
        " FROM rounds JOIN trajectories USING (question_id) GROUP BY question_id",
        *("--store", sample_store, "-f", "json"),
    )
    return {row.pop("question_id"): row for row in json.loads(found.stdout)}


def test_score_agrees_with_the_store(stored: dict[str, Any], sample_store: Path, tmp_path: Path, cli: Run) -> None:
    """By the very query that docs/rewards.md shows."""
    (query,) = re.findall(
        r"```sql\n(-- save it as gold.sql.*?)```", (ROOT / "docs" / "rewards.md").read_text(), re.DOTALL
    )
    gold = tmp_path / "gold.parquet"
    saved = cli("sql", "-", "--store", sample_store, "-f", "parquet", "-o", gold, stdin=query)
    assert saved.returncode == 0, saved.stderr
    scored = cli("score", gold, "--preset", "paper", "--json", "--quiet")
    assert scored.returncode == 0, scored.stderr
    rows = [json.loads(line) for line in scored.stdout.splitlines()]
    ids = pq.read_table(gold, columns=["question_id"])["question_id"].to_pylist()
    assert len(rows) == len(stored) > 50
    for question_id, row in zip(ids, rows, strict=True):
        assert {name: row[name] for name in SCORES} == stored[question_id]


def test_an_exported_row_of_the_release_earns_everything(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    """Columns are taken as the released trainer takes them; the gold rollout must please its rewards."""
    done = cli("export", "-f", "stepsearch", "-o", tmp_path, "--store", sample_store, "--quiet")
    assert done.returncode == 0, done.stderr
    rollouts = json.loads(
        cli("sql", "SELECT question, rollout FROM trajectories", "--store", sample_store, "-f", "json").stdout
    )
    by_question = {row["question"]: row["rollout"] for row in rollouts}
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    keys = []
    for row in rows:
        truth, extra = row["reward_model"]["ground_truth"], row["extra_info"]
        rollout = next(text for question, text in by_question.items() if question in row["prompt"][-1]["content"])
        texts = [document["paragraph_text"] for document in extra["support_docs"]]
        scores = score_rollout(rollout, truth["target"], truth["search_keys"], texts, REFERENCE)
        assert scores.answer_correct == 1.0
        keys.append(scores.search_key_score)
        assert sum(scores.information_gain) > 0.9
    assert sum(keys) / len(keys) > 0.95  # a query credits one sub-question there, so equal ones leave one without
