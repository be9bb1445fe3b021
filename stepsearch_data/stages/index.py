"""index: `paragraphs` → the indexes of all engines that run in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from stepsearch_data.core.files import digest_of
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.stage import Needs, Stage, StageConfig
from stepsearch_data.schemas.tables import INDEX, PARAGRAPHS
from stepsearch_data.search.corpus import Reject
from stepsearch_data.search.documents import Document
from stepsearch_data.search.index import build_index


class IndexConfig(StageConfig):
    """Nothing: engines and their settings are chosen in the section `engines`."""


@dataclass(frozen=True)
class _Passages:
    """The run's own passages as a corpus."""

    path: Path
    name: str = "passages"

    @property
    def stamp(self) -> str:
        return self.digest

    @property
    def digest(self) -> str:
        return digest_of(self.path)

    def documents(self, _reject: Reject) -> Iterator[Document]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(columns=["passage_id", "title", "text"]):
                yield from map(Document, *(column.to_pylist() for column in batch.columns))


def index(context: StageContext) -> None:
    """Index title and text of every passage."""

    @contextmanager
    def phase(name: str, _steps: int | None) -> Iterator[Meter]:
        context.meter.note(lambda: name)
        yield context.meter

    context.meter.expect(context.count(PARAGRAPHS) * (1 + len(context.engines)))
    folder = context.folder(INDEX.name)
    build_index(folder, _Passages(context.inputs[PARAGRAPHS]), context.engines, phase, context.meter.say)
    (folder / ".lock").unlink()


STAGE = Stage(
    name="index",
    doc="build the search indexes of the corpus",
    reads=(PARAGRAPHS,),
    writes=(INDEX,),
    config=IndexConfig,
    run=index,
    needs=Needs.OWN_ENGINES,
    version=3,
)
