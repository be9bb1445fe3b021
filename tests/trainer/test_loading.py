"""How prompts become tokens: through the chat template, or after the token that begins a text."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: make test-train")

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from stepsearch_data.trainer.config import Chat
from stepsearch_data.trainer.loading import encoders

WORDS = {word: at for at, word in enumerate(["<unk>", "<bos>", "<eos>", "<user>", "<model>", "who", "wrote", "Tosca"])}
CHAT = (
    "{{ bos_token }} <user> {% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} <model>{% endif %}"
)


def tokenizer(*, bos: bool = False, eos: bool = False, chat: bool = False) -> Any:
    """A tokenizer of words, which adds special tokens as Gemma's, Llama's or T5's do."""
    made = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single = f"{'<bos> ' if bos else ''}$A{' <eos>' if eos else ''}"
    special = [(token, WORDS[token]) for token in ("<bos>", "<eos>")]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", chat_template=CHAT if chat else None
    )


def prompt(made: Any, *, chat: bool = True) -> list[str]:
    _, encode_prompt = encoders(made, Chat(template=chat))
    return list(made.convert_ids_to_tokens(encode_prompt("who wrote Tosca")))


def test_a_prompt_is_the_users_message_where_there_is_a_chat_template() -> None:
    assert prompt(tokenizer(bos=True, chat=True)) == ["<bos>", "<user>", "who", "wrote", "Tosca", "<model>"]


@pytest.mark.parametrize("eos", [False, True])
def test_a_prompt_begins_as_texts_of_the_model_do(eos: bool) -> None:
    assert prompt(tokenizer(bos=True, eos=eos)) == ["<bos>", "who", "wrote", "Tosca"]
    assert prompt(tokenizer(bos=True, eos=eos, chat=True), chat=False) == ["<bos>", "who", "wrote", "Tosca"]
    assert prompt(tokenizer(eos=eos)) == ["who", "wrote", "Tosca"]


def test_what_follows_the_prompt_has_no_special_tokens() -> None:
    made = tokenizer(bos=True, eos=True, chat=True)
    encode, _ = encoders(made, Chat())
    assert made.convert_ids_to_tokens(encode("who wrote")) == ["who", "wrote"]
