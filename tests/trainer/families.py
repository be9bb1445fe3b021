"""The models that recipes name, tiny: their own configurations with small sizes, tokenizers of their kind, templates.

Configurations (`configs/`) are those of the published models, whose numbers of parameters test_recipe holds them to.
Chat templates are the published ones, which TRL ships. Vocabularies are learnt from a few texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModelForCausalLM,
    GemmaTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

CONFIGS = Path(__file__).with_name("configs")
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,  # so that random weights do not write the same at each place
}
# Of the sliding window's pattern, one layer with and one without; texts are longer than the window.
SMALL_GEMMA = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "query_pre_attn_scalar": 8}
SMALL_VISION = {
    "image_size": 28,
    "num_attention_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_QWEN_ADDED = ["<tool_call>", "</tool_call>"]
_QWEN_3_ADDED = ["<tool_response>", "</tool_response>", "<think>", "</think>"]


@dataclass(frozen=True)
class Family:
    """A recipe's model: its tokenizer's kind, its template in TRL, and with what it ends, base and instruct."""

    recipe: str
    kind: str
    template: str
    base_end: str
    instruct_end: str
    turn_end: str
    base_chats: bool
    """Whether the base model's tokenizer has the chat template too."""


FAMILIES = [
    Family("qwen2.5-3b", "qwen", "qwen2_5", "<|endoftext|>", "<|im_end|>", "<|im_end|>", base_chats=True),
    Family("qwen2.5-7b", "qwen", "qwen2_5", "<|endoftext|>", "<|im_end|>", "<|im_end|>", base_chats=True),
    Family("qwen3-4b", "qwen3", "qwen3", "<|endoftext|>", "<|im_end|>", "<|im_end|>", base_chats=True),
    Family("llama-3.2-3b", "llama3", "llama3_2", "<|end_of_text|>", "<|eot_id|>", "<|eot_id|>", base_chats=False),
    Family("gemma-3-4b", "gemma", "gemma3", "<eos>", "<eos>", "<end_of_turn>", base_chats=False),
]


def named(recipe: str) -> Family:
    """The family of a recipe."""
    return next(family for family in FAMILIES if family.recipe == recipe)


def chat_template(name: str) -> str:
    """A published chat template."""
    return (resources.files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def config_of(name: str, **sizes: Any) -> Any:
    """The configuration of a published model, with other sizes where given."""
    values = json.loads((CONFIGS / f"{name}.json").read_text())
    if "text_config" in values and sizes:
        values["text_config"] |= {**sizes, **SMALL_GEMMA}
        values["text_config"].pop("sliding_window_pattern")
        values["vision_config"] |= SMALL_VISION
        values |= {"mm_tokens_per_image": 4, "initializer_range": SMALL["initializer_range"]}
        ends = {}
    else:
        ends = {"bos_token_id": None, "eos_token_id": None} if sizes else {}
        values |= sizes
    return AutoConfig.for_model(values.pop("model_type"), **{**values, **ends})


def save_tiny(family: Family, texts: Iterable[str], folder: Path, *, instruct: bool) -> None:
    """Save a model of random weights and its tokenizer, as published ones are."""
    tokenizer = make_tokenizer(family, list(texts), instruct=instruct)
    config = config_of(family.recipe, **SMALL, vocab_size=len(tokenizer))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    names = {family.turn_end, family.base_end} if instruct or family.kind == "gemma" else {family.base_end}
    ends = sorted(tokenizer.convert_tokens_to_ids(name) for name in names)
    model.generation_config = GenerationConfig(eos_token_id=ends, do_sample=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer(family: Family, texts: Sequence[str], *, instruct: bool) -> Any:
    """A tokenizer of the family's kind."""
    end = family.instruct_end if instruct else family.base_end
    chat = chat_template(family.template) if instruct or family.base_chats else None
    return _KINDS[family.kind](texts, end, chat)


def _qwen(texts: Sequence[str], end: str, chat: str | None, added: Sequence[str] = _QWEN_ADDED) -> Any:
    vocabulary, merges = _bpe(Qwen2Tokenizer().backend_tokenizer, texts)
    made = Qwen2Tokenizer(vocab=vocabulary, merges=merges, eos_token=end, chat_template=chat)
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in _QWEN_SPECIAL])
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return made


def _qwen3(texts: Sequence[str], end: str, chat: str | None) -> Any:
    return _qwen(texts, end, chat, [*_QWEN_ADDED, *_QWEN_3_ADDED])


def _llama3(texts: Sequence[str], end: str, chat: str | None) -> Any:
    made = Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    vocabulary, merges = _bpe(made, texts)
    made.model = models.BPE(vocabulary, merges, ignore_merges=True)
    names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eom_id", "eot_id")
    special = [f"<|{name}|>" for name in names]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    bos = (special[0], made.token_to_id(special[0]))
    made.post_processor = processors.TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=bos[0], eos_token=end, chat_template=chat, clean_up_tokenization_spaces=True
    )


def _gemma(texts: Sequence[str], end: str, chat: str | None) -> Any:
    """As SentencePiece: spaces are `▁`, and what is in no piece is written in bytes."""
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    turns = ["<start_of_turn>", "<end_of_turn>"]
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    plain = ["".join(character for character in text if character.isascii()) for text in texts]
    vocabulary, merges = _bpe(GemmaTokenizer().backend_tokenizer, plain, [*first, *turns, *letters], alphabet=[])
    made = GemmaTokenizer(vocab=vocabulary, merges=merges, eos_token=end, chat_template=chat, add_bos_token=True)
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in turns])
    return made


_KINDS = {"qwen": _qwen, "qwen3": _qwen3, "llama3": _llama3, "gemma": _gemma}


def _bpe(
    like: Tokenizer, texts: Sequence[str], first: Sequence[str] = (), alphabet: Sequence[str] | None = None
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and merges, learnt as another tokenizer cuts texts."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = like.normalizer
    learner.pre_tokenizer = like.pre_tokenizer
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=list(first),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet is None else list(alphabet),
            show_progress=False,
        ),
    )
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]
