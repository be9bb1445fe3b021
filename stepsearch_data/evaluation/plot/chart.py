"""Learning curves as a picture: a row per metric, panels of at most four curves, each with its name beside its end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.evaluation.plot.curves import Band
from stepsearch_data.evaluation.plot.runs import Axis

Spec = dict[str, Any]

_CURVES = 4  # of a panel at most: more are spread over several, the baseline in each
# On white 3 to 1 or more; the colour-blind see any two apart (ΔE of 22 or more, by Machado's simulation).
_COLOURS = ("#0072B2", "#C24F00", "#3B4046", "#CC79A7")
_WIDTH, _HEIGHT = 330, 220
_NAME = 15  # pixels of the height that a name takes
_PPI = 216  # of a PNG: three times the 72 that a picture is laid out in
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


def draw(bands: Sequence[Band], axis: Axis, smooth: int = 1, against: str | None = None) -> Spec:
    """Make the Vega-Lite specification of all bands, with its data.

    Where more variants are compared than a panel holds, the baseline `against` (the first by default) is in each.
    """
    metrics, starts, variants = (tuple(dict.fromkeys(parts)) for parts in zip(*map(_key, bands), strict=True))
    groups = [*_groups(variants, against)]
    cells = [(start, group) for start in starts for group in groups]
    columns = len(groups) if len(starts) > 1 and len(groups) > 1 else len(cells)
    ends = [float(x) for band in bands for places in (band.x, *(x for x, _ in band.runs)) for x in places]
    lines = [(metric, cells[at : at + columns]) for metric in metrics for at in range(0, len(cells), columns)]
    rows = []
    for number, (metric, line) in enumerate(lines):
        domain = _domain([band for band in bands if band.metric == metric])
        drawn: list[Spec] = []
        for start, group in line:
            panel = [band for name in group for band in bands if _key(band) == (metric, start, name)]
            headed = start and (number == 0 or columns < len(cells))
            y = {"scale": {"domain": domain, "nice": False}, "title": None if drawn else _title(metric)}
            x = {"scale": {"domain": [min(ends), max(ends)], "nice": False}, "axis": _THOUSANDS}
            x["title"] = _AXES[axis] if number == len(lines) - 1 else None
            if panel:
                drawn.append({"title": f"Cold start: {start}" if headed else "", **_panel(panel, x, y)})
        rows.append({"hconcat": drawn, "spacing": 24, "resolve": _OWN_COLOURS})
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {"text": _caption(bands, smooth), "fontSize": 12, "fontWeight": "normal", "color": _SOFT},
        "vconcat": rows,
        "resolve": _OWN_COLOURS,
        "spacing": 26,
        "config": _CONFIG,
        # The fonts of who looks at an SVG may be wider than those that it was laid out with.
        "padding": {"left": 18, "top": 18, "bottom": 18, "right": 18 + max(map(len, variants))},
        "background": "white",
    }


def write(spec: Spec, path: Path) -> None:
    """Write a PNG, SVG or HTML file, as the name ends; the page needs no network. Raises TrainError."""
    check_name(path)
    import vl_convert

    if path.suffix == ".png":
        drawn = vl_convert.vegalite_to_png(spec, ppi=_PPI)
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
    """Raise ConfigError for a file that `write` does not know, or where the extra `charts` is not installed."""
    if path.suffix not in {".png", ".svg", ".html"}:
        raise ConfigError(f"cannot draw {path}", "name a .png, .svg or .html file")
    if find_spec("vl_convert") is None:
        raise ConfigError("charts need the package vl-convert-python", "pip install 'stepsearch-data[charts]'")


def _key(band: Band) -> tuple[str, str, str]:
    return band.metric, band.start, band.variant


def _groups(variants: Sequence[str], against: str | None) -> Iterator[list[str]]:
    """Yield the variants of each panel; all have about as many, the baseline first where there are several."""
    if len(variants) <= _CURVES:
        yield [*variants]
        return
    baseline = against or variants[0]
    others = [name for name in variants if name != baseline]
    size = math.ceil(len(others) / math.ceil(len(others) / (_CURVES - 1)))
    for at in range(0, len(others), size):
        yield [baseline, *others[at : at + size]]


def _domain(bands: Sequence[Band]) -> tuple[float, float]:
    """Return the ends of an axis: 0 and 1 of a share; of other metrics round numbers, and 0 between them."""
    if bands[0].metric.removeprefix("eval_") in _SHARES:
        return 0.0, 1.0
    values = [interval.mean for band in bands for interval in band.intervals]
    values += [float(y) for band in bands for _, ys in band.runs for y in ys]
    low, high = min(0.0, *values), max(0.0, *values)
    fifth = (high - low) / 5 or 1.0
    unit = 10 ** math.floor(math.log10(fifth))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= fifth)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _caption(bands: Sequence[Band], smooth: int) -> str:
    counts = sorted({len(band.runs) or band.intervals[-1].n for band in bands})
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = "One run per curve" if counts == [1] else f"Mean of {many} runs per curve; shaded: its 95 % t-interval"
    smoothed = smooth > 1 and any(not band.metric.startswith("eval_") for band in bands)
    return what + (f"; training metrics: moving means of {smooth} updates" if smoothed else "")


def _panel(bands: Sequence[Band], x: Spec, y: Spec) -> Spec:
    rows = [
        {"variant": band.variant, "x": place, "mean": each.mean, "low": each.low, "high": each.high, "runs": each.n}
        for band in bands
        for place, each in zip(band.x.tolist(), band.intervals, strict=True)
    ]
    colours = {"domain": [band.variant for band in bands], "range": _COLOURS[: len(bands)]}
    colour = {"field": "variant", "type": "nominal", "scale": colours, "legend": None}
    numbers = ({"field": name, "format": ".3~g"} for name in ("x", "mean", "low", "high", "runs"))

    def at(across: str, up: str) -> Spec:
        place = {"x": {"field": across, **x}, "y": {"field": up, **y}}
        return {name: {"type": "quantitative", **channel} for name, channel in place.items()} | {"color": colour}

    few = max(len(each.x) for each in bands) <= _DOTS
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.15, "clip": True},
            "encoding": {**at("x", "low"), "y2": {"field": "high"}},
        },
        {"mark": {"type": "line", "strokeWidth": 2.2}, "encoding": at("x", "mean")},
        {
            "mark": {"type": "point", "size": 24 if few else 0},
            "encoding": {**at("x", "mean"), "tooltip": [{"field": "variant"}, *numbers]},
        },
        *_names(bands, x["scale"]["domain"][1], y["scale"]["domain"], at),
    ]
    if len(bands) <= _SINGLE:
        layers.insert(1, _single(bands, {**at("x", "y"), "detail": {"field": "run"}}))
    return {"width": _WIDTH, "height": _HEIGHT, "data": {"values": rows}, "layer": layers}


def _names(bands: Sequence[Band], right: float, domain: tuple[float, float], at: Any) -> Iterator[Spec]:
    """Write the variants' names at the right, each joined with the end of its curve."""
    low, high = domain
    ends = [_end(band) for band in bands]
    places = apart([y for _, y in ends], _NAME * (high - low) / _HEIGHT)
    rows = [
        {"variant": band.variant, "x": x, "right": right, "end": y, "place": place}
        for band, (x, y), place in zip(bands, ends, places, strict=True)
    ]
    joined = {**at("x", "end"), "x2": {"field": "right"}, "y2": {"field": "place"}}
    yield {"data": {"values": rows}, "mark": {"type": "rule", "x2Offset": 9}, "encoding": joined}
    text = {"type": "text", "align": "left", "dx": 13, "fontSize": 12, "color": _INK}
    placed = {name: channel for name, channel in at("right", "place").items() if name != "color"}
    yield {"data": {"values": rows}, "mark": text, "encoding": {**placed, "text": {"field": "variant"}}}


