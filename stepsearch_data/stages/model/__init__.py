"""Decompositions and queries by a language model: the counterpart of `stages/rules`.

This package has no HTTP, caches or concurrency: its functions only await a `ChatModel`.
"""

from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.decompose import decompose
from stepsearch_data.stages.model.estimate import Estimate, estimate
from stepsearch_data.stages.model.judge import judge
from stepsearch_data.stages.model.prompts import PROMPTS, Prompt, load_prompt
from stepsearch_data.stages.model.queries import write_queries

__all__ = [
    "PROMPTS",
    "Estimate",
    "ModelConfig",
    "Prompt",
    "decompose",
    "estimate",
    "judge",
    "load_prompt",
    "write_queries",
]
