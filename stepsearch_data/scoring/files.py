"""Scoring a file of any model's rollouts, or those that a store keeps, in bounded memory and on all cores."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.core.atomic import writing
from stepsearch_data.core.errors import ConfigError, StepSearchError, StoreError
from stepsearch_data.core.progress import Meter, Reporter
from stepsearch_data.executors import Name, open_executor
from stepsearch_data.pipeline.catalog import check_current
from stepsearch_data.pipeline.context import TableWriter
from stepsearch_data.pipeline.kept import kept
from stepsearch_data.pipeline.passes import KEEP_SOME
from stepsearch_data.pipeline.questions import by_question
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.rollouts import READ, ScoredAnswer, ScoredRollout
from stepsearch_data.schemas.rows import Reject
from stepsearch_data.schemas.tables import QUESTIONS, ROLLOUTS, ROUNDS, Inputs, Table
from stepsearch_data.scoring import scorer as scorer_module
from stepsearch_data.scoring.scorer import Chunk, Kind, Scored, Scorer
from stepsearch_data.sources import files
from stepsearch_data.sources.record import Record, numbered
from stepsearch_data.sources.tabular import parquet_rows

TABLES: dict[Kind, Table[Any]] = {
    "rollouts": Table("scores", ScoredRollout, rows_per_group=20_000),
    "answers": Table("scores", ScoredAnswer, rows_per_group=100_000),
}
_PRINTED: dict[Kind, tuple[str, ...]] = {  # what --json prints of a row, as the reference code names it
    "rollouts": (
        "score",
        "answer_correct",
        "step_scores",
        "search_key_score",
        "information_gain",
        "redundancy_penalty",
    ),
    "answers": ("musique_em", "musique_f1", "hotpotqa_em", "hotpotqa_f1"),
}
_KEYS = ("id", "policy", "sample")  # what is printed first of a store's rollouts, as no file has their order
_CHUNK_ROWS, _CHUNK_BYTES = 256, 4 << 20
_SMALL = 4  # chunks that one process scores faster than other processes start
_REASONS = 1_000  # distinct reasons that are counted
_SUFFIXES = (".gz", ".bz2", ".zst", ".jsonl", ".json", ".parquet")


@dataclass
class Report:
    """What was scored: numbers of rows, sums of the components, and why rows were rejected."""

    scored: int = 0
    rejected: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)  # position of the first row of each reason

    def means(self) -> dict[str, float]:
        """Return the mean of every component over the scored rows, or over all rounds for per-round ones."""
        rounds = self.sums.get("rounds", 0)
        each = {name: rounds if name.endswith("_per_round") else self.scored for name in self.sums}
        return {name: total / each[name] if each[name] else 0.0 for name, total in self.sums.items()}

    def add(self, scored: Scored) -> None:
        """Count a chunk's rows."""
        self.scored += len(scored.rows)
        for name, total in scored.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + total
        for reject in scored.rejects:
            self.rejected += 1
            if reject.reason in self.reasons or len(self.reasons) < _REASONS:
                self.reasons[reject.reason] += 1
                self.first.setdefault(reject.reason, reject.position)


def default_output(path: Path, kind: Kind = "rollouts") -> Path:
    """Name the output in the same folder: `X.jsonl.gz` → `X.scores.parquet`, of answers `X.answer-scores.parquet`.

    Raises ConfigError.
    """
    name = _named(path)
    while name.suffix.lower() in _SUFFIXES:
        name = name.with_suffix("")
    return name.with_name(f"{name.name}.{'answer-' if kind == 'answers' else ''}scores.parquet")


def rejects_of(output: Path) -> Path:
    """Name the file of rows that cannot be scored: `X.parquet` → `X.rejects.jsonl`. Raises ConfigError."""
    return _named(output).with_suffix(".rejects.jsonl")


def _named(path: Path) -> Path:
    """Return the path of a file. Raises ConfigError for `.` and `/`, which have no name to derive others from."""
    if not path.name:
        raise ConfigError(f"{path} is a folder, not a file")
    return path


def score_file(path: Path, scorer: Scorer, output: Path | None, *, workers: int | None, reporter: Reporter) -> Report:
    """Score every row of a file, in order, as Parquet in `output`, or as JSON lines on stdout where that is None.

    Rejected rows go to `rejects_of(output)`, or beside the input. An earlier such file is replaced or removed.
    Raises SourceError where the file cannot be read, ConfigError where it would be overwritten, or where
    something that is not a regular file would be replaced.
    """
    rejected = rejects_of(output or default_output(path, scorer.kind))
    for written in (output, rejected):
        if written and os.path.realpath(written) == os.path.realpath(path):
            raise ConfigError(f"{path} is read, and would be written too", "name another file with --output")
    return _score(partial(read_chunks, path), str(path), scorer, output, rejected, workers, reporter)


