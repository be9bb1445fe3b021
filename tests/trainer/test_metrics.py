"""Metrics of an update, by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from stepsearch_data.trainer.metrics import explained_variance

T, F = True, False


def test_explained_variance_is_1_for_the_returns_and_0_for_a_constant() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 50.0]]), torch.tensor([[T, T, T, F]])
    assert explained_variance(returns, returns, mask).item() == pytest.approx(1.0)
    assert explained_variance(torch.full_like(returns, 7.0), returns, mask).item() == pytest.approx(0.0)
    assert explained_variance(returns, torch.ones_like(returns), mask).item() == 0.0
