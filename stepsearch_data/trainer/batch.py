"""Episodes as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from stepsearch_data.trainer.losses import Steps, token_rewards
from stepsearch_data.trainer.search_env import Episode


@dataclass
class Batch:
    """Rows of prompt and response, padded on the right. All tensors are (rows, tokens).

    `tokens` are ids, `attention` is true where there is one, `own` where the policy wrote it, `rewards` lie on
    own tokens, `sampled` are the log-probabilities with which another engine sampled, NaN where none did. The others
    are filled in before the update, 0 where `own` is false: `logps` and `values` under the weights that sampled,
    `advantages`, `returns`; `weights` are 1 there.
    """

    tokens: Tensor
    attention: Tensor
    own: Tensor
    rewards: Tensor
    sampled: Tensor
    weights: Tensor
    logps: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, which: Tensor | slice) -> Batch:
        """Some of the rows, without columns in which they have no token."""
        width = int(self.attention[which].sum(dim=1).max())
        return Batch(*(getattr(self, each.name)[which, :width] for each in fields(self)))

    def by_length(self) -> Tensor:
        """The rows, longest first: parts of them have little padding, and what does not fit shows at once."""
        return self.attention.sum(dim=1).argsort(descending=True, stable=True)

    def split(self, size: int, order: Tensor) -> Iterator[Batch]:
        """Parts of so many rows, in this order of rows."""
        yield from (self.rows(part) for part in order.split(size))


def collate(episodes: Sequence[Episode], steps: Sequence[Steps], pad: int, device: torch.device) -> Batch:
    """A batch of episodes. `steps` are the rewards of each on tokens of its response."""
    rows = [episode.prompt + episode.tokens for episode in episodes]
    shape = (len(rows), max(map(len, rows)))
    tokens = torch.full(shape, pad)
    attention, own = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    sampled = torch.full(shape, torch.nan)
    for row, episode in enumerate(episodes):
        start, end = len(episode.prompt), len(rows[row])
        tokens[row, :end] = torch.tensor(rows[row])
        attention[row, :end] = True
        own[row, start:end] = torch.tensor(episode.own, dtype=torch.bool)
        if episode.logps:
            sampled[row, own[row]] = torch.tensor(episode.logps)
    shifted = [
        [(len(episode.prompt) + token, reward) for token, reward in earned]
        for episode, earned in zip(episodes, steps, strict=True)
    ]
    rewards = token_rewards(shifted, own)
    tensors = (tokens, attention, own, rewards, sampled, torch.ones(shape), *(torch.zeros(shape) for _ in range(4)))
    return Batch(*(tensor.to(device) for tensor in tensors))