def score_store(
    store: Store, scorer: Scorer, output: Path | None, rejected: Path, *, workers: int | None, reporter: Reporter
) -> Report:
    """Score every rollout that a store keeps, as `score_file` does, against what the store says of its question.

    Raises StoreError where it keeps none, is not up to date or would be written into, and ConfigError as `score_file`.
    """
    check_current(store)
    if output:
        store.keep_out(output)
    with store.reading() as manifest:
        if not manifest.output(ROLLOUTS.name):
            raise StoreError(f"the store {store.name} keeps no rollouts", KEEP_SOME)
        inputs = store.tables(manifest, QUESTIONS, ROUNDS, ROLLOUTS)
        chunks = partial(kept_chunks, inputs)
        return _score(chunks, store.name, scorer, output, rejected, workers, reporter, keys=_KEYS)


def _score(
    read: Callable[[Meter], Iterator[Chunk]],
    source: str,
    scorer: Scorer,
    output: Path | None,
    rejected: Path,
    workers: int | None,
    reporter: Reporter,
    keys: tuple[str, ...] = (),
) -> Report:
    """Score chunks of rows. `source` says where rejected rows come from; `keys` are printed too."""
    for written in (output, rejected):
        # A FIFO, /dev/null or a folder; Path's methods would raise in a folder that is locked.
        if written and os.path.exists(written) and not os.path.isfile(written):  # noqa: PTH110, PTH113
            raise ConfigError(f"cannot write {written}: it is not a regular file", "for a stream of JSON lines: --json")
    report = Report()
    with reporter.stage("score") as meter, _Rejects(rejected, source) as rejects:
        chunks = read(meter)
        first = list(islice(chunks, _SMALL + 1))
        name: Name = "processes" if len(first) > _SMALL else "inline"
        executor = open_executor(name, workers or _cores(), [scorer_module.__name__])
        with closing(executor), _written(output, TABLES[scorer.kind]) as writer:
            for scored in executor.map(scorer.score, chain(first, chunks)):
                if writer:
                    writer.write(pa.Table.from_pylist(scored.rows, schema=TABLES[scorer.kind].schema))
                else:
                    printed = ({name: row[name] for name in (*keys, *_PRINTED[scorer.kind])} for row in scored.rows)
                    sys.stdout.buffer.writelines(orjson.dumps(row) + b"\n" for row in printed)
                    sys.stdout.flush()
                rejects.write(scored)
                report.add(scored)
                meter.advance(scored.read)
    if not report.rejected:
        rejected.unlink(missing_ok=True)
    return report


def read_chunks(path: Path, meter: Meter) -> Iterator[Chunk]:
    """Yield the file's rows in chunks for workers. Raises SourceError."""
    is_parquet = path.suffix.lower() == ".parquet"
    rows = parquet_rows(path, (*READ, "prediction", "answers"), meter.expect) if is_parquet else files.rows(path)
    chunk: list[Record] = []
    size = 0
    for record in numbered(rows):
        chunk.append(record)
        size += len(record.data) if isinstance(record.data, bytes) else 0
        if len(chunk) >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def kept_chunks(inputs: Inputs, meter: Meter) -> Iterator[Chunk]:
    """Yield the rollouts of a store in chunks for workers; `inputs` are its questions, rounds and rollouts."""
    meter.expect(pq.read_metadata(inputs[ROLLOUTS]).num_rows)
    rows = (fields for question in by_question(inputs, ROUNDS, ROLLOUTS) for fields, _ in kept(question))
    records = (Record(position, row) for position, row in enumerate(rows, start=1))
    while chunk := list(islice(records, _CHUNK_ROWS)):
        yield chunk


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _written(output: Path | None, table: Table[Any]) -> Iterator[TableWriter[Any] | None]:
    """Open a writer of a Parquet file that takes its name when it is whole, or yield None without an output."""
    if output is None:
        yield None
        return
    target = Path(os.path.realpath(output))
    try:
        with writing(target) as part:
            writer = TableWriter(part, table)
            try:
                yield writer
                writer.finish()
            finally:
                writer.close()
    except OSError as error:
        raise StepSearchError(f"cannot write {output}: {error.strerror or error}") from error


class _Rejects(ExitStack):
    """Rows that could not be scored, one JSON line each. There is a file only where there is such a row.

    It takes its name, in place of an earlier one, when the block ends well. Nothing changes where scoring fails.
    """

    def __init__(self, path: Path, source: str) -> None:
        super().__init__()
        self._path, self._source = path, os.fsencode(source).decode(errors="backslashreplace")
        self._file: BinaryIO | None = None

    def write(self, scored: Scored) -> None:
        """Add a chunk's rejects."""
        for reject in scored.rejects:
            if not self._file:
                part = self.enter_context(writing(self._path))
                self._file = self.enter_context(open(part, "xb"))  # noqa: SIM115 - closed by the stack
            row = Reject(stage="score", source=self._source, question_id=None, **reject._asdict())
            self._file.write(orjson.dumps(row.model_dump()) + b"\n")
