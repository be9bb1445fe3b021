"""From a record of a source to a `Question` and its paragraphs: one file a format."""

from collections.abc import Callable

from stepsearch_data.pipeline.sources import Record
from stepsearch_data.stages.formats import hotpotqa, jsonl, musique
from stepsearch_data.stages.formats.common import Loaded

PARSERS: dict[str, Callable[[Record], Loaded]] = {
    "musique": musique.parse,
    "hotpotqa": hotpotqa.parse_hotpotqa,
    "2wiki": hotpotqa.parse_two_wiki,
    "jsonl": jsonl.parse,
}

__all__ = ["PARSERS", "Loaded"]
