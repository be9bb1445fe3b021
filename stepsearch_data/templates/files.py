"""Templates as text files: a line `=== part ===` opens each part; what cannot work is refused."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.files import read_text
from stepsearch_data.templates.template import PLACEHOLDER, Template

TEMPLATES = ("musique", "paper", "tools")

_PART = re.compile(r"^=== (\w+) ===[ \t]*\n", re.MULTILINE)
# What a part may name, and what it has to.
_KNOWN: dict[str, tuple[set[str], set[str]]] = {
    "system": (set(), set()),
    "user": ({"question"}, {"question"}),
    "start": ({"question", "hops", "sub_question", "query"}, {"query"}),
    "next": ({"question", "hops", "found", "sub_question", "query"}, {"query"}),
    "again": ({"question", "hops", "sub_question", "query"}, {"query"}),
    "last": ({"question", "hops", "found", "answer"}, {"answer"}),
    "abstain": ({"question", "hops", "answer"}, {"answer"}),
    "information": ({"documents"}, {"documents"}),
    "document": ({"rank", "title", "text"}, {"text"}),
    "tool": (set(), set()),
    "open": (set(), set()),
    "find": (set(), set()),
}
_ARGUMENTS = {"open": ("id", "page"), "find": ("id", "words")}
_OPTIONAL = {"system", "tool", *_ARGUMENTS}


def load_template(name: str) -> Template:
    """Load the template of that name, or the one in the file of that name. Raises ConfigError."""
    if name in TEMPLATES:
        file = resources.files("stepsearch_data") / "templates" / f"{name}.txt"
        return parse(name, file.read_text(encoding="utf-8"))
    try:
        return parse(name, read_text(Path(name)))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"there is no template {name}: {reason}", f"known: {', '.join(TEMPLATES)}, or a file of yours"
        ) from error


def parse(name: str, text: str) -> Template:
    """Parse a template. Raises ConfigError for what it lacks or does not know."""
    before, *pieces = _PART.split(text)
    names = pieces[::2]
    parts = {part: piece.strip("\n") for part, piece in zip(names, pieces[1::2], strict=True)}
    faults = {
        "does not begin with a line === part ===": ["it"] if before.strip() else [],
        "has unknown parts: {}": [part for part in parts if part not in _KNOWN],
        "lacks: {}": [part for part in _KNOWN if part not in parts and part not in _OPTIONAL],
        "has parts twice: {}": [part for part in parts if names.count(part) > 1],
    }
    for fault, which in faults.items():
        if which:
            raise ConfigError(f"template {name} {fault.format(', '.join(which))}", f"the parts are {', '.join(_KNOWN)}")
    for part, piece in parts.items():
        _check(name, part, set(PLACEHOLDER.findall(piece)), calls="tool" in parts)
    template = Template(name, parts)
    _check_tool(template)
    return template


def text_of(template: Template) -> str:
    """Write a template as `parse` reads it."""
    return "\n".join(f"=== {part} ===\n{piece}\n" for part, piece in template.parts.items())


def _check(name: str, part: str, used: set[str], *, calls: bool) -> None:
    known, needed = _KNOWN[part]
    needed = needed - {"query"} if calls else needed
    listed = ", ".join(f"${{{placeholder}}}" for placeholder in sorted((used - known) or (needed - used)))
    if used - known:
        raise ConfigError(f"template {name}: part {part} names unknown placeholders: {listed}")
    if needed - used:
        raise ConfigError(f"template {name}: part {part} lacks {listed}")


def _check_tool(template: Template) -> None:
    try:
        named = template.tool is None or (isinstance(template.tool["name"], str) and bool(template.argument))
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration, RecursionError):
        named = False
    if not named:
        raise ConfigError(
            f"template {template.name}: part tool defines no function",
            "a JSON object with name, description and parameters, the first of which takes the query",
        )
    for part, arguments in _ARGUMENTS.items():
        if part in template.parts and not _defines(template, part, arguments):
            raise ConfigError(
                f"template {template.name}: part {part} does not define a function {part} beside the search",
                f"a JSON object with name, description and parameters: {' and '.join(arguments)}; and a part tool",
            )


def _defines(template: Template, part: str, arguments: tuple[str, ...]) -> bool:
    try:
        function = json.loads(template.parts[part])
        known = set(function["parameters"]["properties"])
        search = template.tool and template.tool["name"]
        return search is not None and function["name"] == part != search and known == set(arguments)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
