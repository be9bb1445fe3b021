"""Rollouts as data: a policy plays the questions of a store, which then keeps what it did, scored turn by turn.

`eval` plays, and the stages from `rollouts` on keep. Here is what leads from one to the other: the policy's name, its
folder, the settings by which later builds know both, and what the store then holds.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stepsearch_data.builds import make_build, recalled, run_config
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.intervals import BANDS, Passes
from stepsearch_data.core.progress import Reporter
from stepsearch_data.core.toml import write_value
from stepsearch_data.core.validation import shortened
from stepsearch_data.evaluation.measure import interval
from stepsearch_data.pipeline.store import Store
from stepsearch_data.sources.rollouts import ROLLOUTS
from stepsearch_data.sql import query

_NAME = re.compile(r"[^/=.\s]([^/=]*[^/=\s])?")
_LONGEST_NAME = 120  # bytes; a file system takes 255 of a name
_PLAYING = ("llm.", "engines.")  # settings of who plays, not of what the store is made of
_PASSES = """
SELECT policy, count(*) FILTER ("right") AS passed, count(*) AS n FROM rollouts
GROUP BY policy, question_id ORDER BY policy, question_id
"""
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
    own: tuple[str, ...]
    """The other settings of the build."""
    policies: tuple[str, ...]
    """Whose rollouts the store then keeps, as NAME=PATH."""
    counted: str
    """The policy whose pass rates count; "" where the store keeps one alone."""
    untold: str
    """What a run file must have for later builds to know them; "" where they do."""

    @property
    def settings(self) -> tuple[str, ...]:
        """Return the settings of the build."""
        return (*self.own, f"rollouts.policies={write_value(list(self.policies))}")


def name_policy(model: str) -> str:
    """Name a policy by the last part of its model's name or folder; a checkpoint also by its run."""
    path = Path(model).resolve()
    if path.name == "policy" and (path.is_dir() or path.parent.name.startswith("checkpoint-")):
        path = path.parent  # it is not the name of a model on the Hub
    return f"{path.parent.name}-{path.name}" if path.name.startswith("checkpoint-") else path.name


def plan_keeping(
    store: Store, folder: Path, policy: str | None, config: Path | None, settings: Sequence[str]
) -> Keeping:
    """Find the settings of a build that keeps the rollouts of a folder, beside those that the store keeps already.

    Without a name, the policy is the one that the store knows the folder by, or has the folder's name. Where another
    policy was alone so far, its pass rates go on to count. Raises ConfigError.
    """
    own = [setting for setting in settings if not setting.strip().startswith(_PLAYING)]
    before = recalled(store)
    run = run_config(config, own, remembered=before.settings)
    _check_sections(own, list(run.stages))
    kept: Any
    quality: Any
    pick: Any
    kept, quality, pick = (run.stages[name] for name in ("rollouts", "quality", "pick"))
    if not kept.policies and "rollouts.policies" in before.lost.keys() - run.given:
        raise ConfigError(
            "the store keeps rollouts whose files are not known here",
            "name them: --set 'rollouts.policies=[\"NAME=FILE\"]'; or without them: --set rollouts.policies=default",
        )
    here = _file(folder)
    if config and "rollouts.policies" not in run.given:
        _check_named(config, kept.policies, before.settings.get("rollouts", {}).get("policies", []), here)
    entries = {text: _named(text) for text in kept.policies}
    known = {text: name for text, (name, file) in entries.items() if file == here}
    name = next(iter(known.values()), folder.resolve().name) if policy is None else policy
    _check_name(name)
    others = [] if known else [text for text, (named, _) in entries.items() if named == name]
    for text in others:
        if entries[text][1].exists():
            place = text.partition("=")[2]
            raise ConfigError(
                f"the store keeps rollouts of {name} from another folder: {place}",
                f"name this one with --policy; or go on there: --output {shlex.quote(place)}",
            )
    entry = f"{name}={folder.absolute()}"
    replaced = {text for text in known if known[text] != name}.union(others)
    policies = [entry if text in replaced else text for text in entries]
    policies = list(dict.fromkeys(policies if known else [*policies, entry]))
    names = list(dict.fromkeys(_named(text)[0] for text in policies))
    earlier = before.settings.get("quality", {}).get("policy", "")
    first = earlier if earlier in names and "quality.policy" not in run.given else names[0]
    counted = quality.policy or (first if len(names) > 1 else "")
    for setting, wanted in (("quality.policy", counted), ("pick.teacher", pick.teacher)):
        if wanted and wanted not in names:
            raise ConfigError(f"{setting} is {wanted}, of which there are no rollouts", f"one of {', '.join(names)}")
    own += [f"quality.policy={write_value(counted)}"] if counted else []
    untold = [] if known and not replaced else [f"under [rollouts] policies = {write_value(policies)}"]
    untold += [] if counted == quality.policy else [f"under [quality] policy = {write_value(counted)}"]
    return Keeping(name, folder, tuple(own), tuple(policies), counted, ", and ".join(untold) if config else "")


