"""Kinds of engines: ours, and those that other packages add under the entry point `stepsearch_data.engines`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.core.plugins import Registry
from stepsearch_data.core.progress import Meter
from stepsearch_data.core.validation import fault_and_value, in_words, known_names
from stepsearch_data.executors import INLINE, Executor
from stepsearch_data.remote.secrets import check_address, show_url
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.engine import Index, LocalEngine, SearchEngine

Record = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

_MODULES = {  # imported when their kind is asked for: some libraries take a second
    "bm25": "bm25",
    "tantivy": "tantivy",
    "rank-bm25": "rank_bm25",
    "chargram": "chargram",
    "dense": "dense",
    "http": "http",
    "serper": "web",
    "brave": "web",
    "tavily": "web",
    "serpapi": "web",
}
ENGINES = Registry(
    "stepsearch_data.engines",
    "search engine",
    {name: f"stepsearch_data.search.{module}:{name.replace('-', '_').upper()}" for name, module in _MODULES.items()},
)


class EngineConfig(BaseModel):
    """What decides an engine's answers: part of the fingerprint of what they are used for."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TextConfig(EngineConfig):
    """What the engines that index words or letters have in common."""

    title_weight: int = Field(default=2, ge=0, le=100, description="how often the title is indexed before the text")


class EngineSettings(BaseModel):
    """How an engine is reached. Nothing here changes an answer; keys come only from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalSettings(EngineSettings):
    """Which index an engine of this process searches."""

    index: Path | None = Field(
        default=None,
        description="index of another corpus, made by `stepsearch-data index`; the run's own passages by default",
    )


@dataclass(frozen=True)
class Service:
    """What an engine may use of its run.

    `record` is called once for every request, and `used` counts the requests that were sent before, by engine.
    """

    workers: int = 1
    replay: Path | None = None
    record: Callable[[Record], None] | None = None
    used: Mapping[str, int] = field(default_factory=dict)


Opener = Callable[["Engine", Path | None, Documents | None, Service], SearchEngine]


@dataclass(frozen=True)
class Kind:
    """A kind of engine: its declaration, and how one is built and opened.

    `build` writes an index of the documents to an empty folder (or, where the kind `resumes`, to the one that an
    interrupted build left); None for engines that are somewhere else. `open` gets that folder and the documents.
    `location` is the setting that `--engine KIND=LOCATION` sets. The URL is part of the fingerprint of a kind
    `by_server`, unless its config names a revision.
    """

    name: str
    doc: str
    config: type[EngineConfig]
    open: Opener
    build: Callable[[Engine, Documents, Path, Meter], None] | None = None
    settings: type[EngineSettings] = LocalSettings
    location: str = "index"
    resumes: bool = False
    by_server: bool = False
    version: int = 1


@dataclass(frozen=True)
class Engine:
    """An engine that a run has chosen. `executor` is where its work is done, which decides no answer."""

    name: str
    kind: Kind
    config: Any
    settings: Any
    executor: Executor = field(default=INLINE, compare=False)

    @property
    def is_local(self) -> bool:
        """Tell whether it searches an index of this process."""
        return self.kind.build is not None

    @property
    def index(self) -> Path | None:
        """Return the index of another corpus that it searches, if any."""
        return self.settings.index if isinstance(self.settings, LocalSettings) else None

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides its answers, except the documents."""
        decides = self.config.model_dump(mode="json")
        server = {"url": show_url(self.settings.url)} if self.kind.by_server and not decides.get("revision") else {}
        return {"kind": self.kind.name, "version": self.kind.version, **decides, **server}


def kinds() -> list[str]:
    """Return the names of all kinds that are installed."""
    return ENGINES.names()


def kind_of(name: str) -> Kind:
    """Return the kind of that name. Raises ConfigError."""
    return ENGINES.load(name, Kind)


def choose(names: Iterable[str], sections: Mapping[str, Mapping[str, Any]]) -> tuple[Engine, ...]:
    """Return the engines of these names, each with its `[engines.NAME]`. Raises ConfigError, for any section."""
    listed = list(names)
    for name in (*listed, *sections):
        if not _NAME.fullmatch(name):  # it names a folder, and a setting
            raise ConfigError(f"{name!r} cannot name an engine", "use letters, digits, - and _")
    repeated = next((name for name in listed if listed.count(name) > 1), None)
    if repeated:
        raise ConfigError(
            f"the engine {repeated} is named twice", f"give one a name: [engines.NAME] kind = '{repeated}'"
        )
    described = {name: _engine(name, dict(sections.get(name, {}))) for name in (*listed, *sections)}
    return tuple(described[name] for name in listed)


def _engine(name: str, section: dict[str, Any]) -> Engine:
    kind = kind_of(str(section.pop("kind", name)))
    if "at" in section:  # what `--engine NAME=LOCATION` says, whichever kind it is
        section[kind.location] = section.pop("at")
    for key in section:
        known = [*kind.config.model_fields, *kind.settings.model_fields]
        if key not in known:
            raise ConfigError(f"engines.{name}.{key}: unknown key; {known_names(key, known)}")
    try:
        config = kind.config.model_validate({k: v for k, v in section.items() if k in kind.config.model_fields})
        settings = kind.settings.model_validate({k: v for k, v in section.items() if k in kind.settings.model_fields})
    except ValidationError as error:
        raise ConfigError(f"engines.{name}.{in_words(error, fault_and_value, most=1)}") from None
    for key in ("url", "base_url"):
        check_address(f"engines.{name}.{key}", str(getattr(settings, key, "")))
    return Engine(name, kind, config, settings)


def local_opener(index: Callable[[Engine, Path, Documents, Service], Index]) -> Opener:
    """Return what a `Kind` opens its engines with, from a function that opens an index of this process."""

    def open_engine(engine: Engine, folder: Path | None, documents: Documents | None, service: Service) -> LocalEngine:
        assert folder is not None
        assert documents is not None
        opened, elsewhere = index(engine, folder, documents, service), engine.index is not None
        return LocalEngine(engine.name, opened, documents, elsewhere=elsewhere, record=service.record)

    return open_engine


def no_words() -> SearchError:
    """Return the error of a build over a corpus without a single word."""
    return SearchError("the corpus holds no word to index", "check that the sources hold paragraphs")


def need(package: str, extra: str) -> Any:
    """Import a module that an extra installs. Raises SearchError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SearchError(
            f"this engine needs the package {package}", f"pip install 'stepsearch-data[{extra}]'"
        ) from error
