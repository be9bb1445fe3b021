"""How sure a mean over few seeds is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from stepsearch_data.core.intervals import Interval

_CONFIDENCE = 0.95


def t_interval(values: Sequence[float]) -> Interval:
    """Compute Student's interval of the mean: mean ± t · s / √n with n − 1 degrees of freedom. Needs a value.

    Values that are all alike have an interval without width: n values say no more than that.
    """
    n, mean = len(values), fmean(values)
    if n == 1:
        return Interval(n, mean, None, None)
    half = t_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return Interval(n, mean, mean - half, mean + half)


def t_quantile(df: int) -> float:
    """Find the t for which P(|T| ≤ t) = 0.95, T being Student's with `df` ≥ 1 degrees of freedom."""
    low, high = 0.0, 13.0  # the largest is 12.7, of one degree of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _within(middle, df) >= _CONFIDENCE else (middle, high)
    return high


def _within(t: float, df: int) -> float:
    """Compute P(|T| ≤ t), a finite sum for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    odd = df % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for power in range(odd, df - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
