"""`offline`: decompositions and queries by deterministic rules, with no model at all."""

from stepsearch_data.stages.rules.hops import decompose
from stepsearch_data.stages.rules.keywords import STOP_WORDS, given_queries, keywords, write_queries
from stepsearch_data.stages.rules.leaks import forbidden, leaked

__all__ = ["STOP_WORDS", "decompose", "forbidden", "given_queries", "keywords", "leaked", "write_queries"]
