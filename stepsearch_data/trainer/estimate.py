"""Memory and time of a recipe by arithmetic: from its numbers and its model's configuration, without weights.

docs/training.md has what comes out for the shipped recipes; tests hold it to what a small model takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from stepsearch_data.core.errors import TrainError
from stepsearch_data.trainer.causal_lm import logits_at_once, trunk_of
from stepsearch_data.trainer.loading import load_config
from stepsearch_data.trainer.recipe import Recipe

FILLED, OWN = 0.6, 0.2
"""An average rollout, as a share of `limits.max_length`, and the share of it that the policy writes: guesses."""
STEP = {"transformers": 0.03, "vLLM": 0.01}
"""Seconds that a step of all rows takes at least, however small the model: guesses."""
_FULL, _HALF = 4, 2  # bytes of float32 and bfloat16
_ADAM = 8  # two moments in float32

Phase = Literal["always", "update", "rollouts", "evaluation"]


@dataclass(frozen=True)
class Part:
    """What takes memory on one GPU: when, how many bytes, and how they are counted."""

    phase: Phase
    name: str
    size: float
    counted: str


@dataclass(frozen=True)
class Estimate:
    """What a recipe needs of each GPU, and how long an update takes on all of them."""

    model: str
    parameters: int
    parts: list[Part]
    operations: float
    """Of an update, over all GPUs."""
    seconds: dict[str, float]
    """Of an update, by what they are spent on."""
    updates: int

    @property
    def peak(self) -> float:
        """Return the bytes that the largest of update, rollouts and evaluation takes, with what is always there."""
        phases = ("update", "rollouts", "evaluation")
        return max(sum(part.size for part in self.parts if part.phase in {"always", phase}) for phase in phases)

    @property
    def assumptions(self) -> list[str]:
        """Say what was guessed."""
        return [
            f"{self.model} has {self.parameters / 1e9:.2f} x 10^9 parameters.",
            f"An update takes {self.operations:.1e} operations.",
            f"Guessed: a rollout has {FILLED:.0%} of limits.max_length, of which the policy writes {OWN:.0%}.",
            "Turns are as long as they may be.",
            "Not counted: retriever, evaluation, checkpoints, [sft] and the passes of rewards.answer_gain.",
            "What the GPUs have and reach is [hardware] of the recipe.",
        ]

    @property
    def hours(self) -> float:
        """Return how long the whole training takes, without what `assumptions` leaves out."""
        return self.updates * sum(self.seconds.values()) / 3600


@dataclass(frozen=True)
class _Sizes:
    """A model in numbers."""

    read: int
    """Weights that text passes through: those of adapters come on top, those for images do not count."""
    unread: int
    adapters: int
    matrices: int
    """Weights of the trunk that each token is multiplied with."""
    width: int
    vocabulary: int
    layers: int
    attention: int
    """Elements of a token's queries."""
    keys: int
    inner: int
    norms: int
    """Per layer, over the width."""
    query_norm: bool


_NO_MODEL = _Sizes(
    read=0, unread=0, adapters=0, matrices=0, width=0, vocabulary=0, layers=0, attention=0, keys=0, inner=0, norms=0,
    query_norm=False,
)  # fmt: skip


def estimate(recipe: Recipe) -> Estimate:
    """Reckon a recipe; of its models only the configurations are read. Raises TrainError, also for other layers."""
    policy = load_config(recipe.model.path, recipe)
    return estimate_for(recipe, policy, load_config(recipe.critic, recipe) if recipe.critic else policy)


def estimate_for(recipe: Recipe, policy: PreTrainedConfig, critic: PreTrainedConfig) -> Estimate:
    """Reckon a recipe with models of these configurations."""
    of_policy = _sizes(policy, recipe.model.lora_rank, head=True)
    of_critic = _sizes(critic, recipe.model.lora_rank, head=False) if recipe.ppo.has_critic else _NO_MODEL
    operations = _operations(recipe, of_policy, of_critic)
    machine = recipe.hardware
    return Estimate(
        model=recipe.model.path,
        parameters=of_policy.read + of_policy.unread,
        parts=[part for part in _memory(recipe, of_policy, of_critic) if part.size],
        operations=operations,
        seconds={
            "rollouts at most": _rollout_seconds(recipe, of_policy),
            "advantages and update": operations / (machine.gpus * machine.tflops * 1e12),
        },
        updates=recipe.schedule.num_updates,
    )


