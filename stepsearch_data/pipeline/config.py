"""One run's configuration: flag > environment > run file, or what the store remembers > default.

A run file is TOML: `store`, `sources`, `[run]` for how the build runs, and one section per stage for
what decides its rows. `STEPSEARCH_FILTER_K=5` in the environment and `--set filter.k=5` on the
command line set the same key. Each engine has a section `[engines.NAME]`, which only the run file and
the command line can set.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.toml import parse_value, read_toml
from stepsearch_data.core.validation import fault_and_value, in_words, known_names, place_of
from stepsearch_data.executors import Name
from stepsearch_data.llm.settings import AZURE, LlmSettings
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.remote.objects import address
from stepsearch_data.remote.secrets import check_address, check_no_key
from stepsearch_data.search.kinds import Engine, choose

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "STEPSEARCH_"
DEFAULT = "default"  # resets a setting to its default; in quotes, it is a text
_NOT_SETTINGS = {"CONFIG"}


class RunSettings(BaseModel):
    """How a build runs. Nothing here changes a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(
        default_factory=lambda: (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ),
        ge=1,
        le=1_024,
        description="threads that search and tokenise, and processes that work on questions (default: all cores)",
    )
    executor: Name = Field(
        default="processes",
        description="what works on questions where no model is asked: processes; a ray cluster; inline, this process",
    )
    address: str | None = Field(
        default=None,
        max_length=1_000,
        description="address of a running Ray cluster, or local for one of its own (default: RAY_ADDRESS, or a cluster"
        " on this machine)",
    )
    max_reject_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="stop when a larger share of a source's rows is rejected",
    )


class EnginesSection(BaseModel):
    """Which engines are asked. Each has a section `[engines.NAME]` beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    use: tuple[str, ...] = Field(
        default=("bm25",), min_length=1, description="engines that vote on every query: kinds, or names of sections"
    )


@dataclass(frozen=True)
class RunConfig:
    """A validated run: where to write, what to read, how to run, and each stage's config by name."""

    store: Path
    sources: tuple[str, ...]
    run: RunSettings
    stages: Mapping[str, StageConfig]
    llm: LlmSettings = field(default_factory=LlmSettings)
    prompts: Mapping[str, Path] = field(default_factory=dict)
    engines: tuple[Engine, ...] = ()
    given: frozenset[str] = field(default=frozenset(), compare=False)  # keys that a flag or the environment sets
    lost: Mapping[str, str] = field(default_factory=dict)  # see `Remembered`


