"""What data may do to a terminal: be read, and nothing else."""

from __future__ import annotations

from stepsearch_data.core.validation import shortened

_LONGEST = 600  # characters of a line that says what is wrong
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """The text with control characters written out, as a title bar or the clipboard could be set by them."""
    return text.translate(_CONTROLS)


def readable(text: str) -> str:
    """The text as a message: visible, and each line cut in its middle where it is too long to be read."""
    return "\n".join(shortened(line, _LONGEST) for line in visible(text).split("\n"))
