"""filter: `hits` → `engine_votes` and `votes`, the paper's rule that decides which queries are kept (§2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import pyarrow.parquet as pq
from pydantic import Field

from stepsearch_data.core.lazy import Lazy
from stepsearch_data.core.text import contains, facts
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.in_order import InOrder
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.tables import ENGINE_VOTES, HITS, PASSAGES, QUERIES, SUB_QUESTIONS, VOTES
from stepsearch_data.templates.passages import Passages

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazy("polars")

_BATCH = 20_000


class FilterConfig(StageConfig):
    """When a result is valid, how many engines must say so, and how many must have answered."""

    k: int = Field(default=3, ge=1, le=100, description="how many of an engine's documents are looked at")
    valid: Literal["gold", "answer", "gold-or-answer"] = Field(
        default="gold", description="a gold passage is among the k documents, or the hop's answer occurs in one of them"
    )
    rule: Literal["majority", "any", "all"] | Annotated[int, Field(ge=1, le=100)] = Field(
        default="majority",
        description="`majority` is ⌈M/2⌉ of the M engines that answered; `any`, `all`, or a number of engines",
    )
    quorum: Literal["majority", "any", "all"] | Annotated[int, Field(ge=1, le=100)] = Field(
        default="majority",
        description="how many of the engines asked must answer, at most all; below, a query waits for a retry",
    )


def filter_queries(context: StageContext) -> None:
    """Let the engines vote on every query."""
    config = context.config(FilterConfig)
    queries = pl.scan_parquet(context.inputs[QUERIES], glob=False).select("query_id", "question_id", "hop")
    number = context.count(QUERIES)
    passages = Passages(context.inputs[PASSAGES], context.scratch)
    context.meter.expect(number)
    with pq.ParquetFile(context.inputs[HITS]) as hits_file, pq.ParquetFile(context.inputs[SUB_QUESTIONS]) as hops_file:
        hits = InOrder(hits_file, "query_id", HITS.schema.names)
        hops = InOrder(hops_file, "question_id", ("question_id", "hop", "sub_answer"))
        for start in range(0, number, _BATCH):
            batch = queries.slice(start, _BATCH).collect()
            found = hits.take(batch["query_id"]).with_row_index("row")
            near = found.filter(pl.col("rank") <= config.k)
            valid = near.select("row", valid="is_gold")
            if config.valid != "gold":
                says = _says_answer(near, hops.take(batch["question_id"]), passages)
                valid = valid.with_columns(says | pl.col("valid") if config.valid == "gold-or-answer" else says)
            judged = found.join(valid, on="row", how="left", maintain_order="left")
            engine_votes = _engine_votes(judged.with_columns(pl.col("valid").fill_null(value=False)))
            votes = batch.join(_votes(engine_votes, config), on="query_id", maintain_order="left")
            context.writer(ENGINE_VOTES).write(engine_votes.to_arrow())
            context.writer(VOTES).write(votes.to_arrow())
            context.meter.advance(len(batch))


def _says_answer(hits: pl.DataFrame, hops: pl.DataFrame, passages: Passages) -> pl.Series:
    """Tell for each of the hits whether the document holds the answer of its hop."""
    own = passages.texts(hits["passage_id"].drop_nulls().unique())
    joined = hits.join(hops, on=["question_id", "hop"], how="left", maintain_order="left")
    joined = joined.join(own, on="passage_id", how="left", maintain_order="left", suffix="_own")
    texts = joined.select(pl.coalesce("title_own", "title"), pl.coalesce("text_own", "text"), "sub_answer")
    said = [
        answer is not None and all(contains(f"{title} {text}", fact) for fact in facts(answer))
        for title, text, answer in texts.iter_rows()
    ]
    return pl.Series("valid", said, dtype=pl.Boolean)


def _engine_votes(hits: pl.DataFrame) -> pl.DataFrame:
    """Make one row per query and engine, in the order of the hits. An engine that found nothing has answered."""
    return hits.group_by("query_id", "question_id", "hop", "engine", maintain_order=True).agg(
        pl.col("valid").any(),
        answered=pl.col("error").is_null().all(),
        documents=pl.col("rank").count().cast(pl.Int64),
        gold_rank=pl.col("rank").filter(pl.col("is_gold")).min(),
    )


def _votes(engine_votes: pl.DataFrame, config: FilterConfig) -> pl.DataFrame:
    """Make one row per query."""
    votes = engine_votes.group_by("query_id").agg(
        asked=pl.len().cast(pl.Int64),
        engines=pl.col("answered").sum().cast(pl.Int64),
        valid_engines=pl.col("valid").sum().cast(pl.Int64),
        gold_rank=pl.col("gold_rank").min(),
    )
    quorum = pl.min_horizontal(_share(config.quorum, pl.col("asked")), "asked")
    counted = votes.with_columns(
        needed=_share(config.rule, pl.col("engines")).cast(pl.Int64), waiting=pl.col("engines") < quorum
    )
    return counted.with_columns(kept=~pl.col("waiting") & (pl.col("valid_engines") >= pl.col("needed")))


def _share(rule: str | int, engines: pl.Expr) -> pl.Expr:
    """Return the number of engines that a rule means, at least one."""
    if isinstance(rule, int):
        return pl.lit(rule)
    number = {"majority": (engines + 1) // 2, "any": pl.lit(1), "all": engines}[rule]
    return pl.max_horizontal(number, pl.lit(1))


STAGE = Stage(
    name="filter",
    doc="let the engines vote on which queries are kept",
    reads=(SUB_QUESTIONS, PASSAGES, QUERIES, HITS),
    writes=(ENGINE_VOTES, VOTES),
    config=FilterConfig,
    run=filter_queries,
    version=4,
)
