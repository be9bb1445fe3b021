"""Information gain of the policy's own answer: how much more probable a search makes the right one (arXiv 2510.14967).

It needs accepted answers only, no gold paragraphs, and one more forward pass per search and per rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from stepsearch_data.trainer.batch import cut_by_tokens
from stepsearch_data.trainer.causal_lm import log_probabilities
from stepsearch_data.trainer.config import PPOConfig
from stepsearch_data.trainer.episode_score import EpisodeScore
from stepsearch_data.trainer.metrics import Metrics
from stepsearch_data.trainer.search_env import Episode, Search
from stepsearch_data.trainer.stops import Encode

Text = tuple[list[int], list[int]]
"""Tokens that are read, and those of the answer that follows them."""


def add_answer_gains(
    policy: PreTrainedModel,
    encode: Encode,
    episodes: Sequence[Episode],
    scored: Sequence[EpisodeScore],
    weight: float,
    ppo: PPOConfig,
) -> tuple[list[EpisodeScore], Metrics]:
    """Add weight · (p_t − p_{t−1}) to the reward of every search t; return the scores, and the gain of a rollout.

    p_t is how probable the policy finds the right answer after the documents of search t, p_0 with the prompt alone.
    A forward pass takes as many texts, or tokens, as a micro batch of the update.
    """
    texts = [_text(episode, end, encode) for episode in episodes for end in _ends(episode)]
    p = iter(answer_probabilities(policy, texts, ppo))
    total, added = 0.0, []
    for episode, each in zip(episodes, scored, strict=True):
        gains = [after - before for before, after in pairwise(islice(p, len(episode.searches) + 1))]
        rewards = dict(each.token_rewards[:-1])  # the last is the score
        for search, gain in zip(episode.searches, gains, strict=True):
            rewards[search.token] = rewards.get(search.token, 0.0) + weight * gain
        added.append(EpisodeScore(each.scores, [*sorted(rewards.items()), *each.token_rewards[-1:]]))
        total += sum(gains)
    return added, {"answer_gain": total / max(1, len(episodes))}


@torch.no_grad()
def answer_probabilities(policy: PreTrainedModel, texts: Sequence[Text], ppo: PPOConfig) -> list[float]:
    """Compute exp((1 / |a|) Σ_j log π(a_j | text, a_<j)) of each text's answer a: its tokens' geometric mean."""
    found = [0.0] * len(texts)
    lengths = torch.tensor([len(read) + len(answer) for read, answer in texts])
    longest_first = lengths.argsort(descending=True, stable=True).split(ppo.micro_batch_size)
    parts = cut_by_tokens(lengths, ppo.micro_batch_tokens) if ppo.micro_batch_tokens else longest_first
    for part in (each.tolist() for each in parts):
        rows = [torch.tensor([*texts[at][0], *texts[at][1]]) for at in part]
        of_answer = [torch.tensor([False] * len(texts[at][0]) + [True] * len(texts[at][1])) for at in part]
        tokens, mask = (pad_sequence(each, batch_first=True).to(policy.device) for each in (rows, of_answer))
        logps, _ = log_probabilities(policy, tokens, mask, 1.0)
        for at, p in zip(part, (logps.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).exp().tolist(), strict=True):
            found[at] = p
    return found


def _ends(episode: Episode) -> list[int]:
    """Return how many tokens of the response have been read after the prompt, and after each search's documents."""

    def observed(search: Search) -> int:
        later = range(search.token + 1, len(episode.response_ids))
        return next((at for at in later if episode.response_mask[at]), len(episode.response_ids))

    return [0, *map(observed, episode.searches)]


def _text(episode: Episode, end: int, encode: Encode) -> Text:
    """Return the prompt and the response up to an end with an open answer, and the first accepted answer."""
    return [*episode.prompt_ids, *episode.response_ids[:end], *encode("<answer>")], encode(
        f" {episode.task.answers[0]}"
    )
