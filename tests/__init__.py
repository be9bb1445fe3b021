"""Tests, which mirror the package. This file keeps a package `tests` of another distribution from being imported."""
