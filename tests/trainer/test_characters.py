"""Characters in place of tokens."""

from __future__ import annotations

from stepsearch_data.trainer.characters import decode, encode, in_characters
from stepsearch_data.trainer.config import Limits


def test_characters_stand_for_tokens_without_loss() -> None:
    text = "Süß\n\U0001f30d </search>"
    assert decode(encode(text)) == text
    assert in_characters(Limits()) == Limits(max_length=4 * 4096, max_new_tokens=2000, max_obs_length=2400)
