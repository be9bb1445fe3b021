"""Texts of data made safe for a terminal."""

from __future__ import annotations

from stepsearch_data.core.validation import shortened

_LONGEST = 600  # characters of a line that says what is wrong
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """Write out control characters, which could set a window's title or the clipboard."""
    return text.translate(_CONTROLS)


def readable(text: str) -> str:
    """Return the text as a message: visible, and each line that is too long cut in its middle."""
    return "\n".join(shortened(line, _LONGEST) for line in visible(text).split("\n"))
