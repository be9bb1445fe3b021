"""gather: all questions that the stages after it work on, `loaded` → `questions`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.tables import LOADED, QUESTIONS

_BATCH = 2_000


class GatherConfig(StageConfig):
    """Nothing: every question of the sources counts."""


def gather(context: StageContext) -> None:
    """Take every question of the sources."""
    context.meter.expect(context.count(LOADED))
    with pq.ParquetFile(context.inputs[LOADED]) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            context.writer(QUESTIONS).extend(pa.Table.from_batches([batch]))
            context.meter.advance(batch.num_rows)


STAGE = Stage(
    name="gather",
    doc="gather the questions of the sources",
    reads=(LOADED,),
    writes=(QUESTIONS,),
    config=GatherConfig,
    run=gather,
)
