"""retrieve: `queries` → `hits`, what every engine returns for every query."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from stepsearch_data.core.lazy import Lazy
from stepsearch_data.core.ordered import ordered
from stepsearch_data.core.text import containment, tokens
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.in_order import InOrder
from stepsearch_data.pipeline.stage import Needs, Stage, StageConfig
from stepsearch_data.schemas.tables import HITS, INDEX, PASSAGES, QUERIES, SUB_QUESTIONS
from stepsearch_data.search import Answer, Engine, Found, LocalEngine
from stepsearch_data.search.engine import Hits
from stepsearch_data.search.index import open_engine
from stepsearch_data.sources.record import paragraph
from stepsearch_data.stages.retrieval.answers import Answers
from stepsearch_data.stages.retrieval.texts import Texts
from stepsearch_data.templates.passages import Passages

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")

_WRITE_BATCH = 50_000
_Row = tuple[int, int | None, float | None, str | None, str | None, str | None, str | None, float | None, str | None]


class RetrieveConfig(StageConfig):
    """How many documents are requested, and when one from elsewhere counts as a gold passage."""

    top_k: int = Field(default=5, ge=1, le=100, description="documents requested of every engine")
    containment: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="share of the words of a document from elsewhere that a gold passage must hold, or the other way"
        " round, to be the same text (docs/search.md)",
    )


def retrieve(context: StageContext) -> None:
    """Ask every engine every distinct query once, and mark the gold documents."""
    config = context.config(RetrieveConfig)
    texts = Texts(context.inputs[QUERIES])
    passages = Passages(context.inputs[PASSAGES], context.scratch)
    context.meter.expect(len(texts) * len(context.engines))
    answers = asyncio.run(_ask_all(context, texts, passages, config.top_k))
    queries = pl.scan_parquet(context.inputs[QUERIES], glob=False).select("query_id", "question_id", "hop")
    with pq.ParquetFile(context.inputs[SUB_QUESTIONS]) as file:
        hops = InOrder(file, "question_id", ("question_id", "hop", "gold_passage_ids"))
        for start in range(0, len(texts.of), _WRITE_BATCH):
            batch = queries.slice(start, _WRITE_BATCH).collect().with_row_index("place")
            asked = texts.of[start : start + _WRITE_BATCH]
            hits = pl.concat(
                batch.join(found.of(asked), on="place", how="left", maintain_order="left_right").with_columns(
                    engine=pl.lit(engine.name)
                )
                for engine, found in zip(context.engines, answers, strict=True)
            )
            marked = _marked(hits, _gold(hops.take(batch["question_id"])), passages, config.containment)
            marked = marked.sort("place", maintain_order=True).drop("text")
            context.writer(HITS).write(marked.rename({"text_of": "text"}).to_arrow())


def _marked(hits: pl.DataFrame, gold: pl.DataFrame, passages: Passages, share: float) -> pl.DataFrame:
    """Add `is_gold` to hits: by id for a passage of this corpus, by its words for a document from elsewhere."""
    marked = hits.join(gold, on=["question_id", "hop", "passage_id"], how="left", maintain_order="left")
    foreign = pl.col("text_of").is_not_null()
    if marked.select(foreign.any()).item():
        rows = marked.with_row_index("row").filter(foreign)
        alike = rows.select("row", alike=_resembles_gold(passages, rows, gold, share))
        marked = marked.with_row_index("row").join(alike, on="row", how="left", maintain_order="left").drop("row")
        marked = marked.with_columns(pl.coalesce("is_gold", "alike").alias("is_gold")).drop("alike")
    return marked.with_columns(pl.col("is_gold").fill_null(value=False))


async def _ask_all(context: StageContext, texts: Texts, passages: Passages, k: int) -> list[Answers]:
    """Ask all engines all texts at the same time. An error that stops one engine stops all."""
    asking = [asyncio.create_task(_ask(context, engine, texts, passages, k)) for engine in context.engines]
    try:
        answers = await asyncio.gather(*asking)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    for engine, found in zip(context.engines, answers, strict=True):
        failed = found.failed()
        for row in failed.join(texts.rows(failed["text"]), on="text", maintain_order="left").iter_rows(named=True):
            context.reject(engine.name, None, row["question_id"], f"{engine.name}: {row['error']}", row["query"])
    return answers


async def _ask(context: StageContext, engine: Engine, texts: Texts, passages: Passages, k: int) -> Answers:
    """Return an engine's hits for each text. A text that failed, or took time to find nothing, has one without rank."""
    asked = open_engine(engine, context.inputs[INDEX], context.service)
    over_passages = asked if isinstance(asked, LocalEngine) and not asked.elsewhere else None
    ids = pl.Series(over_passages.documents.ids() if over_passages else [], dtype=pl.String)

    async def ask(numbered: tuple[int, list[str]]) -> tuple[pl.DataFrame, int]:
        """Return the hits of a batch, and how many of its texts were answered."""
        start, batch = numbered
        if over_passages:
            hits = await over_passages.hits(batch, k)
            return _from_arrays(start, hits, ids), len(batch) - len(hits.errors)
        told = await asked.search(batch, k)
        rows = [row for text, answer in enumerate(told, start) for row in _rows(text, answer, passages)]
        return pl.DataFrame(rows, schema=_columns(), orient="row"), sum(not answer.error for answer in told)

    answers = Answers(context.scratch / f"answers-{engine.name}.arrow", len(texts), _columns())
    try:
        async for frame, answered in ordered(ask, texts.batches(asked.batch), asked.in_flight):
            answers.add(frame)
            for _ in range(answered):
                context.accept(engine.name)
    finally:
        await asked.close()
        answers.close()
    return answers


