"""Runs stages: decides which are current, runs the others, commits what they write."""

from __future__ import annotations

import errno
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsearch_data.core.errors import ConfigError, StepSearchError, StoreError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.executors import Executor, few_collections, open_executor
from stepsearch_data.llm.money import Budget
from stepsearch_data.pipeline.catalog import write_catalog
from stepsearch_data.pipeline.config import RunConfig
from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.pipeline.manifest import without_stages
from stepsearch_data.pipeline.stage import Fingerprint, Needs, Stage, differences, digest
from stepsearch_data.pipeline.store import Entry, Manifest, Output, Store
from stepsearch_data.schemas.rows import Mark
from stepsearch_data.schemas.tables import QUESTIONS, REJECTS, Folder, Table
from stepsearch_data.search.index import fingerprint_of
from stepsearch_data.search.kinds import Engine, Service
from stepsearch_data.sources.source import Source, parse_sources

if TYPE_CHECKING:
    from stepsearch_data.llm.service import Llm

SAMPLE = ("musique=sample", "hotpotqa=sample")
_PRELOAD = ("stepsearch_data.stages", "polars", "pyarrow.parquet")  # what workers import


@dataclass(frozen=True)
class Decision:
    """What a build would do with a stage, and why. No reason means that the stage is current."""

    stage: str
    reasons: tuple[str, ...]

    @property
    def runs(self) -> bool:
        """Tell whether the stage would run."""
        return bool(self.reasons)


@dataclass(frozen=True)
class Outcome:
    """What a build did with a stage."""

    stage: str
    ran: bool
    seconds: float
    entry: Entry

    @property
    def rejects(self) -> int:
        """Return the number of rows that the stage rejected."""
        return self.entry.outputs[REJECTS.name].rows or 0


