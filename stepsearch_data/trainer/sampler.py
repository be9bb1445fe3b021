"""A policy of this process: samples from a `transformers` model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from stepsearch_data.trainer.episode import STOPS

_TAIL = 16  # tokens that hold a closing tag, however it is cut


class CachedSampler:
    """Samples from a `transformers` model, keeping the keys and values of all that was read.

    Rows write in step. One that has ended its turn waits: the others' tokens leave masked places in its
    row, which nothing attends to and no position counts. Rows whose episode has ended are dropped from the
    cache. Sampling uses torch's global generator; temperature 0 takes the likeliest token.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, temperature: float = 1.0) -> None:
        self._model, self._tokenizer, self._temperature = model, tokenizer, temperature
        self._eos = end_tokens(model, tokenizer)
        self._cache_argument = cache_argument(model)
        self._closing = {token for text, token in tokenizer.get_vocab().items() if ">" in text}

    def begin(self, prompts: Sequence[list[int]]) -> None:
        """See `Sampler.begin`."""
        self._cache = DynamicCache(config=self._model.config)
        self._mask = torch.zeros((len(prompts), 0), dtype=torch.long, device=self._model.device)
        self._unread = list(prompts)

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """See `Sampler.replace_last`. The last token of a turn has not been read yet."""
        self._unread[row] = [*tokens]

    def go_on(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """See `Sampler.go_on`."""
        kept = torch.tensor(rows, dtype=torch.long, device=self._model.device)
        self._cache.batch_select_indices(kept)
        self._mask = self._mask[kept]
        self._unread = [self._unread[row] + seen for row, seen in zip(rows, observations, strict=True)]

    @torch.inference_mode()
    def turn(self, budgets: Sequence[int]) -> list[list[int]]:
        """See `Sampler.turn`."""
        turns: list[list[int]] = [[] for _ in budgets]
        writing = [row for row, budget in enumerate(budgets) if budget > 0]
        while writing:
            logits = self._read(writing)
            for row, token in zip(writing, self._sample(logits[writing]), strict=True):
                turns[row].append(token)
                self._unread[row] = [token]
            writing = [row for row in writing if len(turns[row]) < budgets[row] and not self._ended(turns[row])]
        return turns

    def _read(self, rows: Sequence[int]) -> Tensor:
        """Let these rows read what they have not; logits of what follows, shape (all rows, vocabulary)."""
        width = max(len(self._unread[row]) for row in rows)
        tokens = torch.zeros((len(self._unread), width), dtype=torch.long)
        real = torch.zeros_like(tokens)
        for row in rows:
            unread = self._unread[row]
            tokens[row, width - len(unread) :] = torch.tensor(unread)
            real[row, width - len(unread) :] = 1
            self._unread[row] = []
        self._mask = torch.cat([self._mask, real.to(self._mask.device)], dim=1)
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -width:]
        read = self._model(
            input_ids=tokens.to(self._mask.device),
            attention_mask=self._mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_argument: self._cache},
        )
        return read.logits[:, -1].float()

    def _sample(self, logits: Tensor) -> list[int]:
        if self._temperature == 0:
            tokens = logits.argmax(dim=-1)
        else:
            tokens = torch.multinomial(torch.softmax(logits / self._temperature, dim=-1), 1)[:, 0]
        return [int(token) for token in tokens]

    def _ended(self, turn: list[int]) -> bool:
        if turn[-1] in self._eos:
            return True
        return turn[-1] in self._closing and any(stop in self._tokenizer.decode(turn[-_TAIL:]) for stop in STOPS)


def cache_argument(model: PreTrainedModel) -> str:
    """What a model calls the cache that it reads: `cache` since transformers 5.24, `past_key_values` before."""
    base = getattr(model, "get_base_model", lambda: model)()  # with adapters, peft passes all arguments on to it
    return "cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values"


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens with which a model ends its text: its tokenizer's, and those of its generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    many = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (tokenizer.eos_token_id, *many) if token is not None)
