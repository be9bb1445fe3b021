"""A language model small enough for two cores: a real architecture from scratch, its tokenizer a world's words."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

_PAD, _UNKNOWN, _END = "<pad>", "<unk>", "<end>"
_PIECES = r"Doc \d+<## Title:| ##>|\s?</?\w+>\n?| ?[^\s<>.,?#():]+| ?[.,?#():<>]+|\s"
"""What a token is: a document's label, a tag with the white space around it, a word with the space before it,
punctuation, or what is left. In sequence they are the text, letter for letter."""


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer with a token for each word of the texts."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(
        texts, trainers.WordLevelTrainer(vocab_size=50_000, special_tokens=[_PAD, _UNKNOWN, _END], show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        eos_token=_END,
        clean_up_tokenization_spaces=False,
    )


def make_model(
    tokenizer: PreTrainedTokenizerFast, *, width: int = 64, layers: int = 3, seed: int = 0
) -> PreTrainedModel:
    """Make a Llama of so many layers with random weights.

    Of the families that load anywhere, it has the least to compute.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model
