"""The numbers that learning curves are quoted by; every one was computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import TrainError
from stepsearch_data.core.intervals import share_interval
from stepsearch_data.evaluation.plot.curves import Curves
from stepsearch_data.evaluation.plot.runs import load_runs
from tests.evaluation.plot.runs import evaluated, write_run

T1, T2 = 12.706205, 4.302653  # Student's t for 1 and 2 degrees of freedom


def curves(root: Path, *metrics: str, **options: Any) -> Curves:
    return Curves(load_runs([root])[0], metrics or ["eval_em"], **options)


def add(root: Path, variant: str, seed: int, lines: list[dict[str, Any]], start: str = "weak", **more: int) -> Path:
    about = {"variant": variant, "start": start, "seed": seed, **more}
    return write_run(root / f"{start}-{variant}-{seed}-{len(more)}", lines, about)


def test_a_value_at_a_budget_is_the_mean_of_the_runs_there_with_its_interval(tmp_path: Path) -> None:
    for seed, em in enumerate((0.2, 0.4, 0.9)):
        add(tmp_path, "steppo", seed, evaluated(u0=0.0, u20=em))
    (value,) = curves(tmp_path).compare([20]).values
    # mean .5, s² = (.09 + .01 + .16) / 2 = .13
    half = T2 * math.sqrt(0.13) / math.sqrt(3)
    assert (value.metric, value.start, value.variant, value.at, value.value.n) == ("eval_em", "weak", "steppo", 20, 3)
    assert value.value.mean == pytest.approx(0.5)
    assert value.value.low == pytest.approx(0.5 - half)
    assert value.value.high == pytest.approx(0.5 + half)


def test_between_two_measurements_a_value_lies_on_the_line_that_joins_them(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, evaluated(u0=0.1, u20=0.5, u40=0.9))
    found = curves(tmp_path).compare([5, 30]).values
    assert [value.value.mean for value in found] == pytest.approx([0.2, 0.7])


def test_a_run_counts_only_at_budgets_that_it_was_measured_up_to(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, evaluated(u0=0.0, u20=0.4, u40=0.8))
    add(tmp_path, "steppo", 1, evaluated(u0=0.0, u20=0.6))
    found = curves(tmp_path).compare([20, 40, 60]).values
    assert [(value.at, value.value.n) for value in found] == [(20, 2), (40, 1)]
    assert [value.value.mean for value in found] == pytest.approx([0.5, 0.8])


def test_differences_are_of_runs_with_the_same_start_and_seeds(tmp_path: Path) -> None:
    add(tmp_path, "outcome", 0, evaluated(u20=0.1), sft_seed=0)
    add(tmp_path, "outcome", 1, evaluated(u20=0.5), sft_seed=0)
    add(tmp_path, "outcome", 0, evaluated(u20=1.0), "strong", sft_seed=0)
    add(tmp_path, "steppo", 0, evaluated(u20=0.3), sft_seed=0)
    add(tmp_path, "steppo", 1, evaluated(u20=0.9), sft_seed=0)
    write_run(tmp_path / "lone", evaluated(u20=0.7), {"variant": "steppo", "start": "weak", "seed": 0, "sft_seed": 1})
    found = curves(tmp_path)
    (difference,) = found.compare([20], against="outcome").differences
    # .2 and .4: mean .3, s = .2 / √2, so the half is t · .1; unpaired it would hold 1.3 and more
    assert (difference.start, difference.variant, difference.against) == ("weak", "steppo", "outcome")
    assert difference.value.n == 2
    assert difference.value.mean == pytest.approx(0.3)
    assert difference.value.low == pytest.approx(0.3 - T1 * 0.1, abs=1e-5)
    assert difference.value.high == pytest.approx(0.3 + T1 * 0.1, abs=1e-5)
    assert found.notes == ["1 of 3 runs of steppo have no partner in outcome: see run.json"]


def test_solved_runs_are_counted_at_each_budget(tmp_path: Path) -> None:
    for seed, em in enumerate((0.89, 0.9, 1.0, 0.2)):
        add(tmp_path, "steppo", seed, evaluated(u0=0.0, u20=em))
    values = curves(tmp_path).compare([0, 20]).values
    assert [value.solved for value in values] == [share_interval(0, 4), share_interval(2, 4)]
    (strict,) = curves(tmp_path).compare([20], solved=0.95).values
    assert strict.solved == share_interval(1, 4)


def test_other_metrics_are_not_solved(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, [{"update": 1, "reward": 1.0}])
    assert curves(tmp_path, "reward").compare([1]).values[0].solved is None


def test_budgets_are_quarters_of_the_way_that_all_went_and_a_short_run_is_named(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, evaluated(u0=0.0, u80=1.0))
    short = add(tmp_path, "steppo", 1, evaluated(u0=0.0, u40=1.0))
    found = curves(tmp_path)
    assert found.budgets() == (10, 20, 30, 40)
    assert found.notes == [
        f"{short} ends at 40 updates, others go on to 80: all are compared up to there, unless --at says otherwise"
    ]


def test_all_metrics_have_a_value_at_every_budget(tmp_path: Path) -> None:
    lines = [{"update": n, "reward": 1.0, **({"eval_em": 0.5} if n % 20 == 0 else {})} for n in range(40)]
    add(tmp_path, "steppo", 0, lines)
    for metrics in (("eval_em", "reward"), ("reward", "eval_em")):
        found = curves(tmp_path, *metrics)
        assert found.budgets() == (5, 10, 15, 20)
        assert len(found.compare(found.budgets()).values) == 8


def test_runs_without_the_metric_are_named_and_a_metric_that_none_has_is_an_error(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, evaluated(u0=0.0, u20=1.0))
    lacking = add(tmp_path, "steppo", 1, [{"update": 1, "reward": 0.5}])
    found = curves(tmp_path)
    assert found.notes == [f"{lacking} has no eval_em and is left out of it"]
    assert found.compare([20]).values[0].value.n == 1
    with pytest.raises(TrainError, match="no run has the metric eval_rm") as error:
        curves(tmp_path, "eval_rm")
    assert error.value.hint == "they have eval_em, reward, update"


def test_budgets_that_no_run_has_come_to_are_an_error(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, evaluated(u0=0.0, u120=1.0))
    with pytest.raises(TrainError, match="no run was measured at these updates") as error:
        curves(tmp_path).compare([500])
    assert error.value.hint == "they go up to 120"


def test_a_band_reaches_as_far_as_all_its_runs_do(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, evaluated(u0=0.0, u20=0.4, u40=0.8))
    add(tmp_path, "steppo", 1, evaluated(u10=0.2, u30=0.8))
    (band,) = curves(tmp_path).bands()
    assert band.x.tolist() == [10, 20, 30]
    # seed 0 at 10, 20, 30: .2, .4, .6; seed 1: .2, .5, .8
    assert [each.mean for each in band.intervals] == pytest.approx([0.2, 0.45, 0.7])
    assert band.intervals[2].high == pytest.approx(0.7 + T1 * 0.1, abs=1e-5)


def test_runs_that_never_overlap_have_lines_and_no_band(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, evaluated(u0=0.0, u20=0.4))
    add(tmp_path, "steppo", 1, evaluated(u30=0.2, u40=0.8))
    (band,) = curves(tmp_path).bands()
    assert band.intervals == []
    assert len(band.runs) == 2


def test_smoothing_takes_the_last_measurements_and_leaves_what_is_held_out(tmp_path: Path) -> None:
    lines = [{"update": n, "reward": reward, "eval_em": reward} for n, reward in enumerate((1.0, 2.0, 6.0, 1.0))]
    add(tmp_path, "steppo", 0, lines)
    reward, held_out = curves(tmp_path, "reward", "eval_em").bands(smooth=2)
    assert reward.runs[0][1].tolist() == [1.0, 1.5, 4.0, 3.5]
    assert held_out.runs[0][1].tolist() == [1.0, 2.0, 6.0, 1.0]


def test_long_curves_are_thinned_to_measurements_with_both_ends(tmp_path: Path) -> None:
    add(tmp_path, "steppo", 0, [{"update": n, "reward": float(n)} for n in range(1001)])
    (band,) = curves(tmp_path, "reward").bands()
    assert len(band.x) == 200
    assert (band.x[0], band.x[-1]) == (0, 1000)
    assert [each.mean for each in band.intervals] == band.x.tolist()
