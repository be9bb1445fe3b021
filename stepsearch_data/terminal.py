"""What data may do to a terminal: be read, and nothing else."""

from __future__ import annotations

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """The text with control characters written out, as a title bar or the clipboard could be set by them."""
    return text.translate(_CONTROLS)
