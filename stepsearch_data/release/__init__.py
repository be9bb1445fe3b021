"""Releases: a store as a dataset that others can load, check, and build on."""

from stepsearch_data.release.layout import Release, ReleaseSettings, write_release

__all__ = ["Release", "ReleaseSettings", "write_release"]
