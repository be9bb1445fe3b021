"""Settings of the paper's rewards and of the reference code's, with one switch per difference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class RewardConfig:
    """How a rollout is scored. The defaults are the paper's equations. Switches give the reference code's.

    The first four are the paper's ablations. Two differences have no switch. Documents without a word
    score 0 here, while the reference code raises an error. γ = λ = 1 belongs to the trainer.
    """

    key_reward: bool = True
    """γ_key · r_key is added to the score."""
    information_gain: bool = True
    """G^t is part of the step score."""
    redundancy_penalty: bool = True
    """P^t is part of the step score."""
    step_reward: bool = True
    """There are step scores; without, they are 0."""

    failure_score: float | None = None
    """Score of a rollout in the wrong format, which then has no step and no key score. None: only r_answer is 0."""
    loose_format: bool = False
    """The format is right when nothing but white space follows the last answer."""
    key_weight: float = 0.618
    """γ_key. The paper gives no number, so all presets take the reference code's."""
    step_scale: float = 1.0
    """What step scores are multiplied by when they become rewards on tokens."""
    one_key_per_query: bool = False
    """A query credits only its best sub-question, and overwrites an earlier query's score there."""
    unanswered_count: bool = False
    """A query without an answer of the engine counts for r_key too, as the last turn's, which is not run."""
    keep_next_label: bool = False
    """Documents end with the label of the next one (`Doc 2`), so that the last of a round looks new elsewhere."""
    repeats_in_round: bool = False
    """A document that occurs twice in one round is redundant."""
    repeated_queries_only: bool = False
    """P^t is 0 in a round whose query, normalised, is new. In no preset."""
    refit_tfidf: bool = False
    """TF-IDF is fitted again for every document, on it and the gold paragraphs."""
    lazy_patterns: bool = False
    """Blocks are found by lazy patterns: an unclosed block, or a search without result, includes what follows."""
    steps_need_gold: bool = False
    """Without gold paragraphs there are no steps. Otherwise such steps have gain 0 and a penalty."""
    reward_on_search: bool = False
    """Step rewards are on the last token of `</search>`, not on the round's last token."""
    decimals: int | None = None
    """Digits that every F1 is rounded to."""

    @property
    def settled_at_end(self) -> bool:
        """Tell whether later turns may change or cancel the reward of a search, so that none can be paid at once."""
        return self.failure_score is not None or self.lazy_patterns


PAPER = RewardConfig()
"""The equations of arXiv 2505.15107."""

REFERENCE = RewardConfig(
    failure_score=-1.0,
    loose_format=True,
    step_scale=1.6,
    one_key_per_query=True,
    unanswered_count=True,
    keep_next_label=True,
    repeats_in_round=True,
    refit_tfidf=True,
    lazy_patterns=True,
    steps_need_gold=True,
    reward_on_search=True,
    decimals=4,
)
"""Zillwang/StepSearch at 43215ba: `verl/utils/reward_score/qa_step.py`, `verl/trainer/main_ppo.py`."""

ABLATIONS = {"key": "key_reward", "gain": "information_gain", "penalty": "redundancy_penalty", "step": "step_reward"}


def step_weight(done: int, until: int) -> float:
    """Compute max(0, 1 − done / until), which step rewards are multiplied by after so many updates; 1 if `until` is 0.

    A reward for steps may change what is best in the end, if it does not vanish (Ng, Harada and Russell, ICML 1999).
    """
    return max(0.0, 1 - done / until) if until else 1.0


def without(config: RewardConfig, part: str) -> RewardConfig:
    """Return the config without one part of the reward: key, gain, penalty or step (the paper's ablations)."""
    return replace(config, **{ABLATIONS[part]: False})


Preset = Literal["paper", "reference", "gain+key", "outcome"]

PRESETS: dict[Preset, RewardConfig] = {
    "paper": PAPER,
    "reference": REFERENCE,
    "gain+key": without(PAPER, "penalty"),
    "outcome": without(without(PAPER, "key"), "step"),
}
"""`gain+key` pays gains without penalties. `outcome` is r_answer alone, ordinary PPO."""