def _sizes(config: PreTrainedConfig, rank: int, *, head: bool) -> _Sizes:
    """Measure a model that is never filled with numbers: with its head, or its trunk alone, as a critic has it.

    Raises TrainError for a model of other layers than attention, and matrices that every token is multiplied with.
    """
    not_reckoned = TrainError(
        f"{config.model_type} models are not reckoned", "--check measures one, and trains nothing"
    )
    try:
        with torch.device("meta"):
            whole: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except ValueError as error:  # no causal language model
        raise not_reckoned from error
    trunk, output = trunk_of(whole), whole.get_output_embeddings()
    read = {*trunk.parameters(), *(output.parameters() if head and output else ())}
    text: Any = config.get_text_config()
    matrices = [layer.weight for layer in trunk.modules() if isinstance(layer, nn.Linear | Conv1D)]
    heads, experts = (getattr(text, name, None) for name in ("num_attention_heads", "num_experts_per_tok"))
    if experts or any(each.shape[2:] for each in trunk.parameters()) or not (heads and matrices):
        raise not_reckoned  # of experts, or of convolutions and states in place of attention
    layer = next((each for each in trunk.modules() if isinstance(each, GradientCheckpointingLayer)), trunk)
    each = getattr(text, "head_dim", None) or text.hidden_size // heads
    scales = [parameter.numel() for parameter in layer.parameters() if parameter.ndim == 1]
    return _Sizes(
        read=sum(parameter.numel() for parameter in read),
        unread=sum(parameter.numel() for parameter in whole.parameters() if parameter not in read) if head else 0,
        adapters=sum(rank * sum(weight.shape) for weight in matrices),
        matrices=sum(weight.numel() for weight in matrices),
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        layers=text.num_hidden_layers,
        attention=heads * each,
        keys=each * (getattr(text, "num_key_value_heads", None) or heads),
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        norms=max(2, scales.count(text.hidden_size)),
        query_norm=each in scales,
    )


def _memory(recipe: Recipe, policy: _Sizes, critic: _Sizes) -> Iterator[Part]:
    yield from _lasting(recipe, policy, critic)
    yield from _in_update(recipe, policy, critic)
    yield from _in_rollouts(recipe, policy)


def _lasting(recipe: Recipe, policy: _Sizes, critic: _Sizes) -> Iterator[Part]:
    """Count the weights and what is kept of each."""
    machine = recipe.hardware
    gpus, both, low = machine.gpus, policy.read + critic.read, _HALF if recipe.bf16 else _FULL
    images = policy.unread
    of = "of policy and critic" if critic.read else "of the policy"
    if recipe.model.lora_rank:
        adapters = policy.adapters + critic.adapters
        yield Part("always", "weights, frozen", low * (both + images), f"{low} bytes each, {of}")
        yield Part("always", "adapters with gradients and Adam", 16 * adapters, "16 bytes each")
    elif machine.sharding == "zero2":
        yield Part("always", "weights", low * (both + images), f"{low} bytes each, {of}")
        yield Part("always", "gradients, float32 weights and Adam", 20 * both / gpus, "20 bytes each, over all GPUs")
    elif machine.sharding == "fsdp2":
        yield Part("always", "weights with gradients and Adam", 16 * both / gpus, "16 bytes each, over all GPUs")
        yield Part("always", "the policy for rollouts", low * (policy.read + images), f"{low} bytes each, whole")
    else:
        yield Part("always", "weights", _FULL * (both + images), f"4 bytes each, {of}")
        yield Part("always", "gradients and Adam", (_FULL + _ADAM) * both, "12 bytes each")
        if gpus > 1:
            yield Part("always", "gradients that GPUs exchange", _FULL * both, "4 bytes each")
        if recipe.bf16:
            yield Part("update", "bfloat16 copies of weights", _HALF * both, "2 bytes each, made in each pass")
    if recipe.schedule.overlap and not recipe.vllm:
        yield Part("always", "the policy that samples", _FULL * (policy.read + images), "at most 4 bytes each")
    if not recipe.model.lora_rank:
        kept = _FULL if machine.sharding == "ddp" else low
        yield Part("always", "reference", kept * (policy.read + images), f"{kept} bytes each")


