"""Preparing a build, for the command line and for Python: options as settings, and what the store remembers.

Fast to import, as the command line imports it for its help.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.terminal import visible

if TYPE_CHECKING:
    from stepsearch_data.pipeline.config import RunConfig
    from stepsearch_data.pipeline.runner import Runner
    from stepsearch_data.pipeline.store import Store
    from stepsearch_data.remembered import Remembered


def run_config(
    config: Path | None,
    settings: Sequence[str] | None = None,
    store: Path | None = None,
    sources: Sequence[str] | None = None,
    remembered: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Load the run file, or what a store has remembered; `settings` such as `filter.k=5` win. Raises ConfigError."""
    from stepsearch_data.pipeline.config import load_config
    from stepsearch_data.stages import STAGES

    return load_config(STAGES, config, settings or (), store=store, sources=sources or (), remembered=remembered)


def run_config_over(
    config: Path | None, settings: Sequence[str], first: Sequence[str], store: Path | None = None
) -> RunConfig:
    """Load the configuration. `settings` win over `first`, and `first` over what a `store` remembers."""
    return run_config(config, [*first, *settings], remembered=recalled(store).settings if store else None)


def recalled(store: Path | Store) -> Remembered:
    """Return what a store remembers of how it was built."""
    from stepsearch_data.pipeline.store import Store
    from stepsearch_data.remembered import recall
    from stepsearch_data.stages import STAGES

    return recall(Store(store) if isinstance(store, Path) else store, STAGES)


def row_settings(limit: int | None, llm: str | None, prompts: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings that row-deciding options set. A prompt is NAME=FILE. Raises ConfigError."""
    files: dict[str, str] = {}
    for text in prompts or []:
        name, separator, file = text.partition("=")
        if not separator:
            raise ConfigError(f"--prompt {text}: expected NAME=FILE", "for example --prompt decompose=mine.txt")
        files[f"prompts.{name}"] = file
    return {"load.limit": limit, "compose.llm": llm, "decompose.llm": llm, "queries.llm": llm, **files}


def engine_settings(values: Sequence[str] | None) -> list[str]:
    """Convert `--engine NAME` and `--engine NAME=LOCATION` to settings. A second LOCATION of a name gets a new name."""
    names: list[str] = []
    settings: list[str] = []
    for value in values or []:
        kind, separator, location = value.partition("=")
        number = sum(name == kind or name.startswith(f"{kind}-") for name in names) + 1
        name = f"{kind}-{number}" if separator and kind in names else kind
        if name != kind:
            settings.append(f"engines.{name}.kind={json.dumps(kind)}")
        if separator:
            settings.append(f"engines.{name}.at={json.dumps(location)}")
        names.append(name)
    return [f"engines.use={json.dumps(names)}", *settings] if names else []


def merged_settings(options: Mapping[str, Any], settings: Sequence[str] | None) -> list[str]:
    """Convert options to settings, before `settings`, which win."""
    given = {key: json.dumps(value) if value == "default" else value for key, value in options.items()}
    return [*(f"{key}={value}" for key, value in given.items() if value is not None), *(settings or [])]


def make_build(
    stages: tuple[str, str | None, str | None],
    sources: Sequence[str] | None,
    store: Path | None,
    config: Path | None,
    settings: Sequence[str],
    say: Callable[[str], None],
    *,
    fresh: bool = False,
    force: bool = False,
    held: Store | None = None,
    remembers: bool = True,
) -> Runner:
    """Make a runner of the selected stages. `stages` are the arguments of `select`: names, the first, the last.

    `held` is the store, where the caller has locked it. A build that `remembers` writes its settings into the store.
    Calls `say` with what the store remembers, and what is replaced of it. Raises ConfigError.
    """
    from stepsearch_data.pipeline.runner import Runner
    from stepsearch_data.remembered import remember
    from stepsearch_data.stages import STAGES, check, select

    before = recalled(held or store or run_config(config).store)
    run = run_config(config, settings, store, sources, None if fresh else before.settings)
    if not (fresh or config):
        run = replace(run, lost={key: owner for key, owner in before.lost.items() if key not in run.given})
    for line in remembered(before.settings, run):
        say(line)
    check(run.stages, len(run.engines))
    started = partial(remember, config=run, stages=STAGES) if remembers else lambda _: None
    job = Runner(STAGES, run, select(*stages), force=force, started=started, store=held)
    if run.lost:
        _check_lost(job)
    return job


def remembered(before: Mapping[str, Any], run: RunConfig) -> Iterator[str]:
    """Describe the settings of earlier builds that this one uses, and those that it replaces."""
    from stepsearch_data.remembered import flat, settings_of
    from stepsearch_data.stages import STAGES

    now = dict(flat(settings_of(run, STAGES)))
    kept = []
    for key, value in sorted(flat(before)):
        if now.get(key) != value:
            yield f"replaced: {key} = {setting_text(value)} → {setting_text(now.get(key))}"
        elif key not in run.given:
            kept.append(f"{key} = {setting_text(value)}")
    if kept:
        yield f"remembered: {'; '.join(kept)} (forget: --fresh)"


def setting_text(value: Any) -> str:
    """Write a setting's value as in a run file, without keys."""
    from stepsearch_data.core.toml import write_value
    from stepsearch_data.remote.secrets import redact

    return "default" if value is None else visible(redact(write_value(value)))


def _check_lost(job: Runner) -> None:
    """Raise ConfigError where a stage would run without a setting that it had, but the store does not keep."""
    running = {decision.stage for decision in job.plan() if decision.runs}
    asking = {"llm" for name in running if job.config.stages[name].uses_model}
    for key, owner in job.config.lost.items():
        if owner in running | asking:
            raise ConfigError(
                f"{owner} was built with {key}, whose value the store does not keep",
                f"give it again: --set '{key}=…'; or go on without: --set {key}=default",
            )
