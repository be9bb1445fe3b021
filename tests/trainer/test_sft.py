"""The cold start's learning rate."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: make test-train")

from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer import sft
from stepsearch_data.trainer.data import load_examples
from stepsearch_data.trainer.recipe import SFT


def test_the_learning_rate_rises_and_falls_to_a_tenth(
    policy: Any, tokenizer: Any, store: Path, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def note(_: Any, args: Any, state: Any, control: Any, logs: Any = None, **__: Any) -> None:
        rates.extend([logs["learning_rate"]] if "learning_rate" in logs else [])

    monkeypatch.setattr(sft._LossLogger, "on_log", note)
    config = SFT(max_steps=40, batch_size=2, micro_batch_size=2, learning_rate=1e-3, warmup_ratio=0.25)
    examples = list(load_examples(Store.open(store), "train"))
    sft.cold_start(policy, tokenizer, examples, template, tmp_path, config, say=print, use_cpu=True, logging_steps=1)
    assert len(rates) == 40
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-4, rel=0.4)
    falls = [before - after for before, after in pairwise(rates[10:])]
    assert falls == pytest.approx([9e-4 / 30] * len(falls))  # a line
