"""What several runs and seeds show: values at fixed budgets, paired differences, and curves with bands.

Intervals are Student's at 95 %, over runs. They hold for the checkpoints that the runs began with: where runs share a
cold start, its randomness is not in them. Nothing is corrected for how many differences are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from operator import itemgetter

import numpy as np

from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.core.intervals import Interval, share_interval
from stepsearch_data.evaluation.plot.runs import Array, Axis, Points, Run
from stepsearch_data.evaluation.plot.statistics import t_interval
from stepsearch_data.trainer.run_folder import Pair

SOLVED_BY = "eval_em"
_GRID = 200  # points of a curve at most
_SHORT = 0.9  # a run that ends before this share of the longest one's way is worth a note


@dataclass(frozen=True)
class Value:
    """A metric of a variant at a budget, over its runs that were measured up to there.

    `solved` is the share of them whose held-out exact match is high enough, with Wilson's interval; of other
    metrics it is None.
    """

    metric: str
    start: str
    variant: str
    at: float
    value: Interval
    solved: Interval | None


@dataclass(frozen=True)
class Difference:
    """Variant minus baseline at a budget: the mean of the differences of runs with the same start and seed."""

    metric: str
    start: str
    variant: str
    against: str
    at: float
    value: Interval


@dataclass(frozen=True)
class Comparison:
    """Values and differences, in the order of metrics, starts, budgets and variants."""

    axis: Axis
    budgets: tuple[float, ...]
    values: list[Value]
    differences: list[Difference]


@dataclass(frozen=True)
class Band:
    """A variant's mean and interval where all its runs were measured, and the runs' own lines (`smooth` is in both)."""

    metric: str
    start: str
    variant: str
    x: Array
    intervals: list[Interval]
    runs: list[Points]


class Curves:
    """Metrics of runs along an axis.

    Between two measurements a value lies on the line that joins them; before the first and after the last there is
    none. Raises TrainError for a metric that no run has; `notes` says which runs lack one.
    """

    def __init__(self, runs: Sequence[Run], metrics: Sequence[str], axis: Axis = "updates") -> None:
        self.runs, self.metrics, self.axis = runs, tuple(dict.fromkeys(metrics)), axis
        self.starts = tuple(dict.fromkeys(run.info.start for run in runs))
        self.variants = tuple(dict.fromkeys(run.info.variant for run in runs))
        self.notes: list[str] = []
        self._points = {metric: self._measured(metric) for metric in self.metrics}

    def _measured(self, metric: str) -> dict[Run, Points]:
        found = {run: run.points(metric, self.axis) for run in self.runs}
        measured = {run: points for run, points in found.items() if len(points[0])}
        if not measured:
            known = sorted({name for run in self.runs for line in run.lines for name in line})
            raise TrainError(f"no run has the metric {metric}", f"they have {', '.join(known)}")
        self.notes += [f"{run.path} has no {metric} and is left out of it" for run in found if run not in measured]
        return measured

    def budgets(self) -> tuple[float, ...]:
        """Return quarters of the range that all runs cover; a note names a run that is short."""
        ends = [(float(x[-1]), run) for points in self._points.values() for run, (x, _) in points.items()]
        end, shortest = min(ends, key=itemgetter(0))
        longest, _ = max(ends, key=itemgetter(0))
        if end < _SHORT * longest:
            self.notes.append(
                f"{shortest.path} ends at {end:,.0f} {self.axis}, others go on to {longest:,.0f}: "
                "all are compared up to there, unless --at says otherwise"
            )
        return tuple(dict.fromkeys(end * quarter / 4 for quarter in (1, 2, 3, 4)))

    def compare(self, budgets: Sequence[float], against: str | None = None, solved: float = 0.9) -> Comparison:
        """Compare values and differences at these budgets.

        The baseline is the first variant if `against` names no other.
        Raises ConfigError for a baseline that no run is of, TrainError where no run has come to any of the budgets.
        """
        baseline = against or self.variants[0]
        if baseline not in self.variants:
            raise ConfigError(f"no run is of the variant {baseline}", f"there are {', '.join(self.variants)}")
        self._note_unpaired(baseline)
        values: list[Value] = []
        differences: list[Difference] = []
        for metric, start, at in product(self.metrics, self.starts, budgets):
            found = {variant: self._at(metric, start, variant, at) for variant in self.variants}
            for name, ys in found.items():
                if ys:
                    reached = [*ys.values()]
                    hits = sum(value >= solved for value in reached)
                    share = share_interval(hits, len(reached)) if metric == SOLVED_BY else None
                    values.append(Value(metric, start, name, at, t_interval(reached), share))
                pairs = [ys[pair] - found[baseline][pair] for pair in ys if pair in found[baseline]]
                if pairs and name != baseline:
                    differences.append(Difference(metric, start, name, baseline, at, t_interval(pairs)))
        if not values:
            reach = max(x[-1] for points in self._points.values() for x, _ in points.values())
            raise TrainError(f"no run was measured at these {self.axis}", f"they go up to {reach:,.0f}")
        return Comparison(self.axis, tuple(budgets), values, differences)

    def _note_unpaired(self, baseline: str) -> None:
        partners = {run.info.pair for run in self.runs if run.info.variant == baseline}
        for variant in self.variants:
            pairs = [run.info.pair for run in self.runs if run.info.variant == variant]
            alone = sum(pair not in partners for pair in pairs)
            if alone:
                self.notes.append(
                    f"{alone} of {len(pairs)} runs of {variant} have no partner in {baseline}: see run.json"
                )

    def _at(self, metric: str, start: str, variant: str, at: float) -> dict[Pair, float]:
        """Return the values of a variant's runs that were measured up to a budget."""
        points = self._group(metric, start, variant)
        return {run.info.pair: float(np.interp(at, x, y)) for run, (x, y) in points.items() if x[0] <= at <= x[-1]}

    def _group(self, metric: str, start: str, variant: str) -> dict[Run, Points]:
        wanted = (start, variant)
        return {run: p for run, p in self._points[metric].items() if (run.info.start, run.info.variant) == wanted}

    def smoothing(self) -> int:
        """Return over how many measurements training metrics are averaged: a twentieth of the longest run's."""
        return max(1, max(len(x) for points in self._points.values() for x, _ in points.values()) // 20)

    def bands(self, smooth: int = 1) -> Iterator[Band]:
        """Yield a band for each metric, start and variant.

        Each point is the mean of a run's last `smooth` measurements; what is held out is never smoothed.
        """
        for metric, start, variant in product(self.metrics, self.starts, self.variants):
            window = 1 if metric.startswith("eval_") else smooth
            runs = [(x, _smoothed(y, window)) for x, y in self._group(metric, start, variant).values()]
            if runs:
                grid = _common(runs)
                columns = np.array([np.interp(grid, x, y) for x, y in runs]).T
                yield Band(metric, start, variant, grid, [t_interval(column) for column in columns.tolist()], runs)


def _smoothed(values: Array, window: int) -> Array:
    """Average each value and the ones before it, as many as there are."""
    return np.array([values[max(0, end - window) : end].mean() for end in range(1, len(values) + 1)])


def _common(runs: Sequence[Points]) -> Array:
    """Return the places where some run was measured, within the first and last measurement of all."""
    places = np.unique(np.concatenate([x for x, _ in runs]))
    first, last = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    places = places[(places >= first) & (places <= last)]
    thinned: Array = places[np.linspace(0, len(places) - 1, min(_GRID, len(places))).round().astype(int)]
    return thinned
