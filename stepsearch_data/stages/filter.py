"""filter: `hits` → `engine_votes` and `votes`, the paper's rule that decides which queries are kept (§2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import pyarrow.parquet as pq
from pydantic import Field

from stepsearch_data.core.lazy import Lazy
from stepsearch_data.core.text import contains, facts
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.tables import ENGINE_VOTES, HITS, PASSAGES, QUERIES, SUB_QUESTIONS, VOTES

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
    context.meter.expect(number)
    with pq.ParquetFile(context.inputs[HITS]) as file:
        hits = _Hits(file)
        for start in range(0, number, _BATCH):
            batch = queries.slice(start, _BATCH).collect()
            engine_votes = _engine_votes(_judged(context, hits.take(batch["query_id"]), config))
            votes = batch.join(_votes(engine_votes, config), on="query_id", maintain_order="left")
            context.writer(ENGINE_VOTES).write(engine_votes.to_arrow())
            context.writer(VOTES).write(votes.to_arrow())
            context.meter.advance(len(batch))


class _Hits:
    """Reads hits, which are in the order of the queries, for some queries at a time."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._batches = file.iter_batches()
        self._read = pl.DataFrame(file.schema_arrow.empty_table())

    def take(self, query_ids: pl.Series) -> pl.DataFrame:
        """Return the hits of the next queries."""
        wanted = query_ids.implode()
        read, taken = [self._read], self._read["query_id"].is_in(wanted)
        while taken.all() and (batch := next(self._batches, None)):  # the next ones may be of these queries too
            read.append(pl.DataFrame(batch))
            taken = read[-1]["query_id"].is_in(wanted)
        self._read = read[-1].filter(~taken)
        return pl.concat([*read[:-1], read[-1].filter(taken)])


def _judged(context: StageContext, hits: pl.DataFrame, config: FilterConfig) -> pl.DataFrame:
    """Add `valid` to hits: whether this document makes the query valid on its engine."""
    near = pl.col("rank") <= config.k
    if config.valid == "gold":
        return hits.with_columns(valid=(near & pl.col("is_gold")).fill_null(value=False))
    says = _says_answer(context, hits.with_row_index("row").filter(near))
    found = hits.with_row_index("row").join(says, on="row", how="left", maintain_order="left")
    valid = pl.col("says").fill_null(value=False)
    if config.valid == "gold-or-answer":
        valid |= pl.col("is_gold")
    return found.with_columns(valid=(near & valid).fill_null(value=False))


def _says_answer(context: StageContext, hits: pl.DataFrame) -> pl.DataFrame:
    """Tell for each `row` of the hits whether the document holds the answer of its hop."""
    sub_questions = pl.scan_parquet(context.inputs[SUB_QUESTIONS], glob=False)
    passages = pl.scan_parquet(context.inputs[PASSAGES], glob=False)
    joined = (
        hits.lazy()
        .join(sub_questions.select("question_id", "hop", "sub_answer"), on=["question_id", "hop"])
        .join(
            passages.select("passage_id", own_title="title", own_text="text"),
            on="passage_id",
            how="left",
            maintain_order="left",
        )
        .select("row", pl.coalesce("own_title", "title"), pl.coalesce("own_text", "text"), "sub_answer")
        .collect()
    )
    said = [
        all(contains(f"{title} {text}", fact) for fact in facts(answer))
        for _, title, text, answer in joined.iter_rows()
    ]
    return joined.select("row").with_columns(says=pl.Series(said, dtype=pl.Boolean))


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
