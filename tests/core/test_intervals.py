"""Against numbers computed by hand."""

from __future__ import annotations

import pytest

from stepsearch_data.core.intervals import BANDS, Passes, share_interval


def test_wilsons_interval_of_a_share_is_the_one_computed_by_hand() -> None:
    # z² = 3.8415; 5 of 10: centre .5, half √(.25 · .38415 + .38415² / 4) / 1.38415 = .26341
    half = share_interval(5, 10)
    assert half.low == pytest.approx(0.5 - 0.26341, abs=1e-5)
    assert half.high == pytest.approx(0.5 + 0.26341, abs=1e-5)
    # all of 8: from 1 / (1 + z²/8) up
    assert share_interval(8, 8).low == pytest.approx(1 / (1 + 3.841459 / 8), abs=1e-5)
    assert share_interval(8, 8).high == pytest.approx(1.0)
    assert share_interval(0, 8).low == 0.0


def test_a_band_is_a_part_of_the_pass_rates() -> None:
    bands = {right: Passes(right, 10).band for right in range(11)}
    assert bands == {0: "unsolved", 1: "hard", **dict.fromkeys(range(2, 9), "medium"), 9: "easy", 10: "solved"}
    assert set(bands.values()) == set(BANDS)
    assert BANDS["hard"] == "below 0.2"
    assert (Passes(3, 8).rate, Passes(3, 8).interval) == (3 / 8, share_interval(3, 8))