def _end(band: Band) -> tuple[float, float]:
    """Return the end of a band, or of its longest run where its runs have no stretch in common."""
    if band.intervals:
        return float(band.x[-1]), band.intervals[-1].mean
    return max((float(x[-1]), float(y[-1])) for x, y in band.runs)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Move places as little as can be, by least squares, so that none is nearer to another than `gap`.

    Less the gaps below it, each place must not be under the one before it: those that are share their mean.
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    pools: list[list[float]] = []
    for rank, at in enumerate(order):
        pools.append([places[at] - rank * gap])
        while len(pools) > 1 and math.fsum(pools[-2]) * len(pools[-1]) >= math.fsum(pools[-1]) * len(pools[-2]):
            last = pools.pop()
            pools[-1] += last
    shared = [math.fsum(pool) / len(pool) for pool in pools for _ in pool]
    moved = {at: shared[rank] + rank * gap for rank, at in enumerate(order)}
    return [moved[at] for at in range(len(places))]


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


_OWN_COLOURS = {"scale": {"color": "independent"}}
_THOUSANDS = {"format": "~s", "labelExpr": "datum.value ? datum.label : '0'"}
_CONFIG: Spec = {
    "font": "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif",
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
    "axisY": {"minExtent": 32},  # so that panels stand in columns
    "axisX": {"grid": False, "domain": True, "domainColor": "#c9c6bf"},
}
