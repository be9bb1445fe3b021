"""Several processes that train together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(processes: int, *arguments: object, packages: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command in so many processes that work together, on the CPU. They find packages in this folder too."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", processes)
    return _run(*launcher, *arguments, packages=packages, ACCELERATE_USE_CPU="true")


def sharded(recipe: str | Path, *arguments: object, packages: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`stepsearch-data`, or a file of Python, in two processes that a recipe of accelerate shards, on the CPU.

    They find packages in this folder too.
    """
    launcher = ("accelerate.commands.launch", "--config_file", ROOT / "recipes" / "accelerate" / recipe)
    options = ("--num_processes", 2, "--mixed_precision", "no", "--main_process_port", 0)
    program = Path(__file__).with_name("gloo.py")
    environment = {"ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}
    return _run(*launcher, *options, program, *arguments, packages=packages, **environment)


def _run(*command: object, packages: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages), os.environ.get("PYTHONPATH", "")]),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
