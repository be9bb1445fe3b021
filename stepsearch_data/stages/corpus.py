"""corpus: the sources' distinct paragraphs → `passages`, what the search engines index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from stepsearch_data.core.lazy import Lazy
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.tables import PARAGRAPHS, PASSAGES, QUESTIONS

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")

_BATCH = 20_000


class CorpusConfig(StageConfig):
    """The corpus is every paragraph of the sources: there is nothing to choose."""


def corpus(context: StageContext) -> None:
    """Count for every paragraph how many questions show it, and how many need it."""
    questions = pl.scan_parquet(context.inputs[QUESTIONS], glob=False)
    shown = _count(questions.select(passage_id=pl.col("paragraph_ids")), "questions")
    gold = pl.col("supporting").list.eval(pl.element().struct.field("passage_id"))
    needed = _count(questions.select(passage_id=gold), "gold_questions")
    counts = pl.scan_parquet(context.inputs[PARAGRAPHS], glob=False).select("passage_id")
    for of in (shown, needed):  # joined once: a join reads all of its right side
        counts = counts.join(of.lazy(), on="passage_id", how="left", maintain_order="left")
    counted = counts.select(pl.col("questions", "gold_questions").fill_null(0).cast(pl.Int64)).collect()
    context.meter.expect(len(counted))
    done = 0
    with pq.ParquetFile(context.inputs[PARAGRAPHS]) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            paragraphs = pl.DataFrame(batch).hstack(counted.slice(done, batch.num_rows))
            context.writer(PASSAGES).write(paragraphs.to_arrow())
            context.meter.advance(batch.num_rows)
            done += batch.num_rows


def _count(ids: pl.LazyFrame, name: str) -> pl.DataFrame:
    per_question = ids.select(pl.col("passage_id").list.unique()).explode("passage_id")
    return per_question.group_by("passage_id").agg(pl.len().alias(name)).collect(engine="streaming")


STAGE = Stage(
    name="corpus",
    doc="gather the distinct paragraphs that the engines search",
    reads=(QUESTIONS, PARAGRAPHS),
    writes=(PASSAGES,),
    config=CorpusConfig,
    run=corpus,
)
