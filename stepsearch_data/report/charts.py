"""The charts of the overview, each over numbers that SQL has already counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stepsearch_data.report.links import Links, trajectories
from stepsearch_data.report.listing import WORDS
from stepsearch_data.report.parts import RANK
from stepsearch_data.report.shapes import Chart, Spec
from stepsearch_data.report.vega import category, chart, colour, count, fetch, histogram, number, share

if TYPE_CHECKING:
    import duckdb


def charts(connection: duckdb.DuckDBPyConnection) -> list[Chart]:
    """Draw all charts for which the store has rows."""
    drawn = [draw(connection) for draw in _CHARTS]
    return [each for each in drawn if each is not None and each["rows"]]


def _source(connection: duckdb.DuckDBPyConnection) -> Spec:
    """Return a colour for each source, the same in all charts, also where a source has no rows."""
    sources = [name for (name,) in fetch(connection, "SELECT DISTINCT source FROM questions ORDER BY source")]
    return {**colour("source"), "scale": {"domain": sources}}


def _hops(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = fetch(connection, "SELECT hops, source, count(*) FROM trajectories GROUP BY ALL ORDER BY ALL")
    spec = {
        "mark": "bar",
        "encoding": {"x": category("hops"), "y": count("trajectories"), "color": _source(connection)},
    }
    note = "How many searches a question needs, and where it comes from."
    links = [{"trajectories": trajectories(hops=hops, source=source)} for hops, source, _ in rows]
    return chart("hops", "Hops", note, spec, ["hops", "source", "trajectories"], rows, links)


def _kept(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = fetch(
        connection,
        """SELECT kept, count(*) FROM (
               SELECT count(*) FILTER (kept) AS kept FROM queries GROUP BY question_id, hop HAVING bool_or(kept NOTNULL)
           ) GROUP BY kept ORDER BY kept""",
    )
    spec = {"mark": "bar", "encoding": {"x": category("kept queries"), "y": count("hops")}}
    links = [{"hops": trajectories({"hops.kept": kept})} for kept, _ in rows]
    note = "A hop at 0 has no query that the engines agree on; its trajectory is not complete."
    return chart("kept", "Queries kept per hop", note, spec, ["kept queries", "hops"], rows, links)


def _ranks(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = fetch(
        connection,
        f"""SELECT engine, {RANK} AS rank, count(*),
                   round(count(*) / sum(count(*)) OVER (PARTITION BY engine), 4)
           FROM engine_votes WHERE answered GROUP BY engine, rank ORDER BY engine, min(coalesce(gold_rank, 1000))""",
    )
    order = sorted({rank for _, rank, *_ in rows}, key=lambda rank: (rank == "none", len(rank), rank))
    spec = {
        "mark": "bar",
        "encoding": {
            "x": category("rank of gold", sort=order),
            "xOffset": {"field": "engine"},
            "y": share("share of queries"),
            "color": colour("engine"),
        },
    }
    note = "Where each engine ranks the first gold passage; none where it is not among what the engine returned."
    columns = ["engine", "rank of gold", "queries", "share of queries"]
    links = [{"queries": trajectories({f"queries.rank.{engine}": rank})} for engine, rank, *_ in rows]
    return chart("ranks", "Hit rank per engine", note, spec, columns, rows, links)


def _gain(connection: duckdb.DuckDBPyConnection) -> Chart | None:
    note = "What a round's documents add to what is known of the gold paragraphs: G, from 0 to 1."
    titles = ("Information gain per round", "gain", note)
    return histogram(connection, "gain", titles, "round(information_gain, 4)", "rounds", "rounds", "rounds.gain")


def _redundancy(connection: duckdb.DuckDBPyConnection) -> Chart | None:
    note = "Share of a round's documents that an earlier round has shown: P, from 0 to 1."
    titles = ("Redundancy per round", "redundancy", note)
    return histogram(
        connection, "redundancy", titles, "round(redundancy_penalty, 4)", "rounds", "rounds", "rounds.redundancy"
    )


def _reward(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = fetch(
        connection,
        """SELECT round, count(*), round(avg(step_reward), 4), round(quantile_cont(step_reward, 0.25), 4),
                  round(median(step_reward), 4), round(quantile_cont(step_reward, 0.75), 4)
           FROM rounds GROUP BY round ORDER BY round""",
    )
    x = category("round")
    spec = {
        "layer": [
            {
                "mark": {"type": "bar", "opacity": 0.35, "width": {"band": 0.3}},
                "encoding": {"x": x, "y": number("lower quarter", "step reward"), "y2": {"field": "upper quarter"}},
            },
            {
                "mark": {"type": "tick", "thickness": 2, "width": {"band": 0.3}},
                "encoding": {"x": x, "y": number("median", "step reward")},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {"x": x, "y": number("mean", "step reward")},
            },
        ]
    }
    note = "G - P. Point: mean; line: median; bar: the middle half of the rounds."
    columns = ["round", "rounds", "mean", "lower quarter", "median", "upper quarter"]
    links = [{"rounds": trajectories({"rounds.round": number})} for number, *_ in rows]
    return chart("reward", "Step reward by round", note, spec, columns, rows, links)


def _rollout_words(connection: duckdb.DuckDBPyConnection) -> Chart | None:
    note = "Words of a whole rollout, the documents that it shows among them."
    titles = ("Length of trajectories", "words", note)
    return histogram(connection, "rollout_words", titles, "words", "listing", "trajectories", "words")


def _document_words(connection: duckdb.DuckDBPyConnection) -> Chart | None:
    note = "Words of a passage of the corpus."
    titles = ("Length of documents", "words", note)
    return histogram(connection, "document_words", titles, WORDS.format("text"), "passages", "passages")


def _agreement(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = fetch(
        connection,
        """SELECT a.engine, b.engine, count(*), count(*) FILTER (a.valid AND b.valid),
                  count(*) FILTER (a.valid AND NOT b.valid), count(*) FILTER (NOT a.valid AND b.valid),
                  count(*) FILTER (NOT a.valid AND NOT b.valid), round(avg((a.valid = b.valid)::INT), 4)
           FROM engine_votes a JOIN engine_votes b USING (query_id)
           WHERE a.answered AND b.answered AND a.engine <> b.engine
           GROUP BY ALL ORDER BY ALL""",
    )
    faint = {"domain": [0, 1], "range": [0, 0.5]}  # so that a number can be read on it, in light and dark
    spec = {
        "encoding": {"x": category("one engine"), "y": category("another")},
        "layer": [
            {"mark": "rect", "encoding": {"opacity": {**number("agreement", ""), "scale": faint, "legend": None}}},
            {"mark": "text", "encoding": {"text": {"field": "agreement", "type": "quantitative", "format": ".0%"}}},
        ],
    }
    links = [_said_by(one, another) for one, another, *_ in rows]
    note = "Share of the queries that both engines answered on which they say the same. A field leads to the others."
    columns = ["one engine", "another", "queries", "both valid", "only one", "only the other", "neither", "agreement"]
    return chart("agreement", "Engine agreement", note, spec, columns, rows, links)


def _said_by(one: str, another: str) -> Links:
    """Lead to what two engines say; a field of the chart to what only the first finds valid."""
    said = {"only one": (True, False), "both valid": (True, True), "only the other": (False, True)}
    asked = {**said, "neither": (False, False), "queries": ([True, False], [True, False])}
    return {
        column: trajectories({f"queries.valid.{one}": first, f"queries.valid.{another}": second})
        for column, (first, second) in asked.items()
    }


def _gates(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = fetch(
        connection,
        """SELECT gate, source, count(*) FROM (SELECT unnest(flags) AS gate, source FROM quality)
           GROUP BY ALL ORDER BY ALL""",
    )
    spec = {
        "mark": "bar",
        "encoding": {"y": category("gate", sort="-x"), "x": count("trajectories"), "color": _source(connection)},
    }
    note = "Trajectories that fail a gate; one may fail several, and some gates only flag."
    links = [{"trajectories": trajectories(flags=gate, source=source)} for gate, source, _ in rows]
    return chart("gates", "Quality gates", note, spec, ["gate", "source", "trajectories"], rows, links)


def _latency(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = fetch(
        connection,
        """SELECT stage || ', ' || model, count(*), round(median(latency), 3), round(quantile_cont(latency, 0.95), 3)
           FROM llm_calls WHERE NOT cached GROUP BY ALL ORDER BY ALL""",
    )
    y = category("asked by")
    spec = {
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": y, "x": number("median", "seconds"), "x2": {"field": "95th percentile"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {"y": y, "x": number("median", "seconds")},
            },
        ]
    }
    note = "Seconds of a paid call: median, and a line to the 95th percentile."
    columns = ["asked by", "calls", "median", "95th percentile"]
    return chart("latency", "Latency of model calls", note, spec, columns, rows)


def _cost(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = fetch(
        connection,
        """SELECT stage, model, sum(prompt_tokens)::BIGINT, sum(completion_tokens)::BIGINT, round(sum(cost), 6)
           FROM llm_calls WHERE NOT cached GROUP BY ALL ORDER BY ALL""",
    )
    priced = any(cost for *_, cost in rows)
    measure = "US dollars" if priced else "reply tokens"
    spec = {"mark": "bar", "encoding": {"y": category("stage"), "x": count(measure), "color": colour("model")}}
    note = "What the paid calls of each stage cost." if priced else "Tokens of replies; the models have no price."
    columns = ["stage", "model", "prompt tokens", "reply tokens", "US dollars"]
    return chart("cost", "Cost of model calls", note, spec, columns, rows)


_CHARTS: tuple[Callable[[duckdb.DuckDBPyConnection], Chart | None], ...] = (
    _hops,
    _kept,
    _ranks,
    _agreement,
    _gain,
    _redundancy,
    _reward,
    _gates,
    _rollout_words,
    _document_words,
    _latency,
    _cost,
)