def _columns() -> dict[str, type[pl.DataType]]:
    return {
        "text": pl.UInt32,
        "rank": pl.Int64,
        "score": pl.Float64,
        "passage_id": pl.String,
        "title": pl.String,
        "text_of": pl.String,
        "url": pl.String,
        "latency": pl.Float64,
        "error": pl.String,
    }


def _from_arrays(first: int, hits: Hits, ids: pl.Series) -> pl.DataFrame:
    """Return the hits for the texts from `first` on, in arrays, with the `ids` of the documents that they number."""
    ends = np.cumsum(hits.counts)
    found = {
        "text": np.repeat(np.arange(first, first + len(ends), dtype=np.uint32), hits.counts),
        "rank": np.arange(1, len(hits.numbers) + 1) - np.repeat(ends - hits.counts, hits.counts),
        "score": hits.scores,
        "passage_id": ids.gather(hits.numbers),
    }
    failed = {"text": [first + place for place in hits.errors], "error": list(hits.errors.values())}
    frames = (pl.DataFrame(columns, schema_overrides=_columns()) for columns in (found, failed))
    return pl.concat([pl.DataFrame(schema=_columns()), *frames], how="diagonal")


def _rows(text: int, answer: Answer, passages: Passages) -> Iterator[_Row]:
    if not answer.found:
        yield text, None, None, None, None, None, None, answer.latency, answer.error or None
    for rank, found in enumerate(answer.found, start=1):
        passage_id = found.passage_id or id_of(found, passages)
        shown = (None, None, None) if passage_id else (found.title, found.text, found.url or None)
        yield text, rank, found.score, passage_id, *shown, answer.latency, None


def id_of(found: Found, passages: Passages) -> str | None:
    """Return the id of the passage with exactly this title and text, or None."""
    passage_id = paragraph(found.title, found.text).passage_id
    return passage_id if passage_id in passages else None


def _gold(hops: pl.DataFrame) -> pl.DataFrame:
    """Return the gold passages of each hop."""
    gold = hops.rename({"gold_passage_ids": "passage_id"}).explode("passage_id").unique(maintain_order=True)
    return gold.with_columns(is_gold=pl.lit(value=True))


def _resembles_gold(passages: Passages, foreign: pl.DataFrame, gold: pl.DataFrame, share: float) -> pl.Series:
    """Tell for each document from elsewhere whether its words are mostly those of a gold passage of its hop."""
    needed = foreign.select("question_id", "hop").unique().join(gold, on=["question_id", "hop"])
    needed = needed.drop_nulls("passage_id")
    texts = passages.texts(needed["passage_id"].unique())
    words = {row[0]: frozenset(tokens(f"{row[1]} {row[2]}")) for row in texts.iter_rows()}
    by_hop: dict[tuple[str, int], list[frozenset[str]]] = {}
    for question_id, hop, passage_id in needed.select("question_id", "hop", "passage_id").iter_rows():
        by_hop.setdefault((question_id, hop), []).append(words[passage_id])
    shown = foreign.select("question_id", "hop", "title", "text_of").iter_rows()
    return pl.Series(
        [
            any(containment(document, paragraph) >= share for paragraph in by_hop.get((question_id, hop), ()))
            for question_id, hop, title, text in shown
            for document in (frozenset(tokens(f"{title} {text}")),)
        ],
        dtype=pl.Boolean,
    )


STAGE = Stage(
    name="retrieve",
    doc="try every query on every search engine",
    reads=(SUB_QUESTIONS, PASSAGES, QUERIES, INDEX),
    writes=(HITS,),
    config=RetrieveConfig,
    run=retrieve,
    needs=Needs.ALL_ENGINES,
    version=2,
)
