"""StepSearch's rewards and the official answer metrics: pure functions that need only numpy."""

from stepsearch_data.rewards.answers import (
    Metric,
    exact_match,
    hotpotqa_answer,
    hotpotqa_support,
    joint,
    musique_answer,
    musique_support,
    token_f1,
    wiki2_answer,
    wiki2_evidence,
    wiki2_support,
)
from stepsearch_data.rewards.conversation import read_conversation
from stepsearch_data.rewards.positions import round_positions, token_positions, token_rewards
from stepsearch_data.rewards.presets import (
    ABLATIONS,
    PAPER,
    PRESETS,
    REFERENCE,
    Preset,
    RewardConfig,
    step_weight,
    without,
)
from stepsearch_data.rewards.rollout import Format, ParsedDocument, ParsedRound, Rollout, Span, parse, transcript
from stepsearch_data.rewards.scoring import Scores, read, score_rollout
from stepsearch_data.rewards.steps import (
    Gains,
    GoldMatcher,
    information_gain,
    redundancy_penalty,
    search_key_reward,
)

__all__ = [
    "ABLATIONS",
    "PAPER",
    "PRESETS",
    "REFERENCE",
    "Format",
    "Gains",
    "GoldMatcher",
    "Metric",
    "ParsedDocument",
    "ParsedRound",
    "Preset",
    "RewardConfig",
    "Rollout",
    "Scores",
    "Span",
    "exact_match",
    "hotpotqa_answer",
    "hotpotqa_support",
    "information_gain",
    "joint",
    "musique_answer",
    "musique_support",
    "parse",
    "read",
    "read_conversation",
    "redundancy_penalty",
    "round_positions",
    "score_rollout",
    "search_key_reward",
    "step_weight",
    "token_f1",
    "token_positions",
    "token_rewards",
    "transcript",
    "wiki2_answer",
    "wiki2_evidence",
    "wiki2_support",
    "without",
]
