"""What is wrong with data that came in, in plain words and one short line."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_MOST = 3  # faults that are shown
_LONGEST = 200  # characters of one
_OURS = "Value error, "  # what pydantic puts before the words of our own validators
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60
_SHORT.maxlevel = 2


def in_words(error: ValidationError, tell: Callable[[ErrorDetails], str] | None = None, most: int = _MOST) -> str:
    """Return the first faults, each as `tell` words it: by default its place and what is wrong there."""
    found = error.errors(include_url=False)
    told = [(tell or fault)(each) for each in found[:most]]
    rest = [f"and {len(found) - most:,} more"] if len(found) > most > 1 else []
    return "; ".join([*told, *rest])


def fault(error: ErrorDetails) -> str:
    """Return one fault: its place and what is wrong there."""
    place, words = place_of(error), words_of(error)
    return f"{place}: {words}" if place else words


def fault_and_value(error: ErrorDetails) -> str:
    """Return one fault of a setting, and what it was set to."""
    return f"{fault(error)} (got {shortened(_SHORT.repr(error['input']), 80)})"


def place_of(error: ErrorDetails) -> str:
    """Return where a fault is, such as `paragraphs.3.title`."""
    return shortened(".".join(str(part) for part in error["loc"]))


def words_of(error: ErrorDetails) -> str:
    """Return what is wrong, without pydantic's own names for it."""
    if error["type"] == "path_type":
        return "Input should be a path"
    if isinstance(error["input"], float) and math.isnan(error["input"]):
        return "Input should be a number"
    return shortened(error["msg"].removeprefix(_OURS))


def shortened(text: str, most: int = _LONGEST) -> str:
    """Return the text, its middle left out where it is long."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def known_names(name: str, known: Iterable[str]) -> str:
    """Return a hint for a name that is not known: the one that is probably meant, or all."""
    names = list(known)
    cutoff = 0.6 if name.isalpha() else 0.5  # k2 is near k1, parquet is not near sharegpt
    close = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(names) or 'none'}"
