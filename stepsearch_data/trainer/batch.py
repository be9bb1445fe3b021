"""From episodes to tensors: the batch that is learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from stepsearch_data.trainer.search_env import Episode


@dataclass
class Batch:
    """Rows of prompt and response, padded on the right.

    All tensors are (rows, tokens), but the `lengths` of the rows, which stay on the CPU.

    `response_mask` is true where the policy wrote the token. `rewards` and all that follow are 0
    (`importance_weights`: 1) elsewhere. `sampling_logps` are the log-probabilities with which another
    engine sampled, NaN where none did. `compute_advantages` fills in the others; `old_logps` and `old_values` are
    those under the weights that sampled.
    """

    lengths: Tensor
    input_ids: Tensor
    response_mask: Tensor
    rewards: Tensor
    sampling_logps: Tensor
    importance_weights: Tensor
    old_logps: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)

    def rows(self, which: Tensor | slice) -> Batch:
        """Select some rows, and drop columns in which none of them has a token."""
        lengths = self.lengths[which]
        width = int(lengths.max())
        return Batch(lengths, *(getattr(self, each.name)[which, :width] for each in fields(self)[1:]))

    def by_length(self) -> Tensor:
        """Order the rows by length, longest first.

        So parts have little padding, and a part too large for memory fails at once.
        """
        return self.lengths.argsort(descending=True, stable=True)

    def cut(self, tokens: int, parts: int = 1) -> list[Tensor]:
        """Cut the rows, by length, into this many parts or more, each of so many tokens with padding, or of one row."""
        found = cut_by_tokens(self.lengths, tokens)
        while len(found) < min(parts, len(self)):
            largest = max(range(len(found)), key=lambda at: len(found[at]))
            found[largest : largest + 1] = found[largest].chunk(2)
        return found


def cut_by_tokens(lengths: Tensor, tokens: int) -> list[Tensor]:
    """Cut rows of these lengths, longest first, into parts of so many tokens with padding, or of one row."""
    rest, found = lengths.argsort(descending=True, stable=True), list[Tensor]()
    while len(rest):
        size = max(1, tokens // int(lengths[rest[0]]))
        found.append(rest[:size])
        rest = rest[size:]
    return found


def collate(
    episodes: Sequence[Episode], rewards: Sequence[Sequence[tuple[int, float]]], pad: int, device: torch.device
) -> Batch:
    """Make a batch of episodes and their rewards on tokens of the response.

    Rewards of one token add up (the reference code assigns, and so loses a step reward that shares the last token).
    Raises ValueError for a reward on a token that the policy did not write.
    """
    rows = [episode.prompt_ids + episode.response_ids for episode in episodes]
    lengths = torch.tensor([len(row) for row in rows])
    shape = (len(rows), int(lengths.max()))
    input_ids, token_rewards = torch.full(shape, pad), torch.zeros(shape)
    response_mask, sampling_logps = torch.zeros(shape, dtype=torch.bool), torch.full(shape, torch.nan)
    for row, (episode, earned) in enumerate(zip(episodes, rewards, strict=True)):
        start, end = len(episode.prompt_ids), len(rows[row])
        input_ids[row, :end] = torch.tensor(rows[row])
        response_mask[row, start:end] = torch.tensor(episode.response_mask, dtype=torch.bool)
        if episode.sampling_logps:
            sampling_logps[row, response_mask[row]] = torch.tensor(episode.sampling_logps)
        for token, reward in earned:
            if not episode.response_mask[token]:
                raise ValueError(f"row {row}: token {token} is not the policy's, it cannot earn {reward}")
            token_rewards[row, start + token] += reward
    filled_in = (torch.ones(shape), *(torch.zeros(shape) for _ in range(4)))
    tensors = (input_ids, response_mask, token_rewards, sampling_logps, *filled_in)
    return Batch(lengths, *(tensor.to(device) for tensor in tensors))
