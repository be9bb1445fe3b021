"""The Python API, for notebooks and programs: build a store, open one, score rollouts.

Computed results are Arrow tables, which Polars, pandas, DuckDB and `datasets` all read. A table of the store is a
Polars LazyFrame. Failures raise one of `ssd.errors`, with `message` and `hint`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from stepsearch_data.builds import engine_settings, make_build, row_settings, run_config_over
from stepsearch_data.core.errors import SourceError, StepSearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.pipeline.catalog import frame
from stepsearch_data.pipeline.store import Store as Folder
from stepsearch_data.schemas.tables import REJECTS, TABLES
from stepsearch_data.sql import query as run_query

if TYPE_CHECKING:
    import polars as pl

    from stepsearch_data.exports.export import Origin, Written
    from stepsearch_data.report.write import Written as ReportWritten
    from stepsearch_data.rewards import Preset
    from stepsearch_data.schemas.rows import Check
    from stepsearch_data.trainer.rollout import Retrieve
    from stepsearch_data.trajectory import Trajectory

T = TypeVar("T")
AnyPath = str | PathLike[str]


def build(
    store: AnyPath | None = None,
    *,
    sources: str | Sequence[str] = (),
    llm: str | None = None,
    engines: str | Sequence[str] = (),
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
    config: AnyPath | None = None,
    stages: str | Sequence[str] = "all",
    fresh: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Store:
    """Build a store, or bring it up to date, as `stepsearch-data build` does, and open it.

    `sources` are `KIND=PATH` texts, `engines` NAME or NAME=LOCATION, and `settings` what `--set` takes, by name. None
    resets a setting to its default. `stages` are those to run. Other settings come from the environment, then from
    the run file `config`, or without one from what the store remembers; `fresh` forgets that. Rows that cannot be
    used are in the table `rejects`. An interrupted build continues when it is called again.

    Raises ConfigError for invalid settings, SourceError, ProviderError, SearchError, BudgetError, StoreError.

    >>> store = ssd.build("store", settings={"filter.k": 3}, progress=False)
    >>> store.tables["trajectories"]
    70
    """
    reporter = Reporter(quiet=not progress)
    options = {key: value for key, value in row_settings(limit, llm, None).items() if value is not None}
    named = {**options, **(settings or {})}
    job = make_build(
        (",".join(_listed(stages)), None, None),
        _listed(sources),
        _path(store),
        _path(config or os.environ.get("STEPSEARCH_CONFIG") or None),
        [*engine_settings(_listed(engines)), *(f"{key}={_text(value)}" for key, value in named.items())],
        reporter.line,
        fresh=fresh,
        force=force,
    )
    _outside_a_loop(lambda: job.run(reporter), reporter)
    return Store(job.store.root)


def open(path: AnyPath = "store") -> Store:  # noqa: A001 - ssd.open, as gzip.open
    """Open a store to read it. Raises StoreError where there is none.

    >>> ssd.open("store")
    Store('store')
    """
    return Store(path)


def load_trajectories(path: AnyPath = "store") -> Iterator[Trajectory]:
    """Yield every trajectory of a store, in the order of its questions. Raises StoreError.

    >>> sum(len(trajectory.rounds) for trajectory in ssd.load_trajectories("store"))
    182
    """
    return Store(path).trajectories()


def score(
    rollouts: AnyPath | Iterable[Mapping[str, Any]], preset: Preset = "paper", switches: Mapping[str, Any] | None = None
) -> pa.Table:
    r"""Score rollouts with StepSearch's rewards, in this process: one row per response, one column per component.

    `rollouts` are dicts with `response`, `target`, `search_keys`, `support_docs` (or the names of verl and Search-R1),
    or a file of them. `preset` is "paper", "reference", "gain+key" (no penalty) or "outcome" (r_answer alone);
    `switches` override parts of it (docs/rewards.md).
    `stepsearch-data score` does the same with files of any size, on all cores.

    Raises ConfigError for an unknown preset or switch, SourceError for a row that cannot be scored.

    >>> response = "<think>It is known.</think>\n<answer>Rome</answer>"
    >>> ssd.score([{"response": response, "target": "Rome"}])["answer_em"].to_pylist()
    [1]
    """
    from stepsearch_data.scoring.files import TABLES as SCORES
    from stepsearch_data.scoring.files import read_chunks
    from stepsearch_data.scoring.scorer import Chunk, Scorer, configure
    from stepsearch_data.sources.record import Record

    scorer = Scorer("rollouts", configure(preset, [f"{name}={value}" for name, value in (switches or {}).items()]))
    schema = SCORES["rollouts"].schema
    scored = [pa.Table.from_pylist([], schema=schema)]
    with Reporter(quiet=True).stage("score") as meter:
        if isinstance(rollouts, str | PathLike):
            chunks: Iterable[Chunk] = read_chunks(Path(rollouts), meter)
        else:
            chunks = [[Record(position, dict(row)) for position, row in enumerate(rollouts, start=1)]]
        for chunk in chunks:
            found = scorer.score(chunk)
            if found.rejects:
                raise SourceError(f"row {found.rejects[0].position:,} cannot be scored: {found.rejects[0].reason}")
            scored.append(pa.Table.from_pylist(found.rows, schema=schema))
    return pa.concat_tables(scored).combine_chunks()


class Store:
    """A store to read: its tables, SQL over them, trajectories, and reports and exports of them.

    >>> store = ssd.open("store")
    >>> store.table("rounds").collect().height
    182
    """

    def __init__(self, path: AnyPath = "store") -> None:
        self.folder = Folder.open(Path(path))

    @property
    def path(self) -> Path:
        """Return the store's folder, of one at a URL the local copy of what was read."""
        return self.folder.root

    @property
    def tables(self) -> dict[str, int]:
        """Return the number of rows of each committed table.

        >>> ssd.open("store").tables["rounds"]
        182
        """
        manifest = self.folder.manifest()
        outputs = {table.name: manifest.output(table.name) for table in TABLES}
        rejects = sum(entry.outputs[REJECTS.name].rows or 0 for entry in manifest.stages.values())
        counted = {name: output.rows or 0 for name, output in outputs.items() if output}
        return {**counted, REJECTS.name: rejects}

    def table(self, name: str) -> pl.LazyFrame:
        """Return a table of the store. Collect it before the next build, which replaces its file.

        Raises StoreError for a table that is missing, or is not what was committed.

        >>> store = ssd.open("store")
        >>> store.table("queries").filter("kept").select("question_id", "query").collect().height > 0
        True
        """
        with self.folder.reading() as manifest:
            return frame(self.folder, manifest, name)

    def sql(self, query: str, *, memory: float | None = None) -> pa.Table:
        """Return the rows of one SELECT over the store's tables, as an Arrow table.

        The query runs in the same DuckDB as `stepsearch-data sql`: it reads no other file, loads no extension and
        writes nothing. Sorts, joins and groups use at most `memory` GiB (by default most of the machine's). Unlike
        the command, this method has no time limit. Raises QueryError.

        >>> ssd.open("store").sql("SELECT count(*) AS n FROM trajectories").to_pylist()
        [{'n': 70}]
        """
        with run_query(self.folder, query, memory=None if memory is None else int(memory * (1 << 30))) as reader:
            return reader.read_all()

    def trajectory(self, question_id: str | None = None) -> Trajectory:
        """Return one trajectory with its rounds, without an id the first. Raises StoreError where there is none.

        >>> ssd.open("store").trajectory().answer
        'Pesaro'
        """
        from stepsearch_data.trajectory import read_trajectory

        return read_trajectory(self.folder, question_id)

    def checks(self, question_id: str) -> list[Check]:
        """Return what the checks found out about a question; nothing where none was made.

        >>> store = ssd.open("store")
        >>> [check.check for check in store.checks("2hop__811040_270741") if check.outcome == "failed"]
        []
        """
        from stepsearch_data.trajectory import read_checks

        return read_checks(self.folder, question_id)

    def trajectories(self) -> Iterator[Trajectory]:
        """Yield every trajectory, in the order of the questions. Raises StoreError.

        >>> next(ssd.open("store").trajectories()).hops
        2
        """
        from stepsearch_data.trajectory import read_trajectories

        return read_trajectories(self.folder)

    def mark(self, question_id: str, mark: str | None = None, note: str | None = None) -> None:
        """Say of a trajectory that it is "good" or "bad", or write a note, as in `view`.

        None leaves a part as it is, "" takes it back. The table `marks` has what is said.
        Raises StoreError where there is no such trajectory, ConfigError for another mark or a note that is too long.

        >>> store = ssd.open("store")
        >>> store.mark("2hop__811040_270741", "good", "two clear hops")
        >>> store.table("marks").collect()["mark"].to_list()
        ['good']
        """
        from stepsearch_data.pipeline.marks import changed, write_marks

        change = changed(mark, note)
        if question_id not in self.folder.marks():  # a mark stays when its question has gone
            self.trajectory(question_id)
        write_marks(self.folder, {question_id: change})

    @contextmanager
    def retriever(self, engine: str | None = None, settings: Mapping[str, Any] | None = None) -> Iterator[Retrieve]:
        """Open a search engine until the block ends: it takes queries, and how many documents to return for each.

        Without `engine` (NAME or NAME=LOCATION) it is the store's own. `settings` are those of engines, by name.
        Raises SearchError where a query gets no answer, StoreError and ConfigError where there is no such engine.

        >>> with ssd.open("store").retriever() as retrieve:
        ...     [found.title for found in retrieve(["The Barber of Seville composer"], 1)[0]]
        ['The Barber of Seville']
        """
        from stepsearch_data.indexes import Choice
        from stepsearch_data.trainer.retrieval import open_retriever

        chosen = [f"{key}={_text(value)}" for key, value in (settings or {}).items()]
        load = partial(run_config_over, None, [*engine_settings(_listed(engine or ())), *chosen])
        with open_retriever(Choice(store=self.path), load(()), load, Reporter(quiet=True)) as (_, retrieve):
            yield retrieve

    def audit(self) -> dict[str, Any]:
        """Measure the data's quality, as `stepsearch-data audit --json` prints it. Raises StoreError.

        >>> sorted(ssd.open("store").audit()["by_source"])
        ['hotpotqa', 'musique']
        """
        from stepsearch_data.audit import audit

        return audit(self.folder)

    def compare(self, other: Store | AnyPath) -> dict[str, Any]:
        """Compare with another store, as `stepsearch-data compare --json` prints it. Raises StoreError.

        Settings, counts and gates that differ are pairs, of this store and of the other. Trajectories are those that
        are fit for training: `gained` by the other store, `lost` and `changed`, by question id.

        >>> ssd.open("store").compare("store")["lost"]
        []
        """
        from stepsearch_data.compare import compare

        return compare(self.folder, _opened(other).folder)

    def status(self) -> list[dict[str, Any]]:
        """Return what the store holds of each stage: its state, rows of its tables, bytes, seconds and rejects.

        >>> {stage["state"] for stage in ssd.open("store").status()}
        {'current'}
        """
        from stepsearch_data.stages import STAGES

        manifest = self.folder.manifest()
        seconds = {str(built.get("folder")): built.get("seconds") for built in self.folder.read_log("builds")}
        rows = []
        for stage in STAGES:
            entry = manifest.stages.get(stage.name)
            if stage.optional and entry is None:
                continue
            fresh = stage.name in manifest.fresh
            outputs = entry.outputs if entry else {}
            rows.append(
                {
                    "stage": stage.name,
                    "state": "not run" if entry is None else "current" if fresh else "stale: its inputs changed",
                    "rows": {name: output.rows for name, output in outputs.items() if name != REJECTS.name},
                    "bytes": sum(output.bytes for output in outputs.values()),
                    "seconds": seconds.get(entry.folder) if entry else None,
                    "rejects": outputs[REJECTS.name].rows if outputs else None,
                }
            )
        return rows

    def report(
        self,
        path: AnyPath = "stepsearch-report",
        *,
        title: str | None = None,
        folder: bool = False,
        rollouts: str | Sequence[str] = (),
        compare: Store | AnyPath | None = None,
        progress: bool = False,
    ) -> ReportWritten:
        """Write the store as a web page, or as a folder if large. `page` of the result is its path. Raises StoreError.

        With another store to `compare` with, the page also shows what has changed from that one to this.

        >>> ssd.open("store").report("report").page.name
        'report.html'
        """
        from stepsearch_data.report.rollouts import Rollouts
        from stepsearch_data.report.write import report

        with _writing(path), Reporter(quiet=not progress).stage("report") as meter:
            shown = Rollouts(_listed(rollouts))
            other = None if compare is None else _opened(compare).folder
            return report(self.folder, Path(path), meter, title=title, folder=folder, rollouts=shown, compared=other)

    def export(
        self,
        format: str,  # noqa: A002 - as the command names it
        path: AnyPath,
        *,
        template: str = "musique",
        split: str | None = None,
        everything: bool = False,
        allow_templates: bool = False,
        pass_rate: str | None = None,
        origin: Origin = "gold",
        progress: bool = False,
    ) -> Written:
        """Write the trajectories in a trainer's format into a folder. Return files, rows and how to load them.

        `everything` adds trajectories that are incomplete or failed the quality gates. `pass_rate` takes only those
        whose question a policy of the table `rollouts` passes so often: "0.2-0.8", or a band such as "medium".
        `origin` is "gold", "teacher" (trajectories that `pick` took of a policy's rollouts) or "all".
        Raises ConfigError for an unknown format, template, split or band, StoreError for a store that is not up to
        date, or has questions that templates have written (unless `allow_templates`).

        >>> ssd.open("store").export("trl-sft", "sft").rows
        {PosixPath('sft/train.parquet'): 236, PosixPath('sft/validation.parquet'): 11}
        """
        from stepsearch_data.exports.export import export, find_format, parse_rates
        from stepsearch_data.templates.files import load_template

        form, worded = find_format(format), load_template(template)
        wanted = None if pass_rate is None else parse_rates(pass_rate)
        with _writing(path), Reporter(quiet=not progress).stage("export") as meter:
            return export(
                self.folder,
                form,
                worded,
                Path(path),
                meter,
                split=split,
                everything=everything,
                allow_templates=allow_templates,
                wanted=wanted,
                origin=origin,
            )

    def __repr__(self) -> str:
        return f"Store({self.folder.name!r})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{count:,}</td></tr>" for name, count in self.tables.items())
        head = "<thead><tr><th>table</th><th>rows</th></tr></thead>"
        return f"<p><b>{escape(self.folder.name)}</b></p><table>{head}<tbody>{rows}</tbody></table>"


def _opened(store: Store | AnyPath) -> Store:
    return store if isinstance(store, Store) else Store(store)


@contextmanager
def _writing(path: AnyPath) -> Iterator[None]:
    """Raise StepSearchError where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise StepSearchError(f"cannot write {error.filename or path}: {error.strerror or error}") from error


def _outside_a_loop(work: Callable[[], T], reporter: Reporter) -> T:
    """Run work that starts its own event loops, in another thread if this one has a loop, as in a notebook."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(work).result()
        finally:
            reporter.stop()  # has no effect unless an interrupt came before the result


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _text(value: Any) -> str:
    """Write a setting's value as `--set` takes it."""
    from stepsearch_data.core.toml import write_value

    return "default" if value is None else write_value(str(value) if isinstance(value, PathLike) else value)


def _path(value: AnyPath | None) -> Path | None:
    return None if value is None else Path(value)
