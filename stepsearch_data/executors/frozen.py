"""Imported last by the server that forks workers: what it has imported is no garbage, and its pages stay shared."""

import gc

import pyarrow as pa

pa.array([])  # the first such call imports pandas where there is one, which would take each worker a sixth of a second
gc.collect()
gc.freeze()
