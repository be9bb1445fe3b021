"""Rollouts as data: a policy plays the questions of a store, which then keeps what it did, scored turn by turn.

`eval` plays, and the stages from `rollouts` on keep. Here is what leads from one to the other: the policy's name, its
folder, the settings by which later builds know both, and what the store then holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepsearch_data.builds import recalled, run_config
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.intervals import BANDS, Passes
from stepsearch_data.core.toml import write_value
from stepsearch_data.core.validation import shortened
from stepsearch_data.evaluation.measure import interval
from stepsearch_data.pipeline.store import Store
from stepsearch_data.sources.rollouts import ROLLOUTS, policy_file
from stepsearch_data.sql import query

_NAME = re.compile(r"[^/=.][^/=]{0,119}")
_PLAYING = ("llm.", "engines.")  # settings of who plays, not of what the store is made of
_PASSES = 'SELECT policy, count(*) FILTER ("right") AS passed, count(*) AS n FROM rollouts GROUP BY policy, question_id'
_PICKS = "SELECT policy, failed, count(*) AS n, min(reason) AS example FROM picks GROUP BY policy, failed ORDER BY ALL"
_REJECTS = """
SELECT source AS policy, reason, count(*) AS n FROM rejects WHERE stage = 'rollouts'
GROUP BY ALL ORDER BY n DESC, reason
"""


@dataclass(frozen=True)
class Keeping:
    """How a store keeps a policy's rollouts: under which name, from which folder, by which settings of a build."""

    policy: str
    folder: Path
    settings: tuple[str, ...]
    counted: str
    """The policy whose pass rates count; "" where the store keeps one alone."""
    told: bool
    """Whether later builds know the folder: always, but for a run file that does not name it."""


def name_policy(model: str) -> str:
    """Name a policy by the last part of its model's name or folder; a checkpoint also by its run."""
    path = Path(model).resolve()
    path = path.parent if path.name == "policy" else path
    return f"{path.parent.name}-{path.name}" if path.name.startswith("checkpoint-") else path.name


def plan_keeping(
    store: Path, folder: Path, policy: str | None, config: Path | None, settings: Sequence[str]
) -> Keeping:
    """Find the settings of a build that keeps the rollouts of a folder, beside those that the store keeps already.

    Without a name, the policy is the one that the store knows the folder by, or has the folder's name. Where another
    policy was alone so far, its pass rates go on to count. Raises ConfigError.
    """
    own = [setting for setting in settings if not setting.strip().startswith(_PLAYING)]
    before = recalled(store)
    run = run_config(config, own, store, remembered=before.settings)
    if not config and "rollouts.policies" in before.lost.keys() - run.given:
        raise ConfigError(
            "the store keeps rollouts whose files are not known here",
            "name them: --set 'rollouts.policies=[\"NAME=FILE\"]'; or without them: --set rollouts.policies=default",
        )
    kept: Any
    quality: Any
    pick: Any
    kept, quality, pick = (run.stages[name] for name in ("rollouts", "quality", "pick"))
    at = {folder.resolve(), (folder / ROLLOUTS).resolve()}
    known = {
        text: text.partition("=")[0] for text in kept.policies if policy_file(text.partition("=")[2])[1].resolve() in at
    }
    name = next(iter(known.values()), folder.resolve().name) if policy is None else policy
    if not (_NAME.fullmatch(name) and name.isprintable()):
        fault = f"{shortened(name)!r} cannot be the name of a policy and its folder"
        raise ConfigError(fault, "name it in up to 120 letters, without / and =: --policy NAME")
    entry = f"{name}={folder.absolute()}"
    policies = [entry if text in known and known[text] != name else text for text in kept.policies]
    policies += [] if known else [entry]
    names = list(dict.fromkeys(text.partition("=")[0] for text in policies))
    counted = quality.policy or (names[0] if len(names) > 1 else "")
    for setting, wanted in (("quality.policy", counted), ("pick.teacher", pick.teacher)):
        if wanted and wanted not in names:
            raise ConfigError(f"{setting} is {wanted}, of which there are no rollouts", f"one of {', '.join(names)}")
    own.append(f"rollouts.policies={write_value(policies)}")
    own += [f"quality.policy={write_value(counted)}"] if counted else []
    return Keeping(name, folder, tuple(own), counted, told=not config or bool(known))


def describe(store: Store, policy: str) -> dict[str, Any]:
    """Return what a store holds of a policy's rollouts: how often it passes, its bands, rejects and picks.

    `pass_rate` is the mean over questions, with a bootstrapped 95 % interval over questions; None without rollouts.
    """
    passes = [Passes(row["passed"], row["n"]) for row in _rows(store, _PASSES, policy)]
    found: dict[str, Any] = {
        "questions": len(passes),
        "rollouts": sum(each.rollouts for each in passes),
        "pass_rate": None,
        "pass_rate_interval": None,
    }
    if passes:
        rates = np.array([[each.rate] for each in passes])
        (low,), (high,) = interval(rates)
        found |= {"pass_rate": float(rates.mean()), "pass_rate_interval": [low, high]}
    counted = Counter(each.band for each in passes)
    found["bands"] = {band: counted[band] for band in BANDS}
    found["rejected"] = [{"reason": row["reason"], "rollouts": row["n"]} for row in _rows(store, _REJECTS, policy)]
    found["picks"] = [
        {"failed": row["failed"], "rollouts": row["n"], "example": row["example"]}
        for row in (_rows(store, _PICKS, policy) if store.manifest().output("picks") else ())
    ]
    return found


def _rows(store: Store, sql: str, policy: str) -> list[dict[str, Any]]:
    with query(store, sql) as reader:
        return [row for row in reader.read_all().to_pylist() if row["policy"] == policy]
