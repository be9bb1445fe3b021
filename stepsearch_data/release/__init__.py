"""Releases: a store as a dataset that others can load, check, and build on.

The way of `publish`: write.py (with lineage.py, dataset.py, shards.py, card.py and record.py), publish.py, hub.py.
The way of `pull`: pull.py, verify.py, hub.py.
"""
