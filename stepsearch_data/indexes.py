"""The index that `search` and `serve` use: of a corpus, of a store, or in a folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.core.progress import Meter, Reporter
from stepsearch_data.executors import open_executor
from stepsearch_data.pipeline.config import RunConfig
from stepsearch_data.pipeline.store import Store
from stepsearch_data.search import Engine
from stepsearch_data.search.corpus import FileCorpus
from stepsearch_data.search.index import REJECTS, Corpus, IndexMetadata, build_index, read_metadata
from stepsearch_data.search.kinds import LocalSettings

_PRELOAD = ("stepsearch_data.search.bm25",)  # what workers import
OUTPUT = "index"  # what a store calls its index folder

Load = Callable[[Sequence[str]], RunConfig]
"""Reads the run's configuration, with these settings before those of the command line."""


@dataclass(frozen=True)
class Choice:
    """What the command line names: a corpus, an index folder, or a store, by default the configured store.

    The environment may also name a store. A corpus or an index folder has priority over it.
    """

    corpus: Path | None = None
    store: Path | None = None
    index: Path | None = None


@dataclass(frozen=True)
class Opened:
    """An index folder, the chosen engines, and the rest of the run's configuration."""

    root: Path
    metadata: IndexMetadata
    config: RunConfig
    engines: tuple[Engine, ...]


def default_folder(corpus: Path) -> Path:
    """Return the default folder of a corpus's index, beside the corpus."""
    return corpus.with_name(f"{corpus.name}.index")


@contextmanager
def opened(choice: Choice, load: Load, reporter: Reporter) -> Iterator[Opened]:
    """Open the chosen index, and keep its files until the block ends. The index of a corpus is built if necessary."""
    with _opened(choice, load, reporter) as index, working(index.config, index.engines, reporter) as engines:
        yield replace(index, engines=engines)


@contextmanager
def _opened(choice: Choice, load: Load, reporter: Reporter) -> Iterator[Opened]:
    if choice.corpus:
        config = load(())
        corpus = FileCorpus(choice.corpus)
        root = choice.index or default_folder(choice.corpus)
        local = [engine for engine in config.engines if engine.is_local and not engine.index]
        with working(config, local, reporter) as builders:
            metadata = make(corpus, root, builders, reporter)
        yield Opened(root, metadata, config, config.engines)
    elif choice.index:
        metadata = _whole(read_metadata(choice.index), choice.index)
        rebuild = f"stepsearch-data index --corpus {metadata.corpus} --index {shlex.quote(str(choice.index))}"
        yield _committed(choice.index, metadata, load, rebuild)
    else:
        store = Store.open(choice.store or load(()).store)
        rebuild = f"stepsearch-data build --store {shlex.quote(store.name)} --to index"
        with store.reading() as held:
            output = held.output(OUTPUT)
            if output is None or not store.has(output):
                raise SearchError(f"the store {store.name} has no index yet", f"build it: {rebuild}")
            root = store.path(output)
            yield _committed(root, _whole(read_metadata(root), root), load, rebuild)


@contextmanager
def working(config: RunConfig, engines: Sequence[Engine], reporter: Reporter) -> Iterator[tuple[Engine, ...]]:
    """Give engines an executor, which works until the block ends."""
    run = config.run
    with closing(open_executor(run.executor, run.workers, _PRELOAD, run.address, reporter.line)) as executor:
        yield tuple(replace(engine, executor=executor) for engine in engines)


def build(path: Path, folder: Path | None, engines: Sequence[Engine], reporter: Reporter) -> int:
    """Build or update the index of a corpus and report it. Return the number of rejects. Raises ConfigError."""
    begun = time.perf_counter()
    local = []
    for engine in engines:
        if not isinstance(engine.settings, LocalSettings):
            raise ConfigError(f"{engine.name} needs no index: it is not an engine of this process", "leave it out")
        here = engine.settings.model_copy(update={"index": None})  # not the index that the run file has for it
        local.append(replace(engine, settings=here))
    corpus = FileCorpus(path)
    root = folder or default_folder(path)
    before = _current(corpus, root, local)
    metadata = before or make(corpus, root, local, reporter)
    names = ", ".join(engine.name for engine in local)
    how = "current" if before else f"done in {time.perf_counter() - begun:.1f} s"
    aside = f", {metadata.rejects:,} rejects in {root / REJECTS}" if metadata.rejects else ""
    reporter.line(f"{root}: {names} over {metadata.documents:,} passages{aside}; {how}")
    return metadata.rejects


def make(corpus: Corpus, root: Path, engines: Sequence[Engine], reporter: Reporter) -> IndexMetadata:
    """Build an index folder with these engines over this corpus, unless it is current."""

    @contextmanager
    def phase(name: str, steps: int | None) -> Iterator[Meter]:
        begun = time.perf_counter()
        with reporter.stage(name) as meter:
            if steps:
                meter.expect(steps)
            yield meter
        reporter.line(f"{name:<13} done in {time.perf_counter() - begun:.1f} s")

    return _current(corpus, root, engines) or build_index(root, corpus, engines, phase, reporter.line)


def _current(corpus: Corpus, root: Path, engines: Sequence[Engine]) -> IndexMetadata | None:
    """Return the metadata of a current folder, which may be read-only, or None where it must be built."""
    metadata = read_metadata(root)
    if metadata is None or metadata.stamp != corpus.stamp:
        return None
    return metadata if all(metadata.engines.get(e.name) == e.fingerprint() for e in engines) else None


def _whole(metadata: IndexMetadata | None, root: Path) -> IndexMetadata:
    if metadata is None or not metadata.engines:
        raise SearchError(f"{root} holds no index", "build it: stepsearch-data index --corpus FILE")
    return metadata


def _committed(root: Path, metadata: IndexMetadata, load: Load, rebuild: str) -> Opened:
    """Open the engines of an index as they were built, by default all of them."""
    kinds = [f"engines.{name}.kind={fingerprint['kind']}" for name, fingerprint in metadata.engines.items()]
    names = ", ".join(f'"{name}"' for name in metadata.engines)
    config = load((f"engines.use=[{names}]", *kinds))
    return Opened(
        root, metadata, config, tuple(_as_built(engine, root, metadata, rebuild) for engine in config.engines)
    )


def _as_built(engine: Engine, root: Path, metadata: IndexMetadata, rebuild: str) -> Engine:
    if not engine.is_local or engine.index:
        return engine
    built = dict(metadata.engines.get(engine.name, {}))
    kind, version = built.pop("kind", None), built.pop("version", None)
    if kind is None:
        held = ", ".join(metadata.engines)
        engines = " ".join(f"--engine {name}" for name in (*metadata.engines, engine.name))
        raise SearchError(f"the index {root} holds {held}, but no {engine.name}", f"build it: {rebuild} {engines}")
    asked = {key: getattr(engine.config, key) for key in engine.config.model_fields_set}
    other = [f"{key}={built[key]}" for key, value in asked.items() if key in built and built[key] != value]
    if version != engine.kind.version:
        other = [f"version {version} of this engine"]
    if not other:
        try:
            return replace(engine, config=engine.kind.config.model_validate(built))
        except ValidationError:
            other = ["another version of this engine"]
    raise SearchError(
        f"the {engine.name} index of {root} was built with {', '.join(other)}", f"build it again: {rebuild}"
    )
