"""What a stage is given: its config, the tables it reads, and where its rows and rejects go."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.core.errors import StepSearchError
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import Reject, Row
from stepsearch_data.schemas.tables import REJECTS, Table
from stepsearch_data.search.kinds import Engine, Service
from stepsearch_data.sources.source import Source

C = TypeVar("C", bound=StageConfig)

if TYPE_CHECKING:
    from stepsearch_data.llm.service import Llm

_GROUP_BYTES = 64 << 20
_BUFFER_ROWS = 500
_RAW_CHARACTERS = 2_000
_EARLY_LOOK = 1_000
_READ_ROWS = 1_000


class TooManyRejects(StepSearchError):
    """More of a source's rows were rejected than the run allows."""


class Sink(io.RawIOBase):
    """Holds what Arrow writes until `pass_on` writes it: a full disk would have Arrow abort the process."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self._held: list[bytes] = []

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Take some bytes."""
        self._held.append(bytes(data))
        return len(self._held[-1])

    def pass_on(self) -> None:
        """Write what is held to the file. Raises OSError."""
        held, self._held = self._held, []
        self._file.writelines(held)
        self._file.flush()

    def close(self) -> None:
        """Close the file; what is still held is lost."""
        super().close()
        with suppress(OSError, AttributeError):  # Python closes one that could not be opened, too
            self._file.close()


class TableWriter:
    """Writes one table's Parquet file.

    Row groups end at `rows_per_group` rows or 64 MiB, counted at each write: the bytes depend on
    the rows and on how a stage batches them, never on timing.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self._table = table
        self._rows: list[Row] = []
        self._pending: list[pa.Table] = []
        self.count = 0
        self._sink = Sink(path)
        self._file = pq.ParquetWriter(
            self._sink,
            table.schema,
            compression="zstd",
            use_content_defined_chunking=True,  # an edited table re-uploads only what changed
            write_page_index=True,
        )

    def append(self, row: Row) -> None:
        """Add one row."""
        self._rows.append(row)
        if len(self._rows) >= _BUFFER_ROWS:
            self._drain()

    def write(self, rows: pa.Table) -> None:
        """Add many rows, in Arrow form; columns are cast to the table's schema."""
        self._drain()
        self._add(rows.select(self._table.schema.names).cast(self._table.schema))

    def close(self) -> None:
        """Write what is pending and finish the file."""
        self._drain()
        self._flush()
        self._file.close()
        self._sink.pass_on()
        self._sink.close()

    def abandon(self) -> None:
        """Let go of a file that will never be whole. Does nothing after `close`."""
        with suppress(OSError, pa.ArrowException):
            self._file.close()
        self._sink.close()

    def _drain(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._add(self._table.to_arrow(rows))

    def _add(self, rows: pa.Table) -> None:
        self.count += rows.num_rows
        self._pending.append(rows)
        size = sum(table.num_rows for table in self._pending)
        if size >= self._table.rows_per_group or sum(t.nbytes for t in self._pending) >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._file.write_table(pa.concat_tables(self._pending), row_group_size=self._table.rows_per_group)
            self._sink.pass_on()
            self._pending = []


class StageContext:
    """A stage's view of the world while it runs."""

    def __init__(
        self,
        stage: Stage,
        config: StageConfig,
        inputs: Mapping[str, Path],
        folder: Path,
        *,
        sources: Sequence[Source] = (),
        workers: int = 1,
        max_reject_share: float = 1.0,
        meter: Meter | None = None,
        model: Llm | None = None,
        prompts: Mapping[str, str] | None = None,
        retries: Mapping[str, int] | None = None,
        engines: Sequence[Engine] = (),
        service: Service | None = None,
    ) -> None:
        self.stage = stage
        self.inputs = inputs
        self.sources = sources
        self.workers = workers
        self.model = model
        self.prompts = prompts or {}
        self.retries = retries or {}
        self.engines = engines
        self.service = service or Service(workers)
        self.meter = meter or Meter(None, stage.name)
        self._config = config
        self._folder = folder
        self._max_reject_share = max_reject_share
        self._accepted: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._examples: defaultdict[str, list[Reject]] = defaultdict(list)
        tables = [output for output in stage.writes if isinstance(output, Table)]
        self._writers = {t.name: TableWriter(folder / f"{t.name}.parquet", t) for t in (*tables, REJECTS)}

    def sample(self, question_id: str) -> int:
        """How often this question was tried again: tells the new requests from those replayed."""
        return self.retries.get(question_id, 0)

    def config(self, kind: type[C]) -> C:
        """The stage's config, as the type that it declared."""
        assert isinstance(self._config, kind)
        return self._config

    def count(self, table: Table) -> int:
        """Number of rows of an input table."""
        return int(pq.read_metadata(self.inputs[table.name]).num_rows)

    def writer(self, table: Table) -> TableWriter:
        """Where the rows of an output table go."""
        return self._writers[table.name]

    def writer_of(self, row: Row) -> TableWriter:
        """Where a row goes: the output table of its type."""
        table = next(t for t in self.stage.writes if isinstance(t, Table) and type(row) is t.row)
        return self._writers[table.name]

    def folder(self, name: str) -> Path:
        """An empty folder for an output that is no table."""
        path = self._folder / name
        path.mkdir()
        return path

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
        """Put a row aside with the reason. Raises TooManyRejects early when a source is hopeless.

        One that does not count is no sign of that.
        """
        row = Reject(
            stage=self.stage.name,
            source=source,
            position=position,
            question_id=_printable(question_id) if question_id is not None else None,
            reason=_printable(reason),
            raw=_printable(raw),
        )
        self._writers[REJECTS.name].append(row)
        if not counts:
            self.meter.advance()
            return
        self._rejected[source] += 1
        if len(self._examples[source]) < _EARLY_LOOK:
            self._examples[source].append(row)
        self.meter.advance()
        if self._rejected[source] + self._accepted[source] == _EARLY_LOOK:
            self._check(source)

    def finish(self) -> dict[str, int]:
        """Close all outputs; the number of rows of each table. Raises TooManyRejects."""
        for source in self._rejected:
            self._check(source)
        for writer in self._writers.values():
            writer.close()
        return {name: writer.count for name, writer in self._writers.items()}

    def close(self) -> None:
        """Let go of all files of a stage that did not come to its end."""
        for writer in self._writers.values():
            writer.abandon()

    def _check(self, source: str) -> None:
        rejected = self._rejected[source]
        rows = rejected + self._accepted[source]
        if rejected <= self._max_reject_share * rows:
            return
        examples = self._examples[source]
        reasons = Counter(row.reason for row in examples).most_common(3)
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons)
        raise TooManyRejects(
            f"{self.stage.name}: {rejected} of {rows} rows of {source} were rejected"
            f" ({listed})" + (f"; the first is row {examples[0].position}" if examples[0].position else ""),
            "mend it, or allow it: --set run.max_reject_share=1 keeps the reasons in the table rejects",
        )


def read_rows(path: Path, table: Table) -> Iterator[Any]:
    """The rows of a table's file, in order and as its row model, a bounded number in memory."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_READ_ROWS):
            yield from table.from_arrow(batch)


def _printable(value: Any) -> str:
    """Text that Arrow can hold: bytes decoded, lone surrogates and NULs shown as escapes."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = text[:_RAW_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")
