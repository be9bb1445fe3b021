"""Where turns and observations end, and what replaces a token that reaches beyond the end of its turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

STOPS = ("</search>", "</answer>")
_OPEN = re.compile(r"<(search|answer)>")

Encode = Callable[[str], list[int]]
Decode = Callable[[Sequence[int]], str]


def cut_at_stop(text: str, stops: Sequence[str] = STOPS) -> str:
    """Return a turn's text up to its first closing tag, or the whole of it."""
    ends = [at + len(stop) for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def close_turn(text: str, *, stopped: bool) -> str:
    """Return what the policy wrote in its turn, of the text that a server gives; `stopped`: it ended by itself.

    Servers leave out the text that they stopped at: the tag that is open is closed again. What a server wrote beyond
    it, where it takes no `stop`, is left out.
    """
    opened = _OPEN.findall(text) if stopped and not any(stop in text for stop in STOPS) else []
    return f"{text}</{opened[-1]}>" if opened else cut_at_stop(text)


def replacement(
    tokens: Sequence[int], encode: Encode, decode: Decode, eos: frozenset[int], stops: Sequence[str] = STOPS
) -> list[int]:
    """Return what replaces the last token of a turn where it reaches beyond the turn's stop; else nothing.

    Byte-level vocabularies have tokens such as `></`, with which a tag ends and another begins.
    """
    *kept, last = tokens or [0]
    if not kept or last in eos:
        return []
    text = decode(tokens)
    end = len(cut_at_stop(text, stops))
    if not text[end:].strip():
        return []
    said = decode(kept)
    return encode(text[len(said) : end]) if text.startswith(said) else []


def cut_observation(shown: str, limit: int, encode: Encode, decode: Decode) -> str:
    """Shorten an observation to so many tokens, the closing tag kept: without it two rounds would read as one."""
    if len(encode(shown)) <= limit:
        return shown
    body, tag, after = shown.rpartition("</information>")
    if not tag:
        return decode(encode(shown)[:limit])
    keep = max(0, limit - len(encode(tag + after)) - 1)
    return f"{decode(encode(body)[:keep])} {tag}{after}"
