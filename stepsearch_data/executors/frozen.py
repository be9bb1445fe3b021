"""Imported last by the server that forks workers: what it has imported is no garbage, and its pages stay shared."""

import gc
from contextlib import suppress

import pyarrow as pa

with suppress(Exception):  # an error here would end the server: a worker that meets it tells of it
    pa.array([])  # the first such call imports pandas where there is one, which takes a sixth of a second
gc.collect()
gc.freeze()
