"""The cache of the sampler holds what transformers' own would hold."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from transformers.cache_utils import DynamicLayer

from stepsearch_data.trainer.kv_cache import GrowingLayer


def test_it_holds_what_was_written_and_kept() -> None:
    """Through turns that need more room than there is, keys and values of other widths, and dropped rows."""
    torch.manual_seed(0)
    ours, plain, rows = GrowingLayer(), DynamicLayer(), 5
    for turn in range(4):
        for places in (7, *[1] * 60):
            new = torch.randn(rows, 2, places, 3), torch.randn(rows, 2, places, 4)
            for mine, theirs in zip(ours.update(*new), plain.update(*new), strict=True):
                assert torch.equal(mine, theirs)
        kept, length = torch.randperm(rows)[: rows - turn % 2], ours.get_seq_length()
        picked = torch.stack([torch.randperm(length)[: length // 2] for _ in kept])
        ours.keep(kept, picked)
        plain.keys, plain.values = (
            torch.stack([states[row][:, places] for row, places in zip(kept.tolist(), picked, strict=True)])
            for states in (plain.keys, plain.values)
        )
        assert torch.equal(ours.keys, plain.keys)
        assert torch.equal(ours.values, plain.values)
        rows = len(kept)


def test_a_layer_that_nothing_was_written_to_has_nothing_to_keep() -> None:
    """Some architectures share keys and values between layers."""
    layer = GrowingLayer()
    layer.keep(torch.tensor([0]), torch.zeros((1, 0), dtype=torch.long))
    assert layer.get_seq_length() == 0
