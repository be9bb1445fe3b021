"""index: `passages` → a search index for every local engine."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.pipeline.stage import Folder, Stage, StageConfig
from stepsearch_data.schemas.tables import PASSAGES

INDEX = Folder("index", "BM25 index: arrays, vocabulary and passage ids")


class IndexConfig(StageConfig):
    """BM25's parameters; Lucene's defaults."""

    k1: float = Field(default=1.2, gt=0, allow_inf_nan=False, description="how fast repeated words saturate")
    title_weight: int = Field(default=2, ge=0, description="how often the title counts beside the text")
    b: float = Field(default=0.75, ge=0, le=1, description="how much long passages are held back")


def index(context: StageContext) -> None:
    """Index title and text of every passage."""
    from stepsearch_data.pipeline.search import bm25  # numba: a second that stages without an index are spared

    config = context.config(IndexConfig)
    context.meter.expect(context.count(PASSAGES))

    def texts() -> Iterator[tuple[str, str]]:
        for passage in read_rows(context.inputs[PASSAGES.name], PASSAGES):
            context.meter.advance()
            yield passage.passage_id, f"{passage.title}\n" * config.title_weight + passage.text

    bm25.build_index(texts(), context.folder(INDEX.name), config.k1, config.b)


STAGE = Stage(
    name="index",
    doc="build the search index of the corpus",
    reads=("passages",),
    writes=(INDEX,),
    config=IndexConfig,
    run=index,
)
