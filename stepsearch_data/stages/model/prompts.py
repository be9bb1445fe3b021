"""Prompts as text files: a system part, a line `=== user ===`, a user part, and `${placeholders}` in both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.files import read_text
from stepsearch_data.llm.chat import Message

PROMPTS = ("decompose", "queries", "judge", "recall", "read", "unique", "same", "compose", "compare")

_USER_PART = re.compile(r"^=== user ===[ \t]*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Prompt:
    """A prompt's text. Without the line `=== user ===` all of it is the user part."""

    name: str
    text: str

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """Return the names of the prompt's placeholders."""
        return frozenset(_PLACEHOLDER.findall(self.text))

    def render(self, **values: str) -> tuple[Message, ...]:
        """Fill the placeholders and return the first messages. Braces, `$` and markers in values stay as they are."""
        parts = [part.strip() for part in _USER_PART.split(self.text, maxsplit=1)]
        roles = ("system", "user")[-len(parts) :]
        return tuple(
            Message(role, _PLACEHOLDER.sub(lambda match: values[match[1]], part))
            for role, part in zip(roles, parts, strict=True)
            if part
        )


def load_prompt(name: str, override: Path | None = None) -> Prompt:
    """Load the prompt of that name, or the user's file in its place. Raises ConfigError."""
    if name not in PROMPTS:
        raise ConfigError(f"there is no prompt {name!r}", f"known: {', '.join(PROMPTS)}")
    file = resources.files("stepsearch_data") / "stages" / "prompts" / f"{name}.txt"
    ours = Prompt(name, file.read_text(encoding="utf-8"))
    if override is None:
        return ours
    prompt = Prompt(name, _read(name, override))
    _check(prompt, override, ours.placeholders)
    return prompt


def _read(name: str, path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        ours = f"--set prompts.{name}=default takes ours"
        raise ConfigError(f"prompt {name}: cannot read {path}: {error.strerror}", ours) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"prompt {name}: {path} is not UTF-8 text") from error


def _check(prompt: Prompt, path: Path, known: frozenset[str]) -> None:
    hint = f"known: {_listed(known)}"
    unknown = prompt.placeholders - known
    if unknown:
        raise ConfigError(f"prompt {prompt.name}: {path} names unknown placeholders: {_listed(unknown)}", hint)
    if not prompt.placeholders:
        raise ConfigError(f"prompt {prompt.name}: {path} names no placeholder, so every row would ask the same", hint)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f"${{{name}}}" for name in sorted(names))
