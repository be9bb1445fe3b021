"""Decompositions, queries and checks by a language model: the counterpart of `stages/rules`.

This package has no HTTP, caches or concurrency: its functions only await a `ChatModel`.
"""

from stepsearch_data.stages.model.bounds import AROUND
from stepsearch_data.stages.model.compose import compose
from stepsearch_data.stages.model.config import ModelConfig
from stepsearch_data.stages.model.decompose import decompose
from stepsearch_data.stages.model.estimate import Estimate, asked_of, estimate
from stepsearch_data.stages.model.judge import judge
from stepsearch_data.stages.model.prompts import PROMPTS, Prompt, load_prompt
from stepsearch_data.stages.model.prove import Case, prove
from stepsearch_data.stages.model.queries import write_queries
from stepsearch_data.stages.model.replies import Composition

__all__ = [
    "AROUND",
    "PROMPTS",
    "Case",
    "Composition",
    "Estimate",
    "ModelConfig",
    "Prompt",
    "asked_of",
    "compose",
    "decompose",
    "estimate",
    "judge",
    "load_prompt",
    "prove",
    "write_queries",
]
