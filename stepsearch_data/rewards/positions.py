"""The tokens that carry rewards, by the character offsets that the tokenizer gave with the tokens.

No text is decoded and tokenised again. The reference code does so, which can shift its positions
(`_compute_step_reward_tensor` in `verl/trainer/main_ppo.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepsearch_data.rewards.presets import PAPER, RewardConfig
from stepsearch_data.rewards.rollout import Rollout
from stepsearch_data.rewards.scoring import Scores

Offsets = Sequence[tuple[int, int]]


def token_positions(ends: Sequence[int], offsets: Offsets) -> list[int | None]:
    """Return for each end (in characters) the index of the token that holds the character before it.

    `offsets` are (start, end) of every token in the text; empty ones (special tokens, padding) hold
    nothing. Of several tokens that share the character, as its bytes do, the last one is returned. None
    where no token holds it, because the text was cut.
    """
    bounds = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    holding = np.flatnonzero(bounds[:, 1] > bounds[:, 0])
    starts, stops = bounds[holding, 0], bounds[holding, 1]
    last = np.asarray(ends, dtype=np.int64) - 1
    at = np.searchsorted(starts, last, side="right") - 1
    return [
        int(holding[place]) if place >= 0 and stops[place] > character else None
        for place, character in zip(at, last, strict=True)
    ]


def round_positions(rollout: Rollout, offsets: Offsets, *, on_search: bool = False) -> list[int | None]:
    """Return the token index of each round's end, or `on_search` of its `</search>`, the policy's last token.

    A round ends with what the engine returned. A trainer that masks those tokens out of its returns,
    not only out of its loss, needs `on_search`. The rollout's text must be the text of `offsets`.
    """
    return token_positions([found.searched if on_search else found.end for found in rollout.rounds], offsets)


def token_rewards(
    scores: Scores, rollout: Rollout, offsets: Offsets, config: RewardConfig = PAPER
) -> NDArray[np.float64]:
    """Return the rewards of all tokens, shape (tokens,): step rewards on their rounds, the score on the last token.

    `offsets` are those of the response's own tokens, with an end-of-text token and without padding. A round
    whose end was cut off gets no reward. The reference code assigns the score to the last token; here it is added.
    """
    rewards = np.zeros(len(offsets))
    places = round_positions(rollout, offsets, on_search=config.reward_on_search)
    for place, reward in zip(places, scores.step_rewards, strict=False):  # a forfeited step has no reward
        if place is not None:
            rewards[place] += reward
    if len(offsets):
        rewards[-1] += scores.score
    return rewards
