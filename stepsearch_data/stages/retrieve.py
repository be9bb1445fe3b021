"""retrieve: `queries` → `hits`, what every engine returns for every query."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import Field

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.search import Found, SearchEngine
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.tables import HITS, QUERIES, SUB_QUESTIONS

_SEARCH_BATCH = 2_000
_WRITE_BATCH = 50_000
_FOUND = {"text": pl.UInt32, "rank": pl.Int64, "score": pl.Float64, "passage_id": pl.String}


class RetrieveConfig(StageConfig):
    """Which engines are asked, and for how much."""

    engines: tuple[Literal["bm25"], ...] = Field(
        default=("bm25",), min_length=1, description="engines that vote; `bm25` searches the run's own corpus"
    )
    top_k: int = Field(default=5, ge=1, le=100, description="documents asked of every engine")


def retrieve(context: StageContext) -> None:
    """Ask every engine every distinct query once, and mark the gold documents."""
    config = context.config(RetrieveConfig)
    queries = pl.read_parquet(
        context.inputs[QUERIES.name], glob=False, columns=["query_id", "question_id", "hop", "query"]
    )
    texts = queries.select("query").unique(maintain_order=True).with_row_index("text")
    queries = queries.join(texts, on="query", how="left", maintain_order="left").drop("query").with_row_index("place")
    context.meter.expect(len(texts) * len(config.engines))
    answers = [_ask(context, _open(context, name), texts["query"], config.top_k) for name in config.engines]
    gold = _gold(context)
    for start in range(0, len(queries), _WRITE_BATCH):
        batch = queries.slice(start, _WRITE_BATCH)
        hits = pl.concat(batch.join(found, on="text", maintain_order="left_right") for found in answers)
        marked = hits.join(gold, on=["question_id", "hop", "passage_id"], how="left", maintain_order="left")
        marked = marked.with_columns(pl.col("is_gold").fill_null(value=False)).sort("place", maintain_order=True)
        context.writer(HITS).write(marked.to_arrow())


def _open(context: StageContext, name: str) -> SearchEngine:
    from stepsearch_data.pipeline.search import bm25  # numba: a second that stages without an index are spared

    engines = {bm25.NAME: lambda: bm25.Bm25(context.inputs["index"], context.workers)}
    return engines[name]()


def _ask(context: StageContext, engine: SearchEngine, texts: pl.Series, k: int) -> pl.DataFrame:
    """What an engine finds for each text; one row with a null rank where it finds nothing."""
    frames = []
    for start in range(0, len(texts), _SEARCH_BATCH):
        batch = texts.slice(start, _SEARCH_BATCH).to_list()
        frames.append(_frame(start, engine.search(batch, k)))
        context.meter.advance(len(batch))
    return pl.concat([_frame(0, []), *frames]).with_columns(engine=pl.lit(engine.name))


def _frame(start: int, results: list[list[Found]]) -> pl.DataFrame:
    rows = [
        (text, rank, found.score, found.passage_id) if found else (text, None, None, None)
        for text, result in enumerate(results, start)
        for rank, found in (enumerate(result, 1) if result else ((None, None),))
    ]
    return pl.DataFrame(rows, schema=_FOUND, orient="row")


def _gold(context: StageContext) -> pl.DataFrame:
    columns = ["question_id", "hop", pl.col("gold_passage_ids").alias("passage_id")]
    gold = (
        pl.scan_parquet(context.inputs[SUB_QUESTIONS.name], glob=False).select(columns).explode("passage_id").unique()
    )
    return gold.with_columns(is_gold=pl.lit(value=True)).collect()


STAGE = Stage(
    name="retrieve",
    doc="try every query on every search engine",
    reads=("sub_questions", "queries", "index"),
    writes=(HITS,),
    config=RetrieveConfig,
    run=retrieve,
)
