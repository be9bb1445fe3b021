"""What a stage is given: its config, the tables it reads, and where its rows and rejects go."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow.parquet as pq
from pydantic import BaseModel

from stepsearch_data.core.errors import StepSearchError
from stepsearch_data.core.parquet import ParquetWriter
from stepsearch_data.core.progress import Meter
from stepsearch_data.executors import INLINE, Executor
from stepsearch_data.schemas.rows import Reject, Row
from stepsearch_data.schemas.tables import REJECTS, Folder, Inputs, Table
from stepsearch_data.search.kinds import Engine, Service

C = TypeVar("C", bound=BaseModel)
R = TypeVar("R", bound=Row)

if TYPE_CHECKING:
    from stepsearch_data.llm.service import Llm
    from stepsearch_data.sources.source import Source

_RAW_CHARACTERS = 2_000
_EARLY_LOOK = 1_000
_READ_ROWS = 1_000
_SCRATCH = ".scratch"
_FEW = 1_000  # items of work that are done before processes have started


class TooManyRejects(StepSearchError):
    """More of a source's rows were rejected than the run allows."""


class TableWriter(ParquetWriter[R]):
    """Writes one table's Parquet file; an edited table re-uploads only what changed."""

    def __init__(self, path: Path, table: Table[R]) -> None:
        super().__init__(
            open(path, "wb"),  # noqa: SIM115 - closed by `close`
            table.schema,
            table.to_arrow,
            rows_per_group=table.rows_per_group,
            use_content_defined_chunking=True,
            write_page_index=True,
        )


class StageContext:
    """What a stage can use while it runs. `name` and `writes` are the stage's; `tables` are those that it writes."""

    def __init__(
        self,
        name: str,
        writes: Sequence[Table[Any] | Folder],
        config: BaseModel,
        inputs: Inputs,
        folder: Path,
        *,
        sources: Sequence[Source] = (),
        executor: Executor = INLINE,
        max_reject_share: float = 1.0,
        meter: Meter | None = None,
        model: Llm | None = None,
        prompts: Mapping[str, str] | None = None,
        retries: Mapping[str, int] | None = None,
        engines: Sequence[Engine] = (),
        service: Service | None = None,
        marked: Collection[str] = (),
    ) -> None:
        self.inputs = inputs
        self.sources = sources
        self._executor = executor
        self.model = model
        self.prompts = prompts or {}
        self.retries = retries or {}
        self.engines = engines
        self.service = service or Service()
        self.marked = marked
        self.meter = meter or Meter(None, name)
        self._name = name
        self._config = config
        self._folder = folder
        self._max_reject_share = max_reject_share
        self._accepted: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._examples: defaultdict[str, list[Reject]] = defaultdict(list)
        self.tables = tuple(output for output in writes if isinstance(output, Table))
        self._writers = {t.name: TableWriter(folder / f"{t.name}.parquet", t) for t in (*self.tables, REJECTS)}

    def sample(self, question_id: str) -> int:
        """Return how often this question was tried again, so that a new request differs from a replayed one."""
        return self.retries.get(question_id, 0)

    def config(self, kind: type[C]) -> C:
        """Return the stage's config, as the type that it declared."""
        assert isinstance(self._config, kind)
        return self._config

    def count(self, table: Table[Any]) -> int:
        """Return the number of rows of an input table."""
        return int(pq.read_metadata(self.inputs[table]).num_rows)

    def writer(self, table: Table[R]) -> TableWriter[R]:
        """Return the writer of an output table."""
        return self._writers[table.name]

    def writer_of(self, row: R) -> TableWriter[R]:
        """Return the writer of the output table that holds rows of this type."""
        return self._writers[next(table.name for table in self.tables if type(row) is table.row)]

    def executor(self, items: int) -> Executor:
        """Return what works on so many questions, rows or queries: this process alone on few."""
        return self._executor if items >= _FEW else INLINE

    def folder(self, name: str) -> Path:
        """Make an empty folder for an output that is not a table."""
        path = self._folder / name
        path.mkdir()
        return path

    @cached_property
    def scratch(self) -> Path:
        """Make an empty folder for files of this stage alone, which workers see too. It is no output."""
        return self.folder(_SCRATCH)

    def accept(self, source: str) -> None:
        """Count a row of a source as good."""
        self._accepted[source] += 1
        self.meter.advance()

    def reject(
        self,
        source: str,
        position: int | None,
        question_id: str | None,
        reason: str,
        raw: Any = "",
        *,
        counts: bool = True,
    ) -> None:
        """Write a row to `rejects` with the reason.

        Raises TooManyRejects early when too many of a source's first rows are rejected. A reject with
        `counts=False` is left out of that share.
        """
        row = Reject(
            stage=self._name,
            source=source,
            position=position,
            question_id=_printable(question_id) if question_id is not None else None,
            reason=_printable(reason),
            raw=_printable(raw),
        )
        self._writers[REJECTS.name].append(row)
        self.meter.advance()
        if not counts:
            return
        self._rejected[source] += 1
        if len(self._examples[source]) < _EARLY_LOOK:
            self._examples[source].append(row)
        if self._rejected[source] + self._accepted[source] == _EARLY_LOOK:
            self._check(source)

    def finish(self) -> dict[str, int]:
        """Finish and close all outputs. Return the number of rows of each table. Raises TooManyRejects."""
        for source in self._rejected:
            self._check(source)
        for writer in self._writers.values():
            writer.finish()
        self.close()
        shutil.rmtree(self._folder / _SCRATCH, ignore_errors=True)
        return {name: writer.count for name, writer in self._writers.items()}

    def close(self) -> None:
        """Close all files, also after a stage that failed."""
        for writer in self._writers.values():
            writer.close()

    def _check(self, source: str) -> None:
        rejected = self._rejected[source]
        rows = rejected + self._accepted[source]
        if rejected <= self._max_reject_share * rows:
            return
        examples = self._examples[source]
        reasons = Counter(row.reason for row in examples).most_common(3)
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons)
        raise TooManyRejects(
            f"{self._name}: {rejected} of {rows} rows of {source} were rejected"
            f" ({listed})" + (f"; the first is row {examples[0].position}" if examples[0].position else ""),
            "mend it, or allow it: --set run.max_reject_share=1 keeps the reasons in the table rejects",
        )


def read_rows(path: Path, table: Table[R]) -> Iterator[R]:
    """Yield the rows of a table's file in order, as its row model, with a bounded number in memory."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_READ_ROWS):
            yield from table.from_arrow(batch)


def _printable(value: Any) -> str:
    """Return text that Arrow can hold: bytes decoded, lone surrogates and NULs shown as escapes."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = text[:_RAW_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")
