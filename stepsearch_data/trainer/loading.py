"""Policies, critics and tokenizers from folders or the Hub."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.causal_lm import trunk_of
from stepsearch_data.trainer.chat import ChatFormat
from stepsearch_data.trainer.config import CHAT, Chat, Limits
from stepsearch_data.trainer.forms import Form, TagMessages, Tags, ToolCalls
from stepsearch_data.trainer.model import Critic
from stepsearch_data.trainer.recipe import MAIN, Model, Recipe
from stepsearch_data.trainer.sampler import end_tokens
from stepsearch_data.trainer.search_env import SearchEnv
from stepsearch_data.trainer.stops import Encode

_NEW_NAME = "activation_checkpointing"  # transformers has renamed its options and methods of that
CHECKPOINTING = _NEW_NAME if hasattr(PreTrainedModel, f"{_NEW_NAME}_enable") else "gradient_checkpointing"


def load_policy(location: str, recipe: Recipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the policy of a folder or the Hub, with new LoRA adapters where wanted, and its tokenizer.

    Raises TrainError.
    """
    policy, revision = _load(AutoModelForCausalLM, location, **_options(location, recipe)), _revision(location, recipe)
    return _prepared(policy, recipe.model, revision, "CAUSAL_LM"), load_tokenizer(location, revision)


def load_critic(location: str, recipe: Recipe) -> Critic:
    """Load a critic: the trunk of the model of this location, with a value head of its own. Raises TrainError."""
    torch.manual_seed(recipe.schedule.seed)
    model = _load(AutoModelForCausalLM, location, **_options(location, recipe))
    return Critic(_prepared(trunk_of(model), recipe.model, _revision(location, recipe)))


def load_model(location: str, revision: str = MAIN) -> PreTrainedModel:
    """Load a language model as it was saved, or the base of an adapter with it. Raises TrainError.

    `revision` is that of a model on the Hub; of an adapter in a folder, that of its base.
    """
    return _load(AutoModelForCausalLM, location, dtype="auto", revision=revision)


def load_config(location: str, recipe: Recipe) -> PreTrainedConfig:
    """Load the configuration of a model, without its weights. Raises TrainError."""
    found: PreTrainedConfig = _load(AutoConfig, location, revision=_revision(location, recipe))
    return found


def load_merged(base: str, adapter: str) -> PreTrainedModel:
    """Load an adapter, merged into its base. Raises TrainError."""
    from peft import PeftModel

    model = load_model(base)
    with _renamed_checkpointing():
        merged: PreTrainedModel = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return merged


def load_tokenizer(location: str, revision: str = MAIN) -> PreTrainedTokenizerBase:
    """Load a tokenizer that can pad. Raises TrainError."""
    tokenizer: PreTrainedTokenizerBase = _load(AutoTokenizer, location, revision=revision)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def make_search_env(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    limits: Limits,
    chat: Chat = CHAT,
) -> SearchEnv:
    """Make the rules of an episode for a model's tokenizer. Raises ConfigError for a form that it does not have."""
    encode, _ = encoders(tokenizer, chat)

    def decode(tokens: Sequence[int]) -> str:
        # Llama 3 asks for a clean-up that takes spaces away: rewards would read another text than was written.
        text: str = tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
        return text

    return SearchEnv(
        template, limits, encode, decode, end_tokens(policy, tokenizer), make_form(tokenizer, template, chat)
    )


def make_form(tokenizer: PreTrainedTokenizerBase, template: Template, chat: Chat) -> Form:
    """Make the form of an episode: calls where the template has a tool, else tags.

    Raises ConfigError where it needs a chat template that the tokenizer does not have.
    """
    encode, encode_prompt = encoders(tokenizer, chat)
    if not template.tool and not chat.turns:
        return Tags(encode, encode_prompt)
    if not chat.template or not tokenizer.chat_template:
        what = f"the template {template.name} calls a tool" if template.tool else "model.chat_turns is set"
        raise ConfigError(f"{what}, but the model has no chat template", "an instruct model, or tags in one text")
    conversation = ChatFormat(tokenizer, chat.variables)
    if template.tool:
        return ToolCalls(template, encode, conversation)
    return TagMessages(encode, encode_prompt, conversation)


def encoders(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[Encode, Encode]:
    """Return how texts become tokens, and how prompts do."""

    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return found

    def encode_chat(text: str) -> list[int]:
        return encode(ChatFormat(tokenizer, chat.variables).prompt([{"role": "user", "content": text}]))

    def encode_plain(text: str) -> list[int]:
        tokens, whole = encode(text), list(tokenizer.encode(text))
        starts_with_bos = whole[:1] == [tokenizer.bos_token_id] != tokens[:1]
        return [*whole[:1], *tokens] if starts_with_bos else tokens

    return encode, encode_chat if chat.template and tokenizer.chat_template else encode_plain


def _freeze_unread(model: PreTrainedModel) -> list[str]:
    """Freeze the linear layers and all else that reads no text, as Gemma 3's vision tower; name these linear layers.

    No gradient reaches them, and DDP would wait for it.
    """
    trunk = trunk_of(model)
    text = set(trunk.parameters())
    for parameter in model.base_model.parameters():
        parameter.requires_grad_(parameter in text)
    read = set(trunk.modules())
    layers = model.base_model.named_modules()
    return [name for name, layer in layers if isinstance(layer, nn.Linear) and layer not in read]


def _load(kind: Any, location: str, **options: Any) -> Any:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(location, **options)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TrainError(
            f"cannot load {location}: {reason}", "is it a causal language model with its tokenizer?"
        ) from error


def _options(location: str, recipe: Recipe) -> dict[str, Any]:
    """Return the options to load a model with.

    Weights that are trained are float32: at learning rates of 1e-6, updates of bfloat16 would be rounded away.
    """
    dtype = torch.bfloat16 if recipe.bf16 and recipe.model.lora_rank else torch.float32
    attention = recipe.model.attn_implementation
    return {"dtype": dtype, "attn_implementation": attention, "revision": _revision(location, recipe)}


def _revision(location: str, recipe: Recipe) -> str:
    return recipe.model.revision if location == recipe.model.path else MAIN


@contextmanager
def _renamed_checkpointing() -> Iterator[None]:
    """Let peft ask for checkpointing by a name that transformers deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _prepared(model: PreTrainedModel, config: Model, revision: str, task: str | None = None) -> PreTrainedModel:
    unread = _freeze_unread(model)
    if config.lora_rank:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules="all-linear",
            exclude_modules=unread or None,
            task_type=task,
        )
        with _renamed_checkpointing():
            model = get_peft_model(model, lora, revision=revision)  # a published adapter tells of its base
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if config.gradient_checkpointing:
        getattr(model, f"{CHECKPOINTING}_enable")()
    return model
