"""The interface to search engines: one Protocol, and one file per family of adapters."""

from stepsearch_data.search.engine import Answer, Found, Index, LocalEngine, SearchEngine
from stepsearch_data.search.kinds import Engine, Kind, Service

__all__ = ["Answer", "Engine", "Found", "Index", "Kind", "LocalEngine", "SearchEngine", "Service"]
