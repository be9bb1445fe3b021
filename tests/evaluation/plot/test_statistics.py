"""Against printed tables of Student's t, and numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from stepsearch_data.core.intervals import Interval
from stepsearch_data.evaluation.plot.statistics import t_interval, t_quantile


@pytest.mark.parametrize(
    ("df", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (7, 2.365), (10, 2.228), (29, 2.045), (120, 1.980)]
)
def test_t_quantiles_are_those_of_printed_tables(df: int, t: float) -> None:
    assert t_quantile(df) == pytest.approx(t, abs=5e-4)


def test_the_interval_of_three_values_is_the_one_computed_by_hand() -> None:
    # mean 2, s = 1, so half of it is 4.3027 / √3
    found = t_interval([1.0, 2.0, 3.0])
    assert (found.n, found.mean) == (3, 2.0)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)


def test_one_value_has_no_interval_and_equal_values_one_without_width() -> None:
    assert t_interval([0.5]) == Interval(1, 0.5, None, None)
    assert t_interval([0.5, 0.5, 0.5]) == Interval(3, 0.5, 0.5, 0.5)
