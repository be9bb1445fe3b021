"""What a store remembers of how it was built, so that the next build can use the same settings.

`log/settings.json` holds all settings of the last build that differ from their defaults, without keys and without URLs
that may hold a key. It is signed with a secret of this user. Of a store from elsewhere, only the fingerprints are used:
they tell what made its rows. They never decide which servers get our keys, or which files are read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from stepsearch_data.core.atomic import writing
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.files import cache_folder, read_regular
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.pipeline.config import RunConfig, RunSettings, locate_files
from stepsearch_data.pipeline.manifest import MOST
from stepsearch_data.pipeline.stage import Fingerprint, Needs, Stage
from stepsearch_data.pipeline.store import Store
from stepsearch_data.remote.secrets import is_open
from stepsearch_data.search.kinds import Engine, kind_of

Settings = dict[str, Any]
_FILE = "log/settings.json"


@dataclass(frozen=True)
class Remembered:
    """Settings as a run file has them. `lost` are keys of settings without a value, each with the stage that needs it.

    A value is lost when the store has only its digest, as of the user's files, or must not keep it.
    """

    settings: Settings = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)


def recall(store: Store, stages: Sequence[Stage]) -> Remembered:
    """Read the settings of a store's last build, or for a store from elsewhere, of its fingerprints."""
    return _read(store, stages) or _from_fingerprints(store, stages)


def remember(store: Store, config: RunConfig, stages: Sequence[Stage]) -> None:
    """Write the settings of a build. Where this user's secret cannot be made, nothing is written."""
    lost = dict(config.lost)
    settings = _without_secrets(settings_of(config, stages), lost)
    with suppress(OSError):
        signature = _sign(settings, lost)
        store.inside(_FILE).parent.mkdir(exist_ok=True)
        held = {"settings": settings, "lost": lost, "signature": signature, "store": str(store.root.absolute())}
        store.write_text(_FILE, orjson.dumps(held).decode())


def settings_of(config: RunConfig, stages: Sequence[Stage]) -> Settings:
    """Return all settings that differ from their defaults, as a run file has them, with absolute paths."""
    sections: dict[str, BaseModel] = {"run": config.run, "llm": config.llm, **config.stages}
    settings: Settings = {name: section.model_dump(exclude_defaults=True) for name, section in sections.items()}
    for stage in stages:
        locate_files(settings[stage.name], stage.config.files, Path.cwd())
    settings["prompts"] = dict(config.prompts)
    settings["engines"] = {engine.name: _section(engine) for engine in config.engines}
    if [engine.name for engine in config.engines] != ["bm25"]:
        settings["engines"]["use"] = [engine.name for engine in config.engines]
    return {name: section for name, section in _plain(settings).items() if section}


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting with its whole name, such as `filter.k`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _section(engine: Engine) -> Settings:
    kind = {} if engine.kind.name == engine.name else {"kind": engine.kind.name}
    set_here = (part.model_dump(exclude_unset=True) for part in (engine.config, engine.settings))
    return {**kind, **{name: value for part in set_here for name, value in part.items()}}