def _in_update(recipe: Recipe, policy: _Sizes, critic: _Sizes) -> Iterator[Part]:
    """Count what a micro batch of the longest rollouts keeps for its backward pass."""
    length = recipe.limits.max_length
    tokens = length * recipe.ppo.micro_batch_size
    if recipe.ppo.micro_batch_tokens:
        tokens = max(length, recipe.ppo.micro_batch_tokens)
    wide = not recipe.bf16 or not (
        recipe.model.lora_rank or recipe.hardware.sharding != "ddp"
    )  # float32 between layers
    between = _FULL if wide else _HALF
    inside = max(_layer_bytes(recipe, each, wide=wide) for each in (policy, critic))
    layers = policy.layers + critic.layers
    if recipe.model.gradient_checkpointing:
        kept = between * (policy.layers * policy.width + critic.layers * critic.width)
        yield Part("update", "kept between layers", tokens * kept, f"{layers} layers x {tokens:,} tokens x width")
        layers = 1
    # A layer's gradients are at their largest about half of what it keeps.
    yield Part(
        "update", "kept inside layers", tokens * inside * (layers + 0.5), f"{inside:,} bytes per token and layer"
    )
    own = max(1, round(OWN * tokens))
    logits = min(own, logits_at_once(own, policy.vocabulary)) * policy.vocabulary
    yield Part("update", "logits", 4 * _FULL * logits, f"{logits:,} at a time, four times in float32")
    if not recipe.model.lora_rank:
        head = policy.width * policy.vocabulary
        yield Part("update", "gradients of the output layer", 2 * between * head, f"two of {head:,}")


def _layer_bytes(recipe: Recipe, model: _Sizes, *, wide: bool) -> int:
    """Count what a gated layer keeps per token: as measured on Llama, Qwen 2 and 3 and Gemma 3."""
    number = _HALF if recipe.bf16 else _FULL
    norms = 8 * model.norms + (10 if wide else 4)
    attention = 2 * number + (number + 4 if model.query_norm else 0)
    return norms * model.width + attention * (model.attention + model.keys) + 4 * number * model.inner


def _in_rollouts(recipe: Recipe, policy: _Sizes) -> Iterator[Part]:
    """Count keys and values, and what is made while documents are read. vLLM does not answer held-out questions."""
    machine, limits, vllm = recipe.hardware, recipe.limits, recipe.vllm
    if vllm and vllm.mode == "colocate":
        counted = f"{vllm.gpu_memory_utilization:g} of {machine.memory_gb:g} GB"
        size = vllm.gpu_memory_utilization * machine.memory_gb * 1e9
        yield Part("rollouts" if vllm.enable_sleep_mode else "always", "vLLM", size, counted)
    batch = recipe.schedule.rollout_batch_size
    asked = min(batch, recipe.held_out if recipe.schedule.eval_steps else 0) if vllm else batch
    rows = -(-asked // machine.gpus)
    number = _HALF if recipe.bf16 else _FULL
    phase: Phase = "evaluation" if vllm else "rollouts"
    cache = policy.layers * 2 * policy.keys * number
    yield Part(phase, "keys and values", rows * limits.max_length * cache, f"{rows} rollouts x {cache:,} bytes a token")
    read = rows * limits.max_obs_length * number * 3 * policy.inner
    yield Part(phase, "reading of documents", read, f"{rows} rollouts x three times the inner width a token")


def _operations(recipe: Recipe, policy: _Sizes, critic: _Sizes) -> float:
    """Count the multiplications and additions of an update, over all GPUs, for rollouts of average length."""
    length = FILLED * recipe.limits.max_length
    # Two per weight; and per layer two products of each query with the keys before it, half of all on average.
    trunks = [2 * each.matrices + 2 * each.layers * each.attention * length for each in (policy, critic)]
    head = OWN * 2 * policy.width * policy.vocabulary
    of_policy, of_critic = trunks[0] + head, trunks[1]
    again = 1 if recipe.model.gradient_checkpointing else 0
    backward = 1 if recipe.model.lora_rank else 2  # frozen weights get no gradient
    update = (1 + again + backward) * (of_policy + of_critic)
    advantages = 2 * of_policy + of_critic  # under policy and reference
    tokens = length * recipe.schedule.rollout_batch_size
    return tokens * (recipe.ppo.num_ppo_epochs * update + advantages)


def _rollout_seconds(recipe: Recipe, policy: _Sizes) -> float:
    """Count steps, each of which reads all weights, as if every turn were as long as it may be."""
    steps = (recipe.limits.max_turns + 1) * recipe.limits.max_new_tokens
    number = _HALF if recipe.bf16 else _FULL
    step = max(STEP["vLLM" if recipe.vllm else "transformers"], number * policy.read / (recipe.hardware.tb_s * 1e12))
    return steps * step
