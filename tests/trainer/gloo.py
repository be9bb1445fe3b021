"""One of several processes without GPUs, where accelerate shards nothing: `stepsearch-data`, or a file of Python."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from stepsearch_data.cli import main


def _backend(*_: Any) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


PartialState._prepare_backend = _backend
torch.set_num_threads(1)
if Path(sys.argv[1]).suffix == ".py":
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    main()
