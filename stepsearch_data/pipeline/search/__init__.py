"""The seam to search engines: one Protocol, one file a family of adapters."""

from stepsearch_data.pipeline.search.engine import Found, SearchEngine

__all__ = ["Found", "SearchEngine"]
