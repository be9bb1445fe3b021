"""Imported last by the server that forks workers: what it has imported is no garbage, and its pages stay shared."""

import gc

gc.collect()
gc.freeze()
