"""Characters in place of tokens, for rules that are played without a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stepsearch_data.trainer.config import Limits

END = -1
"""Stands for the end of text."""
A_TOKEN = 4
"""Characters of English prose, as a rule of thumb."""


def encode(text: str) -> list[int]:
    """Return the code point of each character."""
    return [ord(character) for character in text]


def decode(characters: Sequence[int]) -> str:
    """Return the text that was given to `encode`."""
    return "".join(map(chr, characters))


def in_characters(limits: Limits) -> Limits:
    """Return the same lengths where characters stand for tokens."""
    return replace(
        limits,
        max_length=limits.max_length * A_TOKEN,
        max_new_tokens=limits.max_new_tokens * A_TOKEN,
        max_obs_length=limits.max_obs_length * A_TOKEN,
    )
