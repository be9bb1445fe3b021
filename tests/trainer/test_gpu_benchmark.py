"""The benchmark for a GPU runs here too, with tiny sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: make test-train")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_section_runs_and_ours_is_right() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--cpu", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert list(found) == ["env", "kernel", "parity", "rollouts", "update", "resume", "lora", "big", "vllm"]
    assert found["env"]["machine"]["device"] == "CPU"
    assert max(found["kernel"]["ours, float32"][of] for of in ("logp_error", "gradient_error")) < 1e-5
    assert found["parity"]["sampler and trainer, float32"]["largest"] < 1e-4
    assert [each["metrics_apart"] for each in found["resume"].values()] == [0, 0]
    assert found["lora"]["bfloat16 base"]["base_untouched"] == "True"
    assert found["big"]["3B"]["mfu"] > 0  # perhaps above 1: two timings, and a busy machine


def test_without_a_gpu_it_says_so() -> None:
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    command = [sys.executable, "-m", "benchmarks.gpu"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode != 0
    assert "there is no GPU here; --cpu" in ended.stderr