def load_config(
    stages: Sequence[Stage],
    file: Path | None = None,
    settings: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    store: Path | None = None,
    sources: Sequence[str] = (),
    remembered: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merge and check all layers. `settings` are `stage.key=value` texts, of which `stage.key=default` unsets.

    A run file describes the whole run. What the store has `remembered` is used only without a run file.
    Raises ConfigError, naming every key that is unknown or has a wrong value.
    """
    data = _read_file(file, stages) if file else deepcopy(dict(remembered or {}))
    given: set[str] = set()
    for name, value in sorted((os.environ if environment is None else environment).items()):
        _set_from_environment(data, name, value, stages, given)
    for setting in settings:
        key, separator, value = setting.partition("=")
        section, dot, name = key.strip().rpartition(".")
        if not (separator and dot):
            raise ConfigError(f"--set {setting}: expected STAGE.KEY=VALUE", "for example --set filter.k=5")
        _put(data, section, name, value, given)
    if remembered and not file:
        _drop_engines(data, remembered, given)
    for section, values in data.items():
        check_no_key(section, values)
    checked: Any = _check(_model(stages), data, file)
    check_address("llm.base_url", checked.llm.base_url)
    return RunConfig(
        store=store or checked.store,
        sources=tuple(sources) or tuple(checked.sources),
        run=checked.run,
        stages={stage.name: getattr(checked, stage.name) for stage in stages},
        llm=checked.llm,
        prompts=checked.prompts,
        engines=choose(checked.engines.use, _sections(checked.engines)),
        given=frozenset(given),
    )


def _drop_engines(data: dict[str, Any], remembered: Mapping[str, Any], given: Collection[str]) -> None:
    """Drop remembered settings of engines that are no longer used, as they need not be installed."""
    used = data.get("engines", {}).get("use", ["bm25"])
    kept = {"use", *(used if isinstance(used, list) else ()), *(key.split(".")[1] for key in given)}
    for name in remembered.get("engines", {}):
        if name not in kept:
            data["engines"].pop(name, None)


def _model(stages: Sequence[Stage]) -> type[BaseModel]:
    sections: dict[str, Any] = {stage.name: (stage.config, stage.config()) for stage in stages}
    return create_model(
        "RunFile",
        __config__=ConfigDict(extra="forbid"),
        store=(Path, Path("store")),
        sources=(list[str], []),
        run=(RunSettings, RunSettings()),
        llm=(LlmSettings, LlmSettings()),
        prompts=(dict[str, Path], {}),
        engines=(EnginesSection, EnginesSection()),
        **sections,
    )


def _sections(engines: EnginesSection) -> dict[str, dict[str, Any]]:
    sections = engines.model_extra or {}
    wrong = next((name for name, section in sections.items() if not isinstance(section, dict)), None)
    if wrong:
        raise ConfigError(f"engines.{wrong}: unknown key; did you mean engines.use, or a section [engines.{wrong}]?")
    return sections


def _read_file(file: Path, stages: Sequence[Stage]) -> dict[str, Any]:
    """Read a run file. Relative paths in it start at the file's own folder."""
    data = read_toml(file, "run file", "write one: stepsearch-data init")
    if isinstance(data.get("store"), str) and not address(data["store"]):
        data["store"] = file.parent / data["store"]
    if isinstance(data.get("prompts"), dict):
        data["prompts"] = {name: file.parent / str(path) for name, path in data["prompts"].items()}
    for section in data["engines"].values() if isinstance(data.get("engines"), dict) else ():
        if isinstance(section, dict) and isinstance(section.get("index"), str):
            section["index"] = file.parent / section["index"]
    if isinstance(data.get("sources"), list):
        data["sources"] = [_relative_to(file.parent, source) for source in data["sources"]]
    for stage in stages:
        locate_files(data.get(stage.name), stage.config.files, file.parent)
    return data


def locate_files(section: Any, names: Sequence[str], folder: Path) -> None:
    """Make the files that a stage's settings name relative to the folder: a path, or a list of sources."""
    for name in names if isinstance(section, dict) else ():
        value = section.get(name)
        if isinstance(value, list | tuple):
            section[name] = [_relative_to(folder, source) for source in value]
        elif isinstance(value, str):
            section[name] = folder / value


def _relative_to(folder: Path, source: Any) -> Any:
    kind, separator, location = str(source).partition("=")
    if not separator or location == "sample" or location.startswith("hf:") or address(location):
        return source
    return f"{kind}={folder / location}"


def _set_from_environment(
    data: dict[str, Any], name: str, value: str, stages: Sequence[Stage], given: set[str]
) -> None:
    if not value:  # an empty variable counts as not set
        return
    if name in (AZURE, "OPENAI_BASE_URL"):  # in this order, so that the second one wins
        _put(data, "llm", "base_url", value, given)
        return
    key = name.removeprefix(PREFIX)
    if key == name or key in _NOT_SETTINGS:
        return
    section, _, inner = key.lower().partition("_")
    if section in {"run", "llm", "engines", *(stage.name for stage in stages)} and inner:
        _put(data, section, inner, value, given)
    elif key == "STORE":
        data["store"] = value
    else:
        raise ConfigError(f"the environment variable {name} sets nothing", f"{PREFIX}STORE, or {PREFIX}<STAGE>_<KEY>")


def _put(data: dict[str, Any], section: str, name: str, value: str, given: set[str]) -> None:
    given.add(f"{section}.{name}")
    inner = data
    for part in section.split(".", 1):  # the name of an engine is the second part of its section
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{section} is not a stage", "stepsearch-data stages lists them")
    if value.strip() == DEFAULT:
        inner.pop(name, None)
    else:
        inner[name] = parse_value(f"{section}.{name}", value)


def _check(model: type[BaseModel], data: dict[str, Any], file: Path | None) -> BaseModel:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        where = f"{file}: " if file else ""
        raise ConfigError(where + in_words(error, partial(_explain, model))) from None


def _explain(model: type[BaseModel], error: ErrorDetails) -> str:
    if error["type"] != "extra_forbidden":
        return fault_and_value(error)
    *parents, name = (str(part) for part in error["loc"][:2])
    for parent in parents:
        model = model.model_fields[parent].annotation  # type: ignore[assignment]  # sections are models
    return f"{place_of(error)}: unknown key; {known_names(name, model.model_fields)}"
