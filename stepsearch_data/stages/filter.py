"""filter: `hits` → `votes`, the paper's rule that decides which queries are kept (§2.1)."""

from __future__ import annotations

from typing import Annotated, Literal

import polars as pl
from pydantic import Field

from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.tables import HITS, PASSAGES, QUERIES, SUB_QUESTIONS, VOTES
from stepsearch_data.text import contains

_BATCH = 20_000


class FilterConfig(StageConfig):
    """When a result is valid, and how many engines must say so."""

    k: int = Field(default=3, ge=1, description="how many of an engine's documents are looked at")
    valid: Literal["gold", "answer", "gold-or-answer"] = Field(
        default="gold", description="a gold passage is among the k documents, or the hop's answer occurs in one of them"
    )
    rule: Literal["majority", "any", "all"] | Annotated[int, Field(ge=1)] = Field(
        default="majority", description="`majority` is ⌈M/2⌉ of M engines; `any`, `all`, or a number of engines"
    )


def filter_queries(context: StageContext) -> None:
    """Let the engines vote on every query."""
    config = context.config(FilterConfig)
    queries = pl.read_parquet(context.inputs[QUERIES.name], glob=False, columns=["query_id", "question_id", "hop"])
    context.meter.expect(len(queries))
    for start in range(0, len(queries), _BATCH):
        batch = queries.slice(start, _BATCH)
        hits = (
            pl.scan_parquet(context.inputs[HITS.name], glob=False)
            .join(batch.lazy(), on="query_id", how="semi")
            .collect()
        )
        votes = batch.join(_vote(_judged(context, hits, config), config), on="query_id", maintain_order="left")
        context.writer(VOTES).write(votes.to_arrow())
        context.meter.advance(len(batch))


def _judged(context: StageContext, hits: pl.DataFrame, config: FilterConfig) -> pl.DataFrame:
    """Hits with `valid`: whether this document makes the query valid on its engine."""
    near = pl.col("rank") <= config.k
    if config.valid == "gold":
        return hits.with_columns(valid=(near & pl.col("is_gold")).fill_null(value=False))
    answered = hits.join(_answered(context, hits.filter(near)), on=["question_id", "hop", "passage_id"], how="left")
    says = pl.col("says").fill_null(value=False)
    valid = says if config.valid == "answer" else says | pl.col("is_gold")
    return answered.with_columns(valid=(near & valid).fill_null(value=False))


def _answered(context: StageContext, hits: pl.DataFrame) -> pl.DataFrame:
    """Which passage holds the answer of which hop, for the pairs that occur in the hits."""
    pairs = hits.select("question_id", "hop", "passage_id").unique()
    sub_questions = pl.scan_parquet(context.inputs[SUB_QUESTIONS.name], glob=False).select(
        "question_id", "hop", "sub_answer"
    )
    passages = pl.scan_parquet(context.inputs[PASSAGES.name], glob=False).select("passage_id", "title", "text")
    joined = pairs.lazy().join(sub_questions, on=["question_id", "hop"]).join(passages, on="passage_id").collect()
    says = [contains(f"{row[0]} {row[1]}", row[2]) for row in joined.select("title", "text", "sub_answer").iter_rows()]
    return joined.select("question_id", "hop", "passage_id").with_columns(says=pl.Series(says, dtype=pl.Boolean))


def _vote(hits: pl.DataFrame, config: FilterConfig) -> pl.DataFrame:
    """One row a query. An engine that found nothing has answered, and finds the query not valid."""
    by_engine = hits.group_by("query_id", "engine").agg(
        pl.col("valid").any(), gold_rank=pl.col("rank").filter(pl.col("is_gold")).min()
    )
    votes = by_engine.group_by("query_id").agg(
        engines=pl.len().cast(pl.Int64),
        valid_engines=pl.col("valid").sum().cast(pl.Int64),
        gold_rank=pl.col("gold_rank").min(),
    )
    counted = votes.with_columns(needed=_needed(config.rule).cast(pl.Int64))
    return counted.with_columns(kept=pl.col("valid_engines") >= pl.col("needed"))


def _needed(rule: str | int) -> pl.Expr:
    engines = pl.col("engines")
    if isinstance(rule, int):
        return pl.lit(rule)
    return {"majority": (engines + 1) // 2, "any": pl.lit(1), "all": engines}[rule]


STAGE = Stage(
    name="filter",
    doc="let the engines vote on which queries are kept",
    reads=("sub_questions", "passages", "queries", "hits"),
    writes=(VOTES,),
    config=FilterConfig,
    run=filter_queries,
)
