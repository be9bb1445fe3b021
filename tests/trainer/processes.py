"""Several processes that train together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in so many processes that work together, on the CPU."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", processes)
    return subprocess.run(
        [sys.executable, "-m", *map(str, (*launcher, *arguments))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
