"""`stepsearch-data` in one of several processes without GPUs: accelerate would shard nothing there."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from stepsearch_data.cli import main


def _backend(*_: Any) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


PartialState._prepare_backend = _backend
torch.set_num_threads(1)
main()