def _plain(value: Any) -> Any:
    """Convert a value to JSON types, with absolute paths and without empty sections."""
    if isinstance(value, dict):
        plain = {name: _plain(inner) for name, inner in value.items()}
        return {name: inner for name, inner in plain.items() if inner != {}}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def _without_secrets(value: Any, lost: dict[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        kept = {name: _without_secrets(inner, lost, f"{key}.{name}" if key else name) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner is not None}
    if isinstance(value, str) and not is_open(value):
        lost[key] = {"engines": "retrieve"}.get(key.partition(".")[0], key.partition(".")[0])
        return None
    return value


def _read(store: Store, stages: Sequence[Stage]) -> Remembered | None:
    """Read what this user's last build wrote, or None where another user wrote it, or nobody."""
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
        held = orjson.loads(read_regular(store.beside(_FILE), MOST))
        if hmac.compare_digest(held["signature"], _sign(held["settings"], held["lost"])):
            settings = _known(held["settings"], stages)
            _move_rollouts(settings, held.get("store", ""), str(store.root.absolute()))
            return Remembered(settings, held["lost"])
    return None


def _move_rollouts(settings: Settings, then: str, now: str) -> None:
    """Name the rollouts beside a store that was moved or copied by where they are now, if they came with it."""
    policies = settings.get("rollouts", {}).get("policies", [])
    for at, text in enumerate(policies):
        name, _, place = text.partition("=")
        moved = f"{now}.rollouts/{place.removeprefix(f'{then}.rollouts/')}"
        if then and place.startswith(f"{then}.rollouts/") and Path(moved).exists():
            policies[at] = f"{name}={moved}"


def _known(settings: Settings, stages: Sequence[Stage]) -> Settings:
    """Return the settings that this version has."""
    models: dict[str, type[BaseModel]] = {"run": RunSettings, "llm": LlmSettings, **{s.name: s.config for s in stages}}
    return {
        name: {key: value for key, value in section.items() if name not in models or key in models[name].model_fields}
        for name, section in settings.items()
    }


def _sign(*values: Any) -> str:
    """Sign values with this user's secret. Raises OSError where it can be neither read nor made."""
    path = cache_folder() / "signature"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path, shared=True) as made:
            made.touch(mode=0o600)
            made.write_bytes(secrets.token_bytes(32))
    data = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    return hmac.new(path.read_bytes(), data, hashlib.sha256).hexdigest()


def _from_fingerprints(store: Store, stages: Sequence[Stage]) -> Remembered:
    settings: Settings = {}
    lost: dict[str, str] = {}
    committed = store.manifest().stages
    for stage in stages:
        entry = committed.get(stage.name)
        if entry is None:
            continue
        fingerprint = entry.fingerprint
        config = _differing(stage.config, fingerprint["config"])
        settings[stage.name] = config
        lost |= {f"{stage.name}.{name.rpartition(' ')[0]}": stage.name for name in fingerprint.get("files", {})}
        lost |= {f"prompts.{name}": stage.name for name in _own_prompts(stage, config, fingerprint)}
        if stage.needs & (Needs.OWN_ENGINES | Needs.ALL_ENGINES):  # `retrieve`, the last one, has all engines
            settings["engines"] = _engines(fingerprint.get("engines", {}), stage.name, lost)
    return Remembered({name: section for name, section in settings.items() if section}, lost)


def _differing(model: type[BaseModel], recorded: Mapping[str, Any]) -> Settings:
    """Return the recorded settings that this version has and that differ from its defaults; none if invalid."""
    known = {name: value for name, value in recorded.items() if name in model.model_fields and value is not None}
    try:
        return model.model_validate(known).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:
        return {}


def _own_prompts(stage: Stage, config: Settings, fingerprint: Fingerprint) -> list[str]:
    """Return the names of the recorded prompts that are not the package's own."""
    ours = stage.config.model_validate(config).prompts({})
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in ours.items()}
    return [name for name, digest in fingerprint.get("prompts", {}).items() if digests.get(name) != digest]


def _engines(recorded: Mapping[str, Any], stage: str, lost: dict[str, str]) -> Settings:
    names = [name for name in recorded.get("use", recorded) if isinstance(recorded.get(name), dict)]
    settings: Settings = {} if names in ([], ["bm25"]) else {"use": names}
    for name in names:
        fingerprint = recorded[name]
        section = {"kind": str(fingerprint.get("kind"))}
        with suppress(ConfigError):  # a kind that is not installed here: the error comes when it is chosen
            kind = kind_of(section["kind"])
            section |= _differing(kind.config, fingerprint)
            if kind.by_server and is_open(str(fingerprint.get("url", "***"))):
                section["url"] = str(fingerprint["url"])
            elif kind.by_server:
                lost[f"engines.{name}.url"] = stage
        if "corpus" in fingerprint:
            lost[f"engines.{name}.index"] = stage
        if section != {"kind": name}:
            settings[name] = section
    return settings
