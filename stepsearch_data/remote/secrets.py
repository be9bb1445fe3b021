"""What may be shown of keys and addresses: nothing of a key, and of an address only where it leads."""

from __future__ import annotations

import base64
import binascii
import hashlib
import html
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from urllib.parse import unquote, urlsplit

from stepsearch_data.core.errors import ConfigError

HIDDEN = "***"
CUSTOM_HEADERS = "OPENAI_CUSTOM_HEADERS"
"""The variable that holds more headers for a model's server, one per line."""
_URL = re.compile(r"""(?:[A-Za-z][A-Za-z0-9+.-]{0,20}://|https?:/)[^\s"'<>`\\{}|^]+""")  # a Path makes one slash of two
_VARIABLE = re.compile(r"_(API_KEY|TOKEN)$")  # of the environment, that holds a secret
_LIKE_A_KEY = re.compile(r"\b(?:sk|hf|key)[-_](?=[A-Za-z0-9_\-*]{0,200}[\d*])[A-Za-z0-9_\-*]{8,}")
_TOKEN = re.compile(r"""[^\s"'<>,;:(){}\[\]]+""")
_MASK = r"(?:\*\*|•|…|\.\.|xxxx)"
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_STANDARD = str.maketrans("-_", "+/")  # of base64's two alphabets
_HEADER = re.compile(r"[!-~]+")
_HEADERS = re.compile(r"(?:[!-9;-~]+ *:[ -~]*|\s*)")
_SECRET_HEADER = re.compile(r"(?im)^[^:\n]*(?:key|token|auth|secret|cookie)[^:\n]*:.*?(\S+)\s*$")
_SHORTEST = 4  # characters of a secret that can be told from a word
SURELY = 12  # the same, wherever it stands
_TELLING = 6  # characters in a row that give a secret away
_MASKED = 2  # the same beside a mask, as in `sk-…abcd`
_LONGEST_START = 64  # that is looked for beside a mask; a longer one has a telling part
_SEGMENT = 24  # characters of a part of a path that may be shown whole
_SHOWN = 4


def find_key(variable: str) -> str:
    """Return the key in an environment variable, or an empty text. Raises ConfigError for what no header can hold."""
    key = os.environ.get(variable, "").strip()
    if key and not _HEADER.fullmatch(key):
        raise ConfigError(f"{variable} has characters that no header can hold", f"set {variable} to a valid key")
    return key


def check_address(setting: str, url: str) -> None:
    """Raise ConfigError for a URL that holds more than an address, without repeating it: that may be a secret."""
    if any(mark in url for mark in "@?#"):
        raise ConfigError(
            f"{setting} holds a user, a password or parameters",
            "give scheme, host, port and path alone; keys come from the environment",
        )


def check_hub() -> None:
    """Raise ConfigError where HF_ENDPOINT is not a URL: the Hub's client would print it when it is imported."""
    try:
        urlsplit(os.environ.get("HF_ENDPOINT", "")).port  # noqa: B018 - it is read here
    except ValueError:
        raise ConfigError("HF_ENDPOINT is not a URL", "unset it, or set one such as https://huggingface.co") from None


def check_no_key(setting: str, value: object) -> None:
    """Raise ConfigError for a setting that holds a key: it would be written into the store."""
    if _holds_key(str(value)):
        raise ConfigError(f"{setting} holds a key", "keys come from the environment alone")


def check_headers() -> None:
    """Raise ConfigError where OPENAI_CUSTOM_HEADERS holds a line that is not a header."""
    if not all(map(_HEADERS.fullmatch, os.environ.get(CUSTOM_HEADERS, "").split("\n"))):
        raise ConfigError(f"{CUSTOM_HEADERS} holds a line that is not a header", "write one per line: NAME: VALUE")


