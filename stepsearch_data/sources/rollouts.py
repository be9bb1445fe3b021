"""Files of rollouts: JSON Lines as `eval` writes them, or another program's, each line a question's."""

from __future__ import annotations

from pathlib import Path

import orjson
from pydantic import ValidationError

from stepsearch_data.schemas.rollouts import RolloutRow

ROLLOUTS = "rollouts.jsonl"
"""The file in the folder of an evaluation."""


def policy_file(given: str) -> tuple[str, Path]:
    """Return a policy's name and its file of `NAME=PATH`, or of a path alone.

    A path may be the folder of an `eval`, whose name is then the policy's.
    """
    name, _, place = ("", "", given) if Path(given).exists() else given.rpartition("=")
    path = Path(place)
    path = path / ROLLOUTS if path.is_dir() else path
    return name or (path.parent.resolve().name if path.name == ROLLOUTS else path.stem), path


def read_rollout(line: bytes) -> RolloutRow | None:
    """Read the line as a rollout, if it is one."""
    try:
        return RolloutRow.model_validate(orjson.loads(line))
    except (orjson.JSONDecodeError, ValidationError):
        return None