def check_build(keeping: Keeping, place: Path, config: Path | None) -> None:
    """Raise what the build would refuse, before anything is played: no rollouts stand for those to come."""
    with tempfile.TemporaryDirectory() as empty:
        coming = Path(empty) / ROLLOUTS
        coming.touch()
        here = _file(keeping.folder)
        policies = [f"{keeping.policy}={coming}" if _named(text)[1] == here else text for text in keeping.policies]
        settings = (*keeping.own, f"rollouts.policies={write_value(policies)}")
        make_build(("all", "rollouts", None), None, place, config, settings, lambda _: None).plan()


def keep(keeping: Keeping, store: Store, config: Path | None, reporter: Reporter, say: Callable[[str], None]) -> None:
    """Build what follows from the rollouts, in a store that is locked.

    The store remembers the policy once its rollouts are a table: none that is refused stays in its settings.
    Raises StepSearchError.
    """
    make = partial(make_build, sources=None, store=None, config=config, settings=keeping.settings, held=store)
    make(("rollouts", None, None), say=say, remembers=False).run(reporter)
    make(("all", "trajectories", None), say=lambda _: None).run(reporter)


def _check_sections(settings: Sequence[str], stages: Sequence[str]) -> None:
    """Raise ConfigError for settings of stages before `rollouts`: they would change what is played."""
    early = {*stages[: stages.index("rollouts")], "prompts"}
    for setting in settings:
        if setting.strip().partition(".")[0] in early:
            fault = f"--set {setting}: the questions that are played would change with it"
            raise ConfigError(fault, "build with it first: stepsearch-data build --set STAGE.KEY=VALUE")


def _check_named(config: Path, named: Sequence[str], earlier: Sequence[str], here: Path) -> None:
    """Raise ConfigError where the store keeps rollouts that neither the run file names nor are played `here`."""
    files = {here, *(_named(text)[1] for text in named)}
    lost = [text for text in earlier if _named(text)[1] not in files]
    if lost:
        names = ", ".join(dict.fromkeys(_named(text)[0] for text in lost))
        raise ConfigError(
            f"the store keeps rollouts of {names}, which {config} does not name",
            f"write into it, under [rollouts]: policies = {write_value([*named, *lost])}",
        )


def _check_name(name: str) -> None:
    if not (_NAME.fullmatch(name) and name.isprintable() and len(name.encode()) <= _LONGEST_NAME):
        fault = f"{shortened(name)!r} cannot be the name of a policy and its folder"
        raise ConfigError(
            fault, f"name it in up to {_LONGEST_NAME} bytes, without / and =, or spaces around it: --policy NAME"
        )


def _named(text: str) -> tuple[str, Path]:
    """Return the policy and the file of rollouts of `NAME=PATH`."""
    name, _, place = text.partition("=")
    return name, _file(Path(place))


def _file(place: Path) -> Path:
    """Return the file of rollouts of a path, which may be a folder that is not made yet."""
    place = place.resolve()
    return place if place.name == ROLLOUTS or place.is_file() else place / ROLLOUTS


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