class Runner:
    """One build of some stages of one store. `started` is called once the store is locked for it.

    A `store` that the caller has locked is built under that lock.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        config: RunConfig,
        selected: Sequence[str],
        *,
        force: bool = False,
        started: Callable[[Store], None] = lambda _: None,
        store: Store | None = None,
    ) -> None:
        self.store = store or Store(config.store)
        self._stages = stages
        self.config = config
        chosen = [stage for stage in stages if stage.name in selected]
        self._selected = [stage for stage in chosen if not self._is_left_out(stage)]
        self._unwanted = [stage.name for stage in chosen if self._is_left_out(stage)]
        self._force = force
        self._started = started
        self._say: Callable[[str], None] = lambda _: None
        self._sources = self._choose_sources()

    def plan(self) -> list[Decision]:
        """Return what `run` would do, without doing it."""
        return self._plan(self._selected)

    def _plan(self, stages: Sequence[Stage]) -> list[Decision]:
        manifest = without_stages(self.store.manifest(), self._unwanted)
        rebuilt_by: dict[str, str] = {}
        decisions = []
        for stage in stages:
            reasons = self._reasons(stage, manifest, ignore=rebuilt_by)
            if stage.name in manifest.stages:
                reasons += [
                    f"{read.name} will be rebuilt by {rebuilt_by[read.name]}"
                    for read in stage.reads
                    if read.name in rebuilt_by
                ]
            if reasons:
                self._check_inputs(stage, manifest, rebuilt_by)
                rebuilt_by.update((output.name, stage.name) for output in stage.writes)
            decisions.append(Decision(stage.name, tuple(reasons)))
        return decisions

    @contextmanager
    def rehearsed(self) -> Iterator[dict[Any, Path]]:
        """Yield the files of the tables from which it can be told what the build would ask a model, by table.

        These are the questions where they are current, else what leads to them: committed tables, and temporary ones
        of stages that ask nobody and search nothing.
        """
        last = next(number for number, stage in enumerate(self._stages) if QUESTIONS in stage.writes)
        stages, manifest = self._stages[: last + 1], self.store.manifest()
        runs = {decision.stage: decision.runs for decision in self._plan(stages)}
        found: dict[Any, Path] = {}
        with tempfile.TemporaryDirectory() as folder:
            for stage in stages if runs[stages[-1].name] else stages[-1:]:
                if not runs[stage.name]:
                    tables = {table: manifest.output(table.name) for table in stage.writes if isinstance(table, Table)}
                    found |= {table: self.store.table(table, output) for table, output in tables.items() if output}
                elif found.keys() >= {*stage.reads} and not self._asks(stage):
                    found |= self._rehearse(stage, found, Path(folder) / stage.name)
            yield found

    def _asks(self, stage: Stage) -> bool:
        """Tell whether a stage asks a model, or makes an index."""
        return self.config.stages[stage.name].uses_model or any(isinstance(output, Folder) for output in stage.writes)

    def _rehearse(self, stage: Stage, found: Mapping[Any, Path], folder: Path) -> dict[Any, Path]:
        """Run a stage into a folder of its own; return the files of its tables."""
        folder.mkdir()
        inputs = {table: found[table] for table in stage.reads}
        context = StageContext(
            stage.name, stage.writes, self.config.stages[stage.name], inputs, folder, sources=self._sources
        )
        try:
            if not (stage.only_with and not context.count(stage.only_with)):
                stage.run(context)
            context.finish()
        finally:
            context.close()
        return {table: folder / f"{table.name}.parquet" for table in context.tables}

    def run(self, reporter: Reporter) -> list[Outcome]:
        """Run what is not current, in order. Each finished stage is committed at once."""
        self._say = reporter.line
        try:
            with self.store.locked():
                self._tidy()
                self._started(self.store)
                self._drop_unwanted()
                with closing(self._executor), few_collections():
                    return [self._run_or_skip(stage, reporter) for stage in self._selected]
        except OSError as error:
            raise _store_error(self.store.name, error) from error

    def _drop_unwanted(self) -> None:
        """Drop the tables of optional stages that no setting wants any more."""
        if dropped := [name for name in self._unwanted if name in self.store.manifest().stages]:
            self.store.drop(dropped)
            self._tidy()
            for name in dropped:
                self._say(f"{name:<13} dropped: no setting wants it")

    def try_rejected_again(self) -> int:
        """Mark what stages that ask a model or an engine rejected for another try. Return the number of questions."""
        again = 0
        with self.store.locked():
            manifest = self.store.manifest()
            for stage in self._selected:
                entry = manifest.stages.get(stage.name)
                if entry and self._may_ask_again(stage):
                    path = self.store.table(REJECTS, entry.outputs[REJECTS.name])
                    failed = {row.question_id: None for row in read_rows(path, REJECTS) if row.question_id}
                    again += len(failed)
                    if failed:
                        self.store.try_again(stage.name, failed)
        return again

    def _choose_sources(self) -> tuple[Source, ...]:
        """Return the given sources, else none where the store has loaded its own, else the embedded sample."""
        committed = self.store.manifest().stages.get(self._stages[0].name)
        if self.config.sources:
            return parse_sources(self.config.sources)
        sample = parse_sources(SAMPLE)
        is_sample = committed is None or committed.fingerprint["inputs"] == _digests(sample)
        return sample if is_sample else ()

    def _is_left_out(self, stage: Stage) -> bool:
        """Tell whether no setting wants an optional stage."""
        return stage.optional and self.config.stages[stage.name] == stage.config()

    def _inputs(self, stage: Stage, manifest: Manifest) -> dict[str, str]:
        """Return the content digests of what the stage reads, without missing inputs."""
        if Needs.SOURCES in stage.needs:
            return self._source_digests if self._sources else dict(manifest.stages[stage.name].fingerprint["inputs"])
        outputs = {read.name: manifest.output(read.name) for read in stage.reads}
        return {name: output.digest for name, output in outputs.items() if output}

    @cached_property
    def _source_digests(self) -> dict[str, str]:
        return _digests(self._sources)

    def _fingerprint(self, stage: Stage, manifest: Manifest) -> Fingerprint:
        config, inputs = self.config.stages[stage.name], self._inputs(stage, manifest)
        engines: dict[str, Any] = {engine.name: fingerprint_of(engine) for engine in self._engines(stage)}
        if Needs.ALL_ENGINES in stage.needs:  # the first engine's documents are shown
            engines["use"] = list(engines)
        prompts, retries = config.prompts(self.config.prompts), self._retries(stage)
        return stage.fingerprint(config, inputs, prompts, retries, engines, self._marked(stage))

    def _marked(self, stage: Stage) -> frozenset[str]:
        """Return the questions with the mark that decides a stage's rows."""
        wanted = self.config.stages[stage.name].marked
        return (
            frozenset(mark.question_id for mark in self._marks.values() if mark.mark == wanted)
            if wanted
            else frozenset()
        )

    @cached_property
    def _marks(self) -> dict[str, Mark]:
        """Return the marks as this build sees them, whatever a reader says meanwhile."""
        return self.store.marks()

    def _engines(self, stage: Stage) -> tuple[Engine, ...]:
        """Return the search engines that decide a stage's rows."""
        if Needs.ALL_ENGINES in stage.needs:
            return self.config.engines
        own = tuple(engine for engine in self.config.engines if engine.is_local and not engine.index)
        return own if Needs.OWN_ENGINES in stage.needs else ()

    def _may_ask_again(self, stage: Stage) -> bool:
        """Tell whether the stage asks a model or an engine, which may fail and answer the next time."""
        return self.config.stages[stage.name].uses_model or Needs.ALL_ENGINES in stage.needs

    def _retries(self, stage: Stage) -> dict[str, int]:
        """Return how often each question was tried again; none for a stage that asks neither model nor engine."""
        return self.store.retries(stage.name) if self._may_ask_again(stage) else {}

    def _reasons(self, stage: Stage, manifest: Manifest, ignore: Mapping[str, str] = {}) -> list[str]:
        entry = manifest.stages.get(stage.name)
        fingerprint = self._fingerprint(stage, manifest)
        if self._force:
            return ["--force"]
        if entry is None:
            return ["never run"]
        skipped = tuple(f"inputs.{name}:" for name in ignore)
        changes = differences(entry.fingerprint, fingerprint)
        changed = [change for change in changes if not change.startswith(skipped)]
        broken = [name for name, output in entry.outputs.items() if not self.store.is_whole(output)]
        return changed + [f"{name} is missing from the store, or cut" for name in broken]

    def _run_or_skip(self, stage: Stage, reporter: Reporter) -> Outcome:
        manifest = self.store.manifest()
        reasons = self._reasons(stage, manifest)
        if not reasons:
            if not _idle(stage, manifest):
                reporter.line(f"{stage.name:<13} current")
            return Outcome(stage.name, ran=False, seconds=0.0, entry=manifest.stages[stage.name])
        begun = time.perf_counter()
        entry = self._run(stage, manifest, reporter)
        outcome = Outcome(stage.name, ran=True, seconds=time.perf_counter() - begun, entry=entry)
        self._record(outcome)
        if not _idle(stage, manifest):
            reporter.line(f"{stage.name:<13} {_summary(outcome)}")
        return outcome

    def _run(self, stage: Stage, manifest: Manifest, reporter: Reporter) -> Entry:
        self._check_inputs(stage, manifest)
        fingerprint, idle = self._fingerprint(stage, manifest), _idle(stage, manifest)
        inputs = {read: self._input(read, output) for read in stage.reads if (output := manifest.output(read.name))}
        with self.store.staging() as folder, reporter.stage(stage.name) as meter:
            context = StageContext(
                stage.name,
                stage.writes,
                self.config.stages[stage.name],
                inputs,
                folder,
                sources=self._sources,
                executor=self._executor,
                max_reject_share=self.config.run.max_reject_share,
                meter=meter,
                model=None if idle else self._model(stage),
                prompts=self.config.stages[stage.name].prompts(self.config.prompts),
                retries=self._retries(stage),
                engines=[replace(engine, executor=self._executor) for engine in self._engines(stage)],
                service=self._service(),
                marked=self._marked(stage),
            )
            try:
                if not idle:
                    stage.run(context)
                rows = context.finish()
            except Exception as error:
                self._blame_inputs(stage, manifest, error)
                raise
            finally:
                context.close()
            entry = self.store.commit(stage.name, digest(fingerprint), fingerprint, folder, rows)
        self._tidy()
        return entry

    def _tidy(self) -> None:
        """Update the catalog to the manifest, and only then remove folders that the old catalog may still name."""
        if self.store.manifest().stages:
            write_catalog(self.store)
        self.store.sweep()

    def _model(self, stage: Stage) -> Llm | None:
        """Return the language model of a stage that asks one. All stages of a build share one budget."""
        if not self.config.stages[stage.name].uses_model:
            return None
        from stepsearch_data.llm.service import Llm

        return Llm(self.config.llm, stage.name, self._budget, partial(self.store.log, "llm_calls"))

    @cached_property
    def _executor(self) -> Executor:
        run = self.config.run
        return open_executor(run.executor, run.workers, _PRELOAD, run.address, self._say)

    @cached_property
    def _budget(self) -> Budget:
        paid = (record for record in self.store.read_log("llm_calls") if not record["cached"])
        return Budget(self.config.llm.max_cost, self.config.llm.max_tokens_total, paid)

    def _service(self) -> Service:
        """Return what search engines may use. Requests of earlier builds count for their budgets."""
        used = Counter(call["engine"] for call in self.store.read_log("search_calls") if not call["cached"])
        record = partial(self.store.log, "search_calls")
        return Service(self.config.run.workers, self.config.llm.replay, record, used)

    def _check_inputs(self, stage: Stage, manifest: Manifest, coming: Mapping[str, str] = {}) -> None:
        """Check that all inputs of the stage are there and up to date, or `coming` from a stage before it."""
        if Needs.SOURCES in stage.needs and not self._sources:
            raise ConfigError(f"{stage.name} must run again, but no source was given", "repeat --source KIND=PATH")
        for name in (read.name for read in stage.reads):
            if name in coming:
                continue
            output = manifest.output(name)
            if output is None:
                maker = next(s for s in self._stages if name in {o.name for o in s.writes})
                if self._is_left_out(maker):
                    continue
                missing = f"{stage.name} reads {name}, which is not in the store yet"
                raise ConfigError(missing, _from(maker.name, stage))
            writer = manifest.writer(name)
            if writer not in manifest.fresh:
                raise ConfigError(f"{stage.name} reads {name}, which is out of date", _from(writer, stage))
            if not self.store.is_whole(output):
                raise StoreError(f"{name} is missing from the store, or cut", _from(writer, stage))

    def _input(self, read: Table[Any] | Folder, output: Output) -> Path:
        """Return the file or folder that a stage reads. Raises StoreError where it is damaged."""
        try:
            return self.store.table(read, output) if isinstance(read, Table) else self.store.path(output)
        except StoreError as error:
            raise StoreError(error.message, _again(read.name, self.store.manifest())) from error

    def _blame_inputs(self, stage: Stage, manifest: Manifest, error: Exception) -> None:
        """Raise StoreError where a failure comes from an input whose bytes have changed since they were committed."""
        for name in self.store.damaged(manifest, *(read.name for read in stage.reads)):
            raise StoreError(f"{name} is damaged", _again(name, manifest)) from error
        if not isinstance(error, StepSearchError | OSError) and (fault := self.store.fault(manifest, error)):
            raise fault from error

    def _record(self, outcome: Outcome) -> None:
        scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
        self.store.log(
            "builds",
            {
                "stage": outcome.stage,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(outcome.seconds, 3),
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale,
                "folder": outcome.entry.folder,
            },
        )


