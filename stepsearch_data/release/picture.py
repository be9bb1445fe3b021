"""The card's picture: how many trajectories are released, by source, hops and difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.sql import connect

_COUNTS = """
SELECT t.source, hops, difficulty, count(*) AS trajectories
FROM trajectories t JOIN quality USING (question_id) WHERE complete AND passed GROUP BY ALL ORDER BY ALL
"""
_LEVELS = {"easy": "#62b0aa", "medium": "#2b7d79", "hard": "#0b3a3b"}
_PPI = 144  # twice the 72 that it is laid out in
_INK, _SOFT, _LINE = "#1d1f21", "#5b6067", "#e4e1db"
_CONFIG: dict[str, Any] = {
    "font": "Liberation Sans",  # which the converter brings, so that all machines draw the same
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": _LINE,
        "labelColor": _SOFT,
        "titleColor": _SOFT,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "tickCount": 4,
    },
    "axisX": {"grid": False, "labelAngle": 0},
    "header": {"labelColor": _INK, "labelFontSize": 13, "labelFontWeight": "bold"},
    "legend": {"orient": "top", "labelColor": _INK, "labelFontSize": 12, "titleColor": _SOFT, "titleFontSize": 12},
}


def picture(store: Store, manifest: Manifest) -> bytes | None:
    """Draw the released trajectories as a PNG; None where the extra `charts` is not installed."""
    try:
        import vl_convert
    except ImportError:
        return None
    with connect(store, manifest) as connection:
        rows = connection.execute(_COUNTS).fetchall()
    drawn: bytes = vl_convert.vegalite_to_png(bars(rows), ppi=_PPI)
    return drawn


def bars(rows: Sequence[tuple[str, int, str, int]]) -> dict[str, Any]:
    """Return stacked bars: a panel per source, a bar per number of hops, a shade per difficulty."""
    names = ("source", "hops", "difficulty", "trajectories")
    shades = {"domain": [*_LEVELS], "range": [*_LEVELS.values()]}
    values = [{**dict(zip(names, row, strict=True)), "level": [*_LEVELS].index(row[2])} for row in rows]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": values},
        "mark": {"type": "bar", "width": {"band": 0.7}},
        "width": {"step": 56},
        "height": 150,
        "encoding": {
            "column": {"field": "source", "title": None, "spacing": 36},
            "x": {"field": "hops", "type": "ordinal", "title": "hops"},
            "y": {"field": "trajectories", "type": "quantitative", "title": "trajectories"},
            "color": {"field": "difficulty", "type": "nominal", "scale": shades},
            "order": {"field": "level"},
        },
        "resolve": {"scale": {"x": "independent"}},
        "config": _CONFIG,
        "padding": 12,
        "background": "white",
    }
