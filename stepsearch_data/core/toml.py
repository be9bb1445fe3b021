"""TOML that a user writes: run files, recipes, and values on the command line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.files import read_text
from stepsearch_data.core.validation import shortened

_DEEPEST = 20
_INTEGERS = range(-(1 << 63), 1 << 63)  # what JSON and Arrow can hold


def read_toml(file: Path, what: str, hint: str) -> dict[str, Any]:
    """Read the tables of a file, which is a `what`. Raises ConfigError, with the hint where it cannot be read."""
    try:
        text = read_text(file)
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {file}: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: it is not UTF-8 text") from error
    try:
        data = tomllib.loads(text)
        _check("", data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid TOML: {_reason(error)}") from error
    return data


def parse_value(key: str, text: str) -> Any:
    """Parse a TOML value; other text is a string, which needs no quotes. Raises ConfigError, naming the key."""
    try:
        text.encode()
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except UnicodeEncodeError as error:  # JSON cannot hold it
        raise ConfigError(f"{shortened(key)}: the value is not valid UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{shortened(key)}: {_reason(error)}") from error
    try:
        _check(key, value)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return value


def write_value(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{write_value(name)} = {write_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(write_value(item) for item in value) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def _check(place: str, value: Any, depth: int = 0) -> None:
    """Raise ValueError for what TOML can say and nobody can use."""
    if depth > _DEEPEST:
        raise ValueError(f"{shortened(place)} is nested too deep")
    if isinstance(value, int) and value not in _INTEGERS:
        raise ValueError(f"{place} is a number of more than 64 bits")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{place} holds a NUL")
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value, start=1):
            _check(f"{place}.{key}" if place else str(key), inner, depth + 1)


def _reason(error: Exception) -> str:
    """Return the reason, in our own words where Python names its limits."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return "a number in it has thousands of digits" if "digits" in str(error) else shortened(str(error))
