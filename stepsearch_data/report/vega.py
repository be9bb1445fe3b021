"""Parts of Vega-Lite specifications. The page sets the colours, for its light and its dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepsearch_data.report.links import Links, trajectories
from stepsearch_data.report.shapes import Chart, Facts, Spec

if TYPE_CHECKING:
    import duckdb

Rows = list[list[Any]]
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_BINS = 24  # of a histogram, about


def histogram(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    titles: tuple[str, str, str],
    value: str,
    table: str,
    counted: str,
    filtered: str = "",
) -> Chart | None:
    """Count the finite values of a table in some two dozen bins of a round width.

    `titles` are those of the chart and of its axis, and the note; `counted` says what a row of the table is, and
    `filtered` names the filter by this value.
    """
    title, measured, note = titles
    finite = f"FROM {table} WHERE isfinite(({value})::DOUBLE)"
    ((low, high),) = fetch(connection, f"SELECT min({value}), max({value}) {finite}")
    if low is None:
        return None
    width = _round_width((high - low) / _BINS)
    # The largest value of a scale that ends on a bin's border, such as 1.0, belongs to the bin below it.
    last = max(int(low // width), -int(-high // width) - 1)
    rows = fetch(
        connection,
        f"SELECT least(floor({value} / {width} + 1e-9), {last})::BIGINT AS bin, count(*) {finite} "
        "GROUP BY bin ORDER BY bin",
    )
    columns = ["from", "to", counted]
    binned = [[_short(at * width), _short((at + 1) * width), times] for at, times in rows]
    axis = {"field": "from", "type": "quantitative", "bin": {"binned": True, "step": width}, "title": measured}
    spec = {"mark": "bar", "encoding": {"x": axis, "x2": {"field": "to"}, "y": count(counted)}}
    ends = {last: "max"}
    asked = [
        {f"{filtered}_min": row[0], f"{filtered}_{ends.get(at, 'below')}": row[1]}
        for (at, _), row in zip(rows, binned, strict=True)
    ]
    links = [{counted: trajectories(each)} for each in asked] if filtered else []
    return chart(name, title, note, spec, columns, binned, links)


def _short(value: float) -> float:
    """Round off what adding up fractions leaves behind."""
    return round(value, 6)


def _round_width(width: float) -> float:
    """Return the next larger number that is 1, 2 or 5 with zeros."""
    candidates = (float(f"{digit}e{exponent}") for exponent in range(-3, 12) for digit in (1, 2, 5))
    return next((candidate for candidate in candidates if candidate >= width), width)


def fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> Rows:
    """Fetch the rows of a query."""
    return [list(row) for row in connection.execute(sql).fetchall()]


def chart(
    name: str, title: str, note: str, spec: Spec, columns: Sequence[str], rows: Rows, links: Sequence[Links] = ()
) -> Chart:
    """Make a chart whose data is its table; `links` are those of its rows."""
    values = [dict(zip(columns, row, strict=True)) for row in rows]
    whole = {"$schema": _SCHEMA, "width": "container", "data": {"values": values}, **spec}
    table: Facts = {"title": title, "columns": list(columns), "rows": rows, "links": list(links)}
    return {"id": name, "note": note, "spec": whole, **table}


def category(field: str, **more: Any) -> Spec:
    """Place each value on an axis."""
    return {"field": field, "type": "ordinal", "axis": {"labelAngle": 0}, **more}


def colour(field: str) -> Spec:
    """Give each value a colour."""
    return {"field": field, "type": "nominal"}


def number(field: str, title: str) -> Spec:
    """Place a number on an axis."""
    return {"field": field, "type": "quantitative", "title": title}


def count(field: str) -> Spec:
    """Place a count on an axis, stacked where there are several."""
    return {"field": field, "type": "quantitative", "aggregate": "sum", "title": field}


def share(field: str) -> Spec:
    """Place a number from 0 to 1 on an axis, in per cent."""
    return {"field": field, "type": "quantitative", "axis": {"format": "%"}, "title": field}
