"""A policy of this process: samples from a `transformers` model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from stepsearch_data.trainer.causal_lm import logits_of, run_trunk, trunk_of, unwrap_adapters
from stepsearch_data.trainer.chat import turn_end
from stepsearch_data.trainer.kv_cache import GrowingLayer
from stepsearch_data.trainer.stops import STOPS

_OF_PLACES = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}  # by name: the last is new
_TAIL = 16  # tokens that hold a closing tag, however it is cut


class CachedSampler:
    """Samples from a `transformers` model, keeping the keys and values of all that was read.

    Rows write in step. One that has ended its turn waits: the others' tokens leave masked places in its row, which
    nothing attends to and no position counts. Between turns they are taken out, so that what a row has read stands
    together: a sliding window counts places. Rows whose episode has ended are dropped from the cache.

    What layers that sum up all that they read keep (linear attention, convolutions) has no places to take out: with
    such layers every turn reads its whole text again.

    Each row draws from a stream of its own, so what it writes does not depend on when the others do. `seed` decides
    the streams of the next batch; without it torch's global generator does. Temperature 0 takes the likeliest token.
    """

    seed: Sequence[int] = ()

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float = 1.0,
        stops: Sequence[str] = STOPS,
    ) -> None:
        self._model, self._tokenizer, self._temperature = model, tokenizer, temperature
        self._has_kv_cache = has_plain_kv_cache(model)
        self._eos, self._stops = end_tokens(model, tokenizer), stops
        self._closing = {token for text, token in tokenizer.get_vocab().items() if ">" in text}

    def start(self, prompts: Sequence[list[int]]) -> None:
        """See `Sampler.start`."""
        seed = self.seed or (int(torch.randint(2**62, ())),) if self._temperature else (0,)
        self._streams = [np.random.default_rng((*seed, row)) for row in range(len(prompts))]
        self._forget(prompts)

    def _forget(self, texts: Sequence[list[int]]) -> None:
        """Have nothing of these texts been read."""
        # Windows are left to the mask: with the model's configuration the cache would drop what is outside of them.
        self._cache = DynamicCache(config=None if self._has_kv_cache else unwrap_adapters(self._model).config)
        if self._has_kv_cache:
            self._cache.layer_class_to_replicate = GrowingLayer
        self._mask = torch.zeros((len(texts), 0), dtype=torch.long, device=self._model.device)
        self._seen: list[list[int]] = [[] for _ in texts]
        self._unread = list(texts)

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """See `Sampler.replace_last`. The last token of a turn has not been read yet."""
        self._unread[row] = [*tokens]

    def extend(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """See `Sampler.extend`."""
        self._seen = [self._seen[row] for row in rows]
        self._streams = [self._streams[row] for row in rows]
        self._unread = [self._unread[row] + seen for row, seen in zip(rows, observations, strict=True)]
        if self._has_kv_cache:
            self._compact_cache(rows)
        else:
            self._forget([seen + unread for seen, unread in zip(self._seen, self._unread, strict=True)])

    @torch.inference_mode()
    def generate(self, max_new_tokens: Sequence[int]) -> list[list[int]]:
        """See `Sampler.generate`."""
        turns: list[list[int]] = [[] for _ in max_new_tokens]
        writing = [row for row, limit in enumerate(max_new_tokens) if limit > 0]
        while writing:
            logits, self._writing = self._read(writing), writing
            for row, token in zip(writing, self._sample(logits[writing]), strict=True):
                turns[row].append(token)
                self._unread[row] = [token]
            writing = [row for row in writing if len(turns[row]) < max_new_tokens[row] and not self._ended(turns[row])]
        return turns

    def _read(self, rows: Sequence[int]) -> Tensor:
        """Let these rows read what they have not; return logits of what follows, (all rows, vocabulary)."""
        width = max(len(self._unread[row]) for row in rows)
        tokens, real = ([[0] * width for _ in self._unread] for _ in range(2))
        last = [0] * len(tokens)
        for row in rows:
            unread = self._unread[row]
            start = 0 if self._has_kv_cache else width - len(unread)  # sums begin with what is read first
            last[row] = start + len(unread) - 1
            tokens[row][start : start + len(unread)] = unread
            real[row][start : start + len(unread)] = [1] * len(unread)
            self._seen[row] += unread
            self._unread[row] = []
        read, mask = torch.tensor([tokens, real], device=self._mask.device)  # one transfer per token
        self._mask = torch.cat([self._mask, mask], dim=1)
        output = run_trunk(trunk_of(self._model), read, self._mask, self._cache)
        hidden = output.last_hidden_state[range(len(last)), last] if width > 1 else output.last_hidden_state[:, 0]
        if self._has_kv_cache and width > 1:
            self._compact_cache(range(len(last)))
        return logits_of(self._model, output, hidden, read[:, 0]).float()

    def _compact_cache(self, rows: Sequence[int]) -> None:
        """Keep these rows, and move what each of them has read to the right end of the cache, in its order."""
        kept = torch.tensor(rows, dtype=torch.long, device=self._mask.device)
        mask = self._mask[kept]
        width = int(mask.sum(dim=1).max()) if rows else 0
        places = mask.argsort(dim=1, stable=True)[:, mask.shape[1] - width :]
        self._mask = mask.gather(1, places)
        for layer in self._cache.layers:
            layer.keep(kept, places)

    def _sample(self, logits: Tensor) -> list[int]:
        """Choose a token for each row that writes, where its random number falls among the sums of probabilities."""
        if self._temperature == 0:
            tokens = logits.argmax(dim=-1)
        else:
            logits = logits.cpu() if logits.device.type == "mps" else logits  # which has no float64
            sums = torch.softmax(logits / self._temperature, dim=-1).cumsum(dim=-1, dtype=torch.float64)
            drawn = sums.new_tensor([[self._streams[row].random()] for row in self._writing])
            found = torch.searchsorted(sums, drawn * sums[:, -1:], right=True)[:, 0]
            tokens = found.clamp(max=logits.shape[-1] - 1)
        written: list[int] = tokens.tolist()
        return written

    def _ended(self, turn: list[int]) -> bool:
        if turn[-1] in self._eos:
            return True
        if turn[-1] not in self._closing:
            return False
        tail = self._tokenizer.decode(turn[-_TAIL:])
        return any(stop in tail for stop in self._stops)


class ReportingSampler(CachedSampler):
    """Tells with which log-probability each token was written, and the entropy of what might have been."""

    def start(self, prompts: Sequence[list[int]]) -> None:
        """See `Sampler.start`."""
        super().start(prompts)
        self._told: list[list[list[float]]] = [[] for _ in prompts]
        self._places = list(range(len(prompts)))

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """See `Sampler.replace_last`."""
        super().replace_last(row, tokens)
        self._told[self._places[row]].pop()

    def extend(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """See `Sampler.extend`."""
        super().extend(rows, observations)
        self._places = [self._places[row] for row in rows]

    def logps(self) -> list[list[float]]:
        """See `ReportsLogps.logps`."""
        return [[logp for logp, _ in row] for row in self._told]

    def entropies(self) -> list[list[float]]:
        """Tell the entropy with which each row of the batch wrote its tokens."""
        return [[entropy for _, entropy in row] for row in self._told]

    def _sample(self, logits: Tensor) -> list[int]:
        written = super()._sample(logits)
        likely = torch.log_softmax(logits / self._temperature, dim=-1)
        logps = likely.gather(1, torch.tensor(written, device=likely.device)[:, None])[:, 0]
        entropies = torch.special.entr(likely.exp_()).sum(dim=-1)
        for row, told in zip(self._writing, torch.stack([logps, entropies], dim=1).tolist(), strict=True):
            self._told[self._places[row]].append(told)
        return written


def has_plain_kv_cache(model: PreTrainedModel) -> bool:
    """Tell whether all that a model keeps of what it has read are keys and values, each of one place."""
    return {kind.__name__ for kind in _kinds(model)} <= _OF_PLACES


def custom_cache_layers(model: PreTrainedModel) -> list[str]:
    """Name the kinds of cache layers that an architecture defines itself.

    What these keep is not known.
    """
    return sorted(kind.__name__ for kind in _kinds(model) if kind.__module__ != DynamicLayer.__module__)


def _kinds(model: PreTrainedModel) -> set[type]:
    return set(map(type, DynamicCache(config=unwrap_adapters(model).config).layers))


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens with which a model ends its text, by its tokenizer, generation config and chat template.

    Base models often know the end of text alone, also where their template ends messages otherwise.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    many = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (tokenizer.eos_token_id, turn_end(tokenizer), *many) if token is not None)
