"""What runs in a worker."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

_COLLECT_AFTER = 50_000  # new objects; rows hold no circles, so looking for some often is wasted time


@lru_cache(maxsize=1)
def function_of(pickled: bytes) -> Callable[[Any], Any]:
    """Return the function, unpickled once: it may keep what it has opened."""
    return pickle.loads(pickled)  # type: ignore[no-any-return]  # noqa: S301 - the build pickled it


@lru_cache(maxsize=1)
def prepare() -> None:
    """Prepare this process, which is one of as many as there are cores: one thread, and few garbage collections."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    import pyarrow as pa

    pa.set_cpu_count(1)
    _collect_seldom()


def _collect_seldom() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 100)


@contextmanager
def few_collections() -> Iterator[None]:
    """Collect garbage seldom while the block runs: that takes a quarter of the time of work on rows."""
    before = gc.get_threshold()
    _collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
