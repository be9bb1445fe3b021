"""What a browser would find in a report: its elements, and the data in them."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class _Parser(HTMLParser):
    found: list[Element] = field(default_factory=list)
    inside: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(Element(tag, dict(attrs)))
        self.inside = True

    def handle_endtag(self, _: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1].text += data


def elements(text: str) -> list[Element]:
    parser = _Parser()
    parser.feed(text)
    parser.close()
    return parser.found


@dataclass
class Report:
    """A report's page, and the data that it shows."""

    text: str
    mode: str
    summary: Any
    index: Any
    comparison: Any
    texts: Any
    parts: Any
    records: list[Any]


def read(page: Path) -> Report:
    """The report of this page, with the scripts beside it."""
    text = page.read_text(encoding="utf-8")
    data = {element.attributes["id"]: element.text for element in elements(text) if element.attributes.get("id")}
    beside = [re.fullmatch(r'stepsearchChunk\("([^"]+)", "([^"]+)"\);\n', path.read_text()) for path in chunks(page)]
    whole = data | {match[1]: match[2] for match in beside if match}
    numbers = sorted(int(name.removeprefix("chunk-")) for name in whole if name and name.startswith("chunk-"))
    return Report(
        text,
        json.loads(data["mode"])["mode"],
        json.loads(data["summary"]),
        unpack(data["index"]),
        unpack(data["comparison"]) if "comparison" in data else None,
        unpack(whole["texts"]),
        unpack(whole["parts"]),
        [record for number in numbers for record in unpack(whole[f"chunk-{number}"])],
    )


def chunks(page: Path) -> list[Path]:
    return sorted((page.parent / "chunks").glob("*")) if page.name == "index.html" else []


def unpack(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))
