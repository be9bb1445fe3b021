"""Conversations as a tokenizer's chat template writes them: the prompt, and what follows a turn of the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from stepsearch_data.core.errors import TrainError

_MARK = "\ue000"  # for private use: in no text
Message = Mapping[str, Any]


class ChatFormat:
    """Writes messages by the chat template of a tokenizer, which has one. `options` are variables of the template.

    Raises TrainError where the template refuses messages.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
        self._tokenizer, self._options = tokenizer, dict(options)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """Write the messages that open a conversation, up to where the policy begins its first."""
        return self._write(messages, tools=tools, add_generation_prompt=True)

    def after(self, message: Message) -> str:
        """Write what follows a message of the model: its end, another message, and the beginning of the model's next.

        It is part of a whole conversation, as a template may write a message by its place.
        """
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}, message]
        return self._write(messages, add_generation_prompt=True).partition(_MARK)[2]

    def call(self, name: str, argument: str) -> str:
        """Write a message of the model that calls a function, with all that stands before it."""
        function = {"name": name, "arguments": {argument: "?"}}
        calling = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
        return self._write([{"role": "user", "content": "?"}, calling])

    @cached_property
    def turn_end(self) -> int | None:
        """Return the special token that ends a message of the model; None where the template has none."""
        written = self._write([{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}])
        tokens = self._tokenizer.encode(written.rpartition(_MARK)[2], add_special_tokens=False)
        return tokens[0] if tokens and tokens[0] in self._tokenizer.added_tokens_decoder else None

    def _write(self, messages: Sequence[Message], **options: Any) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(list(messages), tokenize=False, **{**self._options, **options})
            )
        except TemplateError as error:
            raise TrainError(
                f"the chat template of {self._tokenizer.name_or_path} refuses: {error}",
                "model.chat_template = false writes prompts without it",
            ) from error


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that ends a model's message in a tokenizer's chat template, if there are both.

    Where the template refuses messages there is none: prompts may be written without it.
    """
    if not tokenizer.chat_template:
        return None
    try:
        return ChatFormat(tokenizer, {}).turn_end
    except TrainError:
        return None
