"""The charts: Vega-Lite specifications over numbers that SQL has already counted. Colours are the page's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stepsearch_data.report.shapes import Chart, Spec

if TYPE_CHECKING:
    import duckdb

Rows = list[list[Any]]
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_BINS = 24  # of a histogram, about
_WORDS = "len(string_split(replace({0}, chr(10), ' '), ' '))"


def charts(connection: duckdb.DuckDBPyConnection) -> list[Chart]:
    """All charts for which the store has rows."""
    drawn = [draw(connection) for draw in _CHARTS]
    return [chart for chart in drawn if chart is not None and chart["rows"]]


def _hops(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = _rows(connection, "SELECT hops, source, count(*) FROM trajectories GROUP BY ALL ORDER BY ALL")
    spec = {
        "mark": "bar",
        "encoding": {"x": _category("hops"), "y": _count("trajectories"), "color": _colour("source")},
    }
    note = "How many searches a question needs, and where it comes from."
    return _chart("hops", "Hops", note, spec, ["hops", "source", "trajectories"], rows)


def _kept(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = _rows(
        connection,
        """SELECT kept, count(*) FROM (
               SELECT count(*) FILTER (kept) AS kept FROM queries GROUP BY question_id, hop HAVING bool_or(kept NOTNULL)
           ) GROUP BY kept ORDER BY kept""",
    )
    spec = {"mark": "bar", "encoding": {"x": _category("kept queries"), "y": _count("hops")}}
    note = "A hop at 0 has no query that the engines agree on; its trajectory is not complete."
    return _chart("kept", "Queries kept per hop", note, spec, ["kept queries", "hops"], rows)


def _ranks(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = _rows(
        connection,
        """SELECT engine, CASE WHEN gold_rank IS NULL THEN 'none' WHEN gold_rank > 9 THEN '10+'
                          ELSE gold_rank::VARCHAR END AS rank,
                  count(*), round(count(*) / sum(count(*)) OVER (PARTITION BY engine), 4)
           FROM ballots WHERE answered GROUP BY engine, rank ORDER BY engine, min(coalesce(gold_rank, 1000))""",
    )
    order = sorted({rank for _, rank, *_ in rows}, key=lambda rank: (rank == "none", len(rank), rank))
    spec = {
        "mark": "bar",
        "encoding": {
            "x": _category("rank of gold", sort=order),
            "xOffset": {"field": "engine"},
            "y": _share("share of queries"),
            "color": _colour("engine"),
        },
    }
    note = "Where each engine ranks the first gold passage; none where it is not among what the engine returned."
    return _chart(
        "ranks", "Hit rank per engine", note, spec, ["engine", "rank of gold", "queries", "share of queries"], rows
    )


def _gain(connection: duckdb.DuckDBPyConnection) -> Chart | None:
    note = "What a round's documents add to what is known of the gold paragraphs: G, from 0 to 1."
    return _histogram(connection, "gain", ("Information gain per round", "gain", note), "information_gain", "rounds")


def _redundancy(connection: duckdb.DuckDBPyConnection) -> Chart | None:
    note = "Share of a round's documents that an earlier round has shown: P, from 0 to 1."
    titles = ("Redundancy per round", "redundancy", note)
    return _histogram(connection, "redundancy", titles, "redundancy_penalty", "rounds")


def _reward(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = _rows(
        connection,
        """SELECT round, count(*), round(avg(step_reward), 4), round(quantile_cont(step_reward, 0.25), 4),
                  round(median(step_reward), 4), round(quantile_cont(step_reward, 0.75), 4)
           FROM rounds GROUP BY round ORDER BY round""",
    )
    x = _category("round")
    spec = {
        "layer": [
            {
                "mark": {"type": "bar", "opacity": 0.35, "width": {"band": 0.3}},
                "encoding": {"x": x, "y": _number("lower quarter", "step reward"), "y2": {"field": "upper quarter"}},
            },
            {
                "mark": {"type": "tick", "thickness": 2, "width": {"band": 0.3}},
                "encoding": {"x": x, "y": _number("median", "step reward")},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {"x": x, "y": _number("mean", "step reward")},
            },
        ]
    }
    note = "G - P. Point: mean; line: median; bar: the middle half of the rounds."
    columns = ["round", "rounds", "mean", "lower quarter", "median", "upper quarter"]
    return _chart("reward", "Step reward by round", note, spec, columns, rows)


def _rollout_words(connection: duckdb.DuckDBPyConnection) -> Chart | None:
    note = "Words of a whole rollout, the documents that it shows among them."
    titles = ("Length of trajectories", "words", note)
    return _histogram(connection, "rollout_words", titles, _WORDS.format("rollout"), "trajectories")


def _document_words(connection: duckdb.DuckDBPyConnection) -> Chart | None:
    note = "Words of a passage of the corpus."
    titles = ("Length of documents", "words", note)
    return _histogram(connection, "document_words", titles, _WORDS.format("text"), "passages")


def _agreement(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = _rows(
        connection,
        """SELECT a.engine, b.engine, count(*), count(*) FILTER (a.valid AND b.valid),
                  count(*) FILTER (a.valid AND NOT b.valid), count(*) FILTER (NOT a.valid AND b.valid),
                  count(*) FILTER (NOT a.valid AND NOT b.valid), round(avg((a.valid = b.valid)::INT), 4)
           FROM ballots a JOIN ballots b USING (query_id) WHERE a.answered AND b.answered AND a.engine <> b.engine
           GROUP BY ALL ORDER BY ALL""",
    )
    faint = {"domain": [0, 1], "range": [0, 0.5]}  # so that a number can be read on it, in light and dark
    spec = {
        "encoding": {"x": _category("one engine"), "y": _category("another")},
        "layer": [
            {"mark": "rect", "encoding": {"opacity": {**_number("agreement", ""), "scale": faint, "legend": None}}},
            {"mark": "text", "encoding": {"text": {"field": "agreement", "type": "quantitative", "format": ".0%"}}},
        ],
    }
    note = "Share of the queries that both engines answered on which they say the same: valid, or not."
    columns = ["one engine", "another", "queries", "both valid", "only one", "only the other", "neither", "agreement"]
    return _chart("agreement", "Engine agreement", note, spec, columns, rows)


def _gates(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = _rows(
        connection,
        """SELECT gate, source, count(*) FROM (SELECT unnest(flags) AS gate, source FROM quality)
           GROUP BY ALL ORDER BY ALL""",
    )
    spec = {
        "mark": "bar",
        "encoding": {"y": _category("gate", sort="-x"), "x": _count("trajectories"), "color": _colour("source")},
    }
    note = "Trajectories that fail a gate; one may fail several, and some gates only flag."
    return _chart("gates", "Quality gates", note, spec, ["gate", "source", "trajectories"], rows)


def _latency(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = _rows(
        connection,
        """SELECT stage || ', ' || model, count(*), round(median(latency), 3), round(quantile_cont(latency, 0.95), 3)
           FROM llm_calls WHERE NOT cached GROUP BY ALL ORDER BY ALL""",
    )
    y = _category("asked by")
    spec = {
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": y, "x": _number("median", "seconds"), "x2": {"field": "95th percentile"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {"y": y, "x": _number("median", "seconds")},
            },
        ]
    }
    note = "Seconds of a paid call: median, and a line to the 95th percentile."
    columns = ["asked by", "calls", "median", "95th percentile"]
    return _chart("latency", "Latency of model calls", note, spec, columns, rows)


def _cost(connection: duckdb.DuckDBPyConnection) -> Chart:
    rows = _rows(
        connection,
        """SELECT stage, model, sum(prompt_tokens)::BIGINT, sum(completion_tokens)::BIGINT, round(sum(cost), 6)
           FROM llm_calls WHERE NOT cached GROUP BY ALL ORDER BY ALL""",
    )
    priced = any(cost for *_, cost in rows)
    measure = "US dollars" if priced else "reply tokens"
    spec = {"mark": "bar", "encoding": {"y": _category("stage"), "x": _count(measure), "color": _colour("model")}}
    note = "What the paid calls of each stage cost." if priced else "Tokens of replies; the models have no price."
    columns = ["stage", "model", "prompt tokens", "reply tokens", "US dollars"]
    return _chart("cost", "Cost of model calls", note, spec, columns, rows)


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


def _histogram(
    connection: duckdb.DuckDBPyConnection, name: str, titles: tuple[str, str, str], value: str, table: str
) -> Chart | None:
    """How often a value of a table lies in each of some two dozen bins of a round width.

    `titles` are those of the chart and of its axis, and the note.
    """
    title, measured, note = titles
    ((low, high),) = _rows(connection, f"SELECT min({value}), max({value}) FROM {table}")
    if low is None:
        return None
    width = _round_width((high - low) / _BINS)
    # The largest value of a scale that ends on a bin's border, such as 1.0, belongs to the bin below it.
    last = max(int(low // width), -int(-high // width) - 1)
    rows = _rows(
        connection,
        f"SELECT least(floor({value} / {width} + 1e-9), {last})::BIGINT AS bin, count(*) FROM {table} "
        "GROUP BY bin ORDER BY bin",
    )
    columns = ["from", "to", table]
    binned = [[_short(at * width), _short((at + 1) * width), count] for at, count in rows]
    axis = {"field": "from", "type": "quantitative", "bin": {"binned": True, "step": width}, "title": measured}
    spec = {"mark": "bar", "encoding": {"x": axis, "x2": {"field": "to"}, "y": _count(table)}}
    return _chart(name, title, note, spec, columns, binned)


def _short(value: float) -> float:
    """Without what adding up fractions leaves behind."""
    return round(value, 6)


def _round_width(width: float) -> float:
    """The next larger number that is 1, 2 or 5 with zeros."""
    candidates = (float(f"{digit}e{exponent}") for exponent in range(-3, 12) for digit in (1, 2, 5))
    return next(candidate for candidate in candidates if candidate >= width)


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> Rows:
    return [list(row) for row in connection.execute(sql).fetchall()]


def _chart(name: str, title: str, note: str, spec: Spec, columns: Sequence[str], rows: Rows) -> Chart:
    """A chart whose data is its table."""
    values = [dict(zip(columns, row, strict=True)) for row in rows]
    whole = {"$schema": _SCHEMA, "width": "container", "data": {"values": values}, **spec}
    return {"id": name, "title": title, "note": note, "spec": whole, "columns": list(columns), "rows": rows}


def _category(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "ordinal", "axis": {"labelAngle": 0}, **more}


def _colour(field: str) -> Spec:
    return {"field": field, "type": "nominal"}


def _number(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title}


def _count(field: str) -> Spec:
    return {"field": field, "type": "quantitative", "aggregate": "sum", "title": field}


def _share(field: str) -> Spec:
    return {"field": field, "type": "quantitative", "axis": {"format": "%"}, "title": field}
