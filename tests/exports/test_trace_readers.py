"""Traces as others read them: trajectories by Harbor's own models, sessions as the Hub turns them into rows.

Both need packages that the suite does without (`make test-long` installs them), and nothing that these ask for.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from datasets import load_dataset

from stepsearch_data.exports.traces import atif, session, session_lines
from stepsearch_data.templates.files import load_template
from tests.exports.conftest import Export, path_of, played, rows_of, soup, table

pytestmark = pytest.mark.long
TEMPLATE = load_template("musique")


@pytest.fixture(scope="module")
def trajectory() -> Any:
    return pytest.importorskip(
        "harbor.models.trajectories", reason="needs harbor: make test-long installs it"
    ).Trajectory


def test_harbor_accepts_every_trajectory(trajectory: Any, export: Export, sample_store: Path) -> None:
    lines = path_of(export("atif")).read_bytes().splitlines()
    assert len(lines) == len(table(sample_store, "rollouts"))
    for line in lines:
        read = trajectory.model_validate_json(line)
        assert orjson.loads(orjson.dumps(read.to_json_dict(exclude_none=False)))["extra"] == orjson.loads(line)["extra"]
        assert {step.extra["step_reward"] for step in read.steps if step.tool_calls} <= {
            turn["step_reward"] for turn in table(sample_store, "rollout_turns").to_dicts()
        }


def test_harbor_accepts_a_trajectory_of_any_text(trajectory: Any) -> None:
    rng = Random(5)
    called = 0
    for _ in range(2_000):
        (row,) = atif(played(*soup(rng)), TEMPLATE)
        read = trajectory.model_validate_json(orjson.dumps(row))
        called += sum(len(step.tool_calls or ()) for step in read.steps)
    assert called > 500


def test_harbor_refuses_what_is_none(trajectory: Any) -> None:
    """Its models look at what these tests rely on."""
    (row,) = atif(played("<search>a</search><information>b</information>"), TEMPLATE)
    row["steps"][1]["observation"]["results"][0]["source_call_id"] = "search-2"
    with pytest.raises(ValueError, match="search-2"):
        trajectory.model_validate(row)
    with pytest.raises(ValueError, match="reward"):
        trajectory.model_validate({**atif(played(""), TEMPLATE)[0], "reward": 1.0})


def test_the_hub_makes_a_row_of_each_session(export: Export, hub_cache: str) -> None:
    pytest.importorskip("teich", reason="needs teich: make test-long installs it")
    written = export("traces")
    loaded = load_dataset(str(path_of(written).parent), split="train", cache_dir=hub_cache)
    sessions = rows_of(written)
    assert loaded["session_id"] == [row["session"]["id"] for row in sessions]
    assert loaded["prompt"] == [row["messages"][0]["message"]["content"] for row in sessions]
    for text, row in zip(loaded["trace"], sessions, strict=True):
        assert text.encode() == session_lines(row)


def test_the_hub_makes_a_row_of_a_session_of_any_text(tmp_path: Path, hub_cache: str) -> None:
    pytest.importorskip("teich", reason="needs teich: make test-long installs it")
    rng = Random(6)
    made = []
    for at in range(100):
        (row,) = session(played(*soup(rng)), TEMPLATE)
        made.append(session_lines(row))
        (tmp_path / f"{at:03}.jsonl").write_bytes(made[-1])
    loaded = load_dataset(str(tmp_path), split="train", cache_dir=hub_cache)
    assert [text.encode() for text in loaded["trace"]] == made