def known_secrets() -> list[str]:
    """Return the keys and tokens that the environment holds, those in OPENAI_CUSTOM_HEADERS too."""
    values = [value.strip() for name, value in os.environ.items() if _VARIABLE.search(name)]
    values += _SECRET_HEADER.findall(os.environ.get(CUSTOM_HEADERS, ""))
    return [value for value in values if len(value) >= _SHORTEST]


def show_url(url: str) -> str:
    """Return a URL without user, password, parameters and fragment; long parts of its path become digests."""
    before, mark, after = re.split("[?#]", url)[0].partition("://")
    scheme, rest = (before.lower(), after) if mark else ("", before)
    place, slash, path = rest.rpartition("@")[2].partition("/")  # a password may hold a slash
    shown = f"{scheme}{mark}{place if mark else _shortened(place)}{slash}{_shortened(path)}"
    with suppress(ValueError):
        urlsplit(shown)
        return shown
    return HIDDEN


def is_open(text: str) -> bool:
    """Tell whether a setting holds no key of the environment, and no URL of which `show_url` would hide a part."""
    is_shown = "://" not in text or show_url(text).lower() == text.lower()
    return is_shown and not _holds_key(text)


def _holds_key(text: str) -> bool:
    return any(len(secret) >= SURELY and secret in text for secret in known_secrets())


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Remove our secrets, however they are spelt, and what looks like a key from a text that may be a stranger's.

    Our secrets are `secrets` and those of the environment. URLs are shown as `show_url` does.
    """
    kept = {secret for secret in map(str.strip, (*secrets, *known_secrets())) if len(secret) >= _SHORTEST}
    for decode in (unquote, html.unescape, _unescaped):  # `%2D`, `&#45;` and `\u002d` are dashes
        decoded = decode(text)
        if any(secret.lower() in decoded.lower() for secret in kept):
            text = decoded
    for secret in sorted(kept, key=len, reverse=True):
        text = re.sub(re.escape(secret), HIDDEN, text, flags=re.IGNORECASE)
    text = _URL.sub(lambda found: show_url(found[0]), text)
    telling = [_telling(secret) for secret in kept]

    def hide(word: re.Match[str]) -> str:
        return HIDDEN if any(pattern.search(view) for view in _views(word[0]) for pattern in telling) else word[0]

    return _LIKE_A_KEY.sub(HIDDEN, _TOKEN.sub(hide, text))


def _shortened(path: str) -> str:
    return "/".join(
        part if len(part) <= _SEGMENT else f"{part[:_SHOWN]}…{hashlib.sha256(part.encode()).hexdigest()[:8]}"
        for part in path.split("/")
    )


def _unescaped(text: str) -> str:
    r"""Resolve the escapes of JSON in a text, such as `\/` and `\u0041`."""
    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)


@cache
def _telling(secret: str) -> re.Pattern[str]:
    """Return a pattern of what gives a secret away: its parts, and its start or its end beside a mask.

    Parts that are words do not count, unless the secret is all letters.
    """
    pieces = {secret[at : at + _TELLING] for at in range(max(1, len(secret) - _TELLING + 1))}
    parts = map(re.escape, sorted(piece for piece in pieces if secret.isalpha() or not piece.isalpha()))
    sizes = range(_MASKED, min(len(secret), _LONGEST_START))
    starts = "|".join(re.escape(secret[:size]) for size in sizes)
    ends = "|".join(re.escape(secret[-size:]) for size in sizes)
    return re.compile("|".join([*parts, f"(?:{starts}){_MASK}", f"{_MASK}(?:{ends})"]), re.IGNORECASE)


def _views(word: str) -> Iterator[str]:
    """Yield a word and what it may encode: as hexadecimal, or as base64 from any of its characters on."""
    yield word
    for run in _ENCODED.findall(word):
        with suppress(ValueError):
            yield bytes.fromhex(run).decode("latin-1")
        for skipped in range(4):
            part = run[skipped:].translate(_STANDARD)
            with suppress(binascii.Error):
                yield base64.b64decode(part[: len(part) - len(part) % 4]).decode("latin-1")
