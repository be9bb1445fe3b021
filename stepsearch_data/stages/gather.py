"""gather: all questions that the stages after it work on, `loaded` and `composed` → `questions`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stepsearch_data.core.arrow import filtered
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.tables import CANDIDATES, COMPOSED, LOADED, QUESTIONS, VERDICTS, Table

_BATCH = 2_000


class GatherConfig(StageConfig):
    """Nothing: every question of the sources counts, and every composed one that has passed."""


def gather(context: StageContext) -> None:
    """Take every question of the sources, and the composed ones whose verdict is that they passed."""
    context.meter.expect(sum(map(context.count, CANDIDATES)))
    for batch in _batches(context, LOADED):
        context.writer(QUESTIONS).extend(batch)
        context.meter.advance(batch.num_rows)
    verdicts = pq.read_table(context.inputs[VERDICTS], columns=["question_id", "passed"])
    ids = pq.read_table(context.inputs[COMPOSED], columns=["question_id"])[0]
    have_passed = pc.is_in(ids, value_set=verdicts["question_id"].filter(verdicts["passed"])).combine_chunks()
    for kept in filtered(_batches(context, COMPOSED), have_passed):
        context.writer(QUESTIONS).extend(kept.select(QUESTIONS.schema.names).cast(QUESTIONS.schema))
    context.meter.advance(len(ids))


def _batches(context: StageContext, table: Table[Any]) -> Iterator[pa.Table]:
    with pq.ParquetFile(context.inputs[table]) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            yield pa.Table.from_batches([batch])


STAGE = Stage(
    name="gather",
    doc="gather the questions of the sources, and those composed ones that passed",
    reads=(*CANDIDATES, VERDICTS),
    writes=(QUESTIONS,),
    config=GatherConfig,
    run=gather,
)
