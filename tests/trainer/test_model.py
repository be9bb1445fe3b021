"""Log-probabilities in parts: those of a plain pass, in a fraction of its memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PreTrainedConfig,
)

from stepsearch_data.trainer import causal_lm as module
from stepsearch_data.trainer.causal_lm import log_probabilities, trunk_of
from stepsearch_data.trainer.loading import CHECKPOINTING
from stepsearch_data.trainer.model import ActorCritic, Critic

SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
ARCHITECTURES = [
    LlamaConfig(**SIZES, vocab_size=50),
    LlamaConfig(**SIZES, vocab_size=50, tie_word_embeddings=True),
    GraniteConfig(**SIZES, vocab_size=50, logits_scaling=3.0),
    CohereConfig(**SIZES, vocab_size=50, logit_scale=0.3),
    Gemma2Config(**SIZES, vocab_size=50, final_logit_softcapping=0.2),
]


def batch(rows: int, length: int, vocabulary: int) -> tuple[Any, Any, Any]:
    """Tokens, attention, and which are the policy's own: rows of other lengths, observations inside."""
    tokens = torch.randint(1, vocabulary, (rows, length), generator=torch.Generator().manual_seed(3))
    attention = torch.arange(length) < torch.arange(length, length - rows, -1)[:, None]
    own = attention & (torch.arange(length) % 7 > 2)
    own[:, :3] = False
    return tokens, attention, own


def plain(policy: Any, tokens: Any, attention: Any, own: Any, temperature: float) -> tuple[Any, Any]:
    """As the formulas say, on all logits at once."""
    logits = policy(tokens, attention_mask=attention).logits[:, :-1].float() / temperature
    logps = torch.log_softmax(logits, dim=-1)
    entropy = -(logps.exp() * logps).sum(dim=-1)
    of_tokens = logps.gather(2, tokens[:, 1:, None])[:, :, 0]
    return tuple(torch.where(own, torch.nn.functional.pad(each, (1, 0)), 0) for each in (of_tokens, entropy))


def gradients(policy: Any, read: Callable[..., Any], given: Any) -> tuple[list[Any], list[Any]]:
    """Log-probabilities and entropies, and the gradients of a loss of both."""
    policy = copy.deepcopy(policy)
    logps, entropy = read(policy, *given, 0.7)
    weights = torch.linspace(-1, 2, logps.numel()).view(logps.shape)
    ((logps * weights).sum() + (entropy * weights.flip(0)).sum()).backward()
    return [logps, entropy], [parameter.grad for parameter in policy.parameters()]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it by that name
@pytest.mark.parametrize("config", ARCHITECTURES, ids=lambda config: config.model_type)
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "LoRA"])
def test_parts_are_the_plain_pass(config: PreTrainedConfig, lora: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the architecture does to its logits: tied weights, scales, caps, adapters."""
    torch.manual_seed(0)
    policy = AutoModelForCausalLM.from_config(config).eval()
    if lora:
        from peft import LoraConfig, get_peft_model

        policy = get_peft_model(policy, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    tokens, attention, own = batch(4, 40, 50)
    whole, whole_gradients = gradients(policy, plain, (tokens, attention, own))
    for few in (50 * 9, 2**22):  # nine tokens at a time, and all
        monkeypatch.setattr(module, "_FEW", few)
        monkeypatch.setattr(module, "_MANY", few)
        parts, part_gradients = gradients(policy, partial(log_probabilities, entropy=True), (tokens, own))
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(part_gradients, whole_gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_a_row_without_own_tokens(policy: Any) -> None:
    tokens, _, own = batch(1, 9, 20)
    logps, entropy = log_probabilities(policy, tokens, own & False, 1.0, entropy=True)
    assert not logps.any()
    assert not entropy.any()
    (logps.sum() + entropy.sum()).backward()


@pytest.mark.parametrize("bonus", [0.0, 0.01], ids=["no entropy bonus", "entropy bonus"])
def test_memory_stays_below_that_of_the_logits(bonus: float) -> None:
    """The peak of what is allocated over the forward and the backward pass."""
    vocabulary = 20_000
    policy = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, vocab_size=vocabulary))
    tokens, _, own = batch(6, 260, vocabulary)
    logits = int(own.sum()) * vocabulary * 4
    assert logits > 4 * 4 * module._FEW  # bytes: there are four parts and more

    def both() -> None:
        logps, entropy = log_probabilities(policy, tokens, own, 1.0, entropy=bonus > 0)
        (logps.mean() - bonus * entropy.mean() if bonus else logps.mean()).backward()

    assert peak(both) < logits
    with torch.no_grad():
        assert peak(lambda: log_probabilities(policy, tokens, own, 1.0)) < logits


def peak(work: Callable[[], object]) -> int:
    """The most bytes that were allocated at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_training_mode_is_gradient_checkpointing_and_nothing_else() -> None:
    """Dropout that is no module of its own, as in attention, stays off too: the ratio of two passes must be 1."""
    policy, other = (AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, vocab_size=50, attention_dropout=0.5))
                     for _ in range(2))  # fmt: skip
    getattr(policy, f"{CHECKPOINTING}_enable")()
    model = ActorCritic(policy, Critic(trunk_of(other)))
    passes: list[object] = []
    policy.model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(None))
    tokens, _, own = batch(3, 20, 50)
    given = tokens, own
    before = model.eval()(*given)
    model.train()
    after = model(*given)
    torch.testing.assert_close(after, before)
    passes.clear()
    after.logps.sum().backward()
    assert len(passes) == 1  # the first layer was run again
