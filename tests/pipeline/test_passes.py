"""Pass rates of questions, counted for one policy."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.pipeline.passes import count_passes
from stepsearch_data.schemas.tables import ROLLOUTS
from tests.builders import rollout


def test_of_one_policy(tmp_path: Path) -> None:
    rows = [rollout("q1", "a", at, right=at == 1) for at in (1, 2)] + [
        rollout("q1", "b"),
        rollout("q2", "b", right=True),
    ]
    pq.write_table(ROLLOUTS.to_arrow(rows), tmp_path / "two")
    pq.write_table(ROLLOUTS.to_arrow(rows[:2]), tmp_path / "one")
    assert count_passes(tmp_path / "two", "a") == count_passes(tmp_path / "one", "") == {"q1": (1, 2)}
    assert count_passes(tmp_path / "two", "b") == {"q1": (0, 1), "q2": (1, 1)}
    for policy, message in {"": "rollouts of 2 policies", "c": "no rollouts of c"}.items():
        with pytest.raises(ConfigError, match=message) as failed:
            count_passes(tmp_path / "two", policy)
        assert failed.value.hint.endswith("one of a, b")
