"""Where questions come from: files of any size, and datasets on the Hugging Face Hub."""

from stepsearch_data.sources.source import ASKED, KINDS, Record, Source, parse_source, parse_sources

__all__ = ["ASKED", "KINDS", "Record", "Source", "parse_source", "parse_sources"]
