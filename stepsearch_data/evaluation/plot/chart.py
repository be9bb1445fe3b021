"""Learning curves as a picture: a row per metric, a column per cold start, a colour per variant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.evaluation.plot.curves import Band, Curves

Spec = dict[str, Any]

# Okabe and Ito's palette, told apart by the colour-blind; from the ninth variant on, dashed.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6B00", "#5B6067")
_DOTS = 40  # measurements of a curve that are marked by dots, if it has no more
_SINGLE = 3  # curves of a panel that are shown with their runs, if there are no more
_INK, _SOFT, _LINE = "#1d1f21", "#5b6067", "#e9e7e2"
_SHARES = {"em", "f1", "key", "format_ok", "answered", "clipped"}
_TITLES = {
    "em": "exact match",
    "f1": "answer F1",
    "key": "search-key score",
    "gain": "information gain",
    "redundancy": "redundancy penalty",
    "format_ok": "share in the right format",
    "answered": "share answered",
    "searches": "searches per question",
    "invalid": "invalid turns per question",
    "own_tokens": "tokens that the policy wrote",
    "kl": "KL to the reference, nats per token",
    "entropy": "entropy, nats per token",
}
_AXES = {"updates": "updates", "rollouts": "rollouts", "tokens": "tokens that the policy wrote"}


def draw(curves: Curves, smooth: int = 1) -> Spec:
    """Make the Vega-Lite specification of all bands, with its data."""
    bands = list(curves.bands(smooth))
    ends = [float(end) for band in bands for x, _ in band.runs for end in (x[0], x[-1])]
    across = {"domain": [min(ends), max(ends)], "nice": False}
    rows = []
    for metric in curves.metrics:
        panels = ([band for band in bands if (band.metric, band.start) == (metric, start)] for start in curves.starts)
        drawn = [_panel(curves, panel, across) for panel in panels if panel]
        rows.append({"hconcat": drawn, "spacing": 30, "resolve": {"scale": {"y": "shared"}}})
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {"text": _caption(bands, smooth), "fontSize": 12, "fontWeight": "normal", "color": _SOFT},
        "vconcat": rows,
        "spacing": 26,
        "config": _CONFIG,
        "padding": 18,
        "background": "white",
    }


def write(spec: Spec, path: Path) -> None:
    """Write a PNG, SVG or HTML file, as the name ends; the page needs no network. Raises TrainError."""
    import vl_convert

    check_name(path)
    if path.suffix == ".png":
        drawn = vl_convert.vegalite_to_png(spec, scale=2)
    elif path.suffix == ".svg":
        drawn = vl_convert.vegalite_to_svg(spec).encode()
    else:
        drawn = vl_convert.vegalite_to_html(spec, bundle=True).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn)
    except OSError as error:
        raise TrainError(f"cannot write {path}: {error.strerror}") from error


def check_name(path: Path) -> None:
    """Raise ConfigError for a file that `write` does not know."""
    if path.suffix not in {".png", ".svg", ".html"}:
        raise ConfigError(f"cannot draw {path}", "name a .png, .svg or .html file")


def _caption(bands: Sequence[Band], smooth: int) -> str:
    counts = sorted({len(band.runs) for band in bands})
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = "One run per curve" if counts == [1] else f"Mean of {many} runs per curve; shaded: its 95 % t-interval"
    return what + (f"; training metrics: moving means of {smooth} updates" if smooth > 1 else "")


def _panel(curves: Curves, bands: Sequence[Band], scale: Spec) -> Spec:
    first = bands[0]
    rows = [
        {"variant": band.variant, "x": x, "mean": each.mean, "low": each.low, "high": each.high, "runs": each.n}
        for band in bands
        for x, each in zip(band.x.tolist(), band.intervals, strict=True)
    ]
    share = first.metric.removeprefix("eval_") in _SHARES
    title = _title(first.metric) if first.start == curves.starts[0] else None
    below = _AXES[curves.axis] if first.metric == curves.metrics[-1] else None
    x = {"field": "x", "type": "quantitative", "title": below, "scale": scale, "axis": _THOUSANDS}
    y = {"type": "quantitative", "title": title, "scale": {"domain": [0, 1]} if share else {"zero": False}}
    variant = {"field": "variant", "type": "nominal", "title": None}
    places = range(len(curves.variants))
    colours = {"domain": [*curves.variants], "range": [_COLOURS[at % len(_COLOURS)] for at in places]}
    numbers = ({"field": name, "format": ".3~g"} for name in ("x", "mean", "low", "high", "runs"))
    line = {"x": x, "y": {**y, "field": "mean"}, "color": {**variant, "scale": colours}}
    if len(curves.variants) > len(_COLOURS):
        dashes = {"domain": [*curves.variants], "range": [[1, 0] if at < len(_COLOURS) else [4, 3] for at in places]}
        line["strokeDash"] = {**variant, "scale": dashes}
    band = {**line, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
    few = max(len(each.x) for each in bands) <= _DOTS
    layers: list[Spec] = [
        {"mark": {"type": "area", "opacity": 0.15, "clip": True}, "encoding": band},
        {"mark": {"type": "line", "strokeWidth": 2.2}, "encoding": line},
        {
            "mark": {"type": "point", "size": 24 if few else 0},
            "encoding": {**line, "tooltip": [{"field": "variant"}, *numbers]},
        },
    ]
    if len(bands) <= _SINGLE:
        layers.insert(1, _single(bands, {**line, "y": {**y, "field": "y"}, "detail": {"field": "run"}}))
    return {
        "title": f"Cold start: {first.start}" if first.start and first.metric == curves.metrics[0] else "",
        "width": 340,
        "height": 220,
        "data": {"values": rows},
        "layer": layers,
    }


def _single(bands: Sequence[Band], encoding: Spec) -> Spec:
    """Draw thin lines, one per run."""
    rows = [
        {"variant": band.variant, "run": number, "x": x, "y": y}
        for band in bands
        for number, (xs, ys) in enumerate(band.runs)
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True)
    ]
    return {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 0.7, "strokeOpacity": 0.35, "clip": True},
        "encoding": encoding,
    }


def _title(metric: str) -> str:
    name = metric.removeprefix("eval_")
    words = _TITLES.get(name, name.replace("_", " "))
    return f"{words}, held out" if name != metric else words


_THOUSANDS = {"format": "~s", "labelExpr": "datum.value ? datum.label : '0'"}
_CONFIG: Spec = {
    "font": "Helvetica Neue, Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "title": {"fontSize": 13, "fontWeight": 600, "color": _INK, "anchor": "start", "offset": 10},
    "line": {"strokeJoin": "round", "strokeCap": "round"},
    "point": {"filled": True, "opacity": 1},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": _LINE,
        "labelColor": _SOFT,
        "titleColor": _SOFT,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelPadding": 6,
        "titlePadding": 10,
        "tickCount": 5,
    },
    "axisX": {"grid": False, "domain": True, "domainColor": "#c9c6bf"},
    "legend": {
        "orient": "top",
        "direction": "horizontal",
        "columns": 5,
        "labelFontSize": 12,
        "labelColor": _INK,
        "symbolType": "stroke",
        "symbolStrokeWidth": 3,
        "symbolSize": 260,
        "symbolOpacity": 1,
        "columnPadding": 18,
        "labelLimit": 260,
    },
}
