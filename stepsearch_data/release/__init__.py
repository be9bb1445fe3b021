"""Releases: a store as a dataset that others can load, check, and build on.

`publish` goes through write.py (lineage.py, dataset.py, card.py, record.py), then publish.py and hub.py; `pull` through
pull.py, verify.py and hub.py.
"""
