"""Check, on a few tokens and before training, whether a model's architecture can be trained here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepsearch_data.core.errors import TrainError
from stepsearch_data.trainer.causal_lm import log_probabilities, run_trunk, trunk_of, unwrap_adapters
from stepsearch_data.trainer.sampler import CachedSampler, custom_cache_layers

_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@torch.no_grad()
def check_architecture(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise TrainError, naming the class, where turns or log-probabilities differ from a plain pass."""
    try:
        problem = _problem(model.eval(), tokenizer)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    if problem:
        raise TrainError(
            f"{type(unwrap_adapters(model)).__name__} cannot be trained here: {problem}",
            "choose a model of another architecture; docs/training.md tells which are refused",
        )


def _problem(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    if custom_cache_layers(model):
        return f"it keeps what it has read in {', '.join(custom_cache_layers(model))}"
    config = unwrap_adapters(model).config.get_text_config()
    texts = [[(7 * place + 3 * row) % (config.vocab_size - 3) + 3 for place in range(9)] for row in (1, 2)]
    ids = torch.tensor(texts, device=model.device)
    if run_trunk(trunk_of(model), ids).last_hidden_state.shape[-1] != config.hidden_size:
        return "what its last layer makes is not as wide as its configuration says"
    plain = [unwrap_adapters(model)(input_ids=row[None]).logits[0].float() for row in ids]
    forced = _ForcedSampler(model, tokenizer, texts)
    for row, place, logits in forced.play():
        if _apart(model, logits, plain[row][place]):
            return "turn by turn it reads a text otherwise than at once"
    places = torch.arange(9, device=model.device)
    response_mask = (places > 0) & (places < torch.tensor([[9], [6]], device=model.device))
    logps, _ = log_probabilities(model, ids, response_mask, 1.0)
    for row, length in enumerate((9, 6)):
        wanted = torch.log_softmax(plain[row][: length - 1], dim=-1).gather(1, ids[row, 1:length, None])[:, 0]
        if _apart(model, logps[row, 1:length], wanted):
            return "in a batch it reads a text otherwise than alone"
    return ""


def _apart(model: PreTrainedModel, ours: Tensor, theirs: Tensor) -> bool:
    """Tell whether two results differ by more than rounding explains, or are not numbers."""
    exact = model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
    return not (ours - theirs).norm() <= (0.001 if exact else 0.1) * (theirs - theirs.mean()).norm()


class _ForcedSampler(CachedSampler):
    """Writes two texts that are given, in turns, and tells which logits it saw."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(model, tokenizer)
        self._texts = [list(text) for text in texts]
        self._logits: list[tuple[int, int, Tensor]] = []

    def play(self) -> list[tuple[int, int, Tensor]]:
        """Return row, place and logits of each token written; rows differ in length, and one of them waits."""
        first, second = self._texts
        self.start([first[:1], second[:4]])
        self.generate([3, 1])
        self.extend([0, 1], [first[4:6], second[5:6]])
        self.generate([2, 2])
        return self._logits

    def _read(self, rows: Sequence[int]) -> Tensor:
        self._rows = rows
        return super()._read(rows)

    def _sample(self, logits: Tensor) -> list[int]:
        places = [len(self._seen[row]) for row in self._rows]
        self._logits += [(row, place - 1, each) for row, place, each in zip(self._rows, places, logits, strict=True)]
        return [self._texts[row][place] for row, place in zip(self._rows, places, strict=True)]

    def _ended(self, turn: list[int]) -> bool:  # noqa: ARG002
        return False