def _digests(sources: Sequence[Source]) -> dict[str, str]:
    return {f"source {number} ({source.kind})": source.digest() for number, source in enumerate(sources, start=1)}


def _idle(stage: Stage, manifest: Manifest) -> bool:
    """Tell whether the input that the stage works on has no rows."""
    work = stage.only_with and manifest.output(stage.only_with.name)
    return work is not None and not work.rows


def _from(writer: str, stage: Stage) -> str:
    return f"build it first: stepsearch-data build --from {writer} --to {stage.name}"


def _again(name: str, manifest: Manifest) -> str:
    return f"build it again: --force --stage {manifest.writer(name)}"


def _summary(outcome: Outcome) -> str:
    rows = {name: o.rows for name, o in outcome.entry.outputs.items() if o.rows is not None and name != REJECTS.name}
    told = {name: count for name, count in rows.items() if count} or rows
    counts = [f"{count:,} {name}" for name, count in told.items()]
    rejected = [f"{outcome.rejects:,} rejects"] if outcome.rejects else []
    return ", ".join([*counts, *rejected, f"{outcome.seconds:.1f} s"])


def _store_error(name: str, error: OSError) -> StoreError:
    cut_short = "No space left" in str(error) or " requested and " in str(error)  # numpy's message; it has no errno
    if cut_short or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            f"no space left to write the store {name}", "free some, then run the same command again: it goes on"
        )
    return StoreError(f"cannot write the store {name}: {error.strerror or error}")
