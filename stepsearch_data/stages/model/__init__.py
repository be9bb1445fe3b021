"""Decompositions and queries by a language model: the counterpart of `stages/rules`.

This package has no HTTP, caches or concurrency: its functions only await a `ChatModel`.
"""

from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.converse import Invalid, ModelSettings, converse
from stepsearch_data.stages.model.decompose import decompose, decompose_request
from stepsearch_data.stages.model.estimate import Estimate, estimate
from stepsearch_data.stages.model.judge import judge, judge_request
from stepsearch_data.stages.model.prompts import PROMPTS, Prompt, load_prompt
from stepsearch_data.stages.model.queries import queries_request, write_queries
from stepsearch_data.stages.model.structured import Unreadable, parse_json

__all__ = [
    "PROMPTS",
    "Estimate",
    "Invalid",
    "ModelConfig",
    "ModelSettings",
    "Prompt",
    "Unreadable",
    "converse",
    "decompose",
    "decompose_request",
    "estimate",
    "judge",
    "judge_request",
    "load_prompt",
    "parse_json",
    "queries_request",
    "write_queries",
]
