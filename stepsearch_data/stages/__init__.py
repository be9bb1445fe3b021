"""What the stages do: one file per stage, in the order of the DAG."""

from collections.abc import Mapping
from typing import Any

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.validation import known_names
from stepsearch_data.stages import (
    compose,
    corpus,
    decide,
    decompose,
    gather,
    index,
    load,
    mine,
    pairs,
    pick,
    quality,
    queries,
    retrieve,
    rollouts,
    trajectories,
    verify,
)
from stepsearch_data.stages import filter as voting

STAGES = (
    load.STAGE,
    mine.STAGE,
    compose.STAGE,
    index.STAGE,
    verify.STAGE,
    decide.STAGE,
    gather.STAGE,
    corpus.STAGE,
    decompose.STAGE,
    queries.STAGE,
    retrieve.STAGE,
    voting.STAGE,
    rollouts.STAGE,
    trajectories.STAGE,
    quality.STAGE,
    pairs.STAGE,
    pick.STAGE,
)


def select(stage: str = "all", first: str | None = None, last: str | None = None) -> list[str]:
    """Return the names of the chosen stages in order: `all`, a list with commas, or a range. Raises ConfigError."""
    names = [s.name for s in STAGES]
    if stage != "all":
        if first or last:
            raise ConfigError("--stage and --from/--to exclude each other")
        chosen = [_known(name.strip(), names) for name in stage.split(",")]
        return [name for name in names if name in chosen]
    start = names.index(_known(first, names)) if first else 0
    end = names.index(_known(last, names)) if last else len(names) - 1
    if start > end:
        raise ConfigError(f"--from {first} comes after --to {last}", f"the order is {', '.join(names)}")
    return names[start : end + 1]


def _known(name: str, names: list[str]) -> str:
    if name not in names:
        raise ConfigError(f"there is no stage {name!r}", known_names(name, names))
    return name


def check(configs: Mapping[str, Any], engines: int) -> None:
    """Refuse settings that contradict each other, or the number of engines. Raises ConfigError."""
    rule = configs["filter"].rule
    if isinstance(rule, int) and rule > engines:
        raise ConfigError(
            f"filter.rule is {rule}, but {engines} engines vote: no query would be kept", "name more: --engine"
        )
    top_k = configs["retrieve"].top_k
    for stage, setting in (("filter", "k"), ("trajectories", "documents"), ("pairs", "documents")):
        value = getattr(configs[stage], setting)
        if value > top_k:
            raise ConfigError(
                f"{stage}.{setting} is {value}, but only {top_k} documents are retrieved",
                f"--set retrieve.top_k={value}",
            )
