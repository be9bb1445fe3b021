"""A user's documents, without questions: `mine` finds in them what questions can be made of (docs/mine.md)."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

from stepsearch_data.core.errors import RowRejected, SourceError
from stepsearch_data.core.files import digest_of_file, read_text
from stepsearch_data.sources import CORPUS
from stepsearch_data.sources.dataset import Dataset
from stepsearch_data.sources.files import LONGEST_ROW, Broken
from stepsearch_data.sources.passages import identity_of, title_and_text
from stepsearch_data.sources.record import Loaded, Record, fields_of, paragraph

TEXTS = (".md", ".markdown", ".txt")
"""Endings of files that are a document each."""
_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_TITLE = re.compile(r"^title:[ \t]*['\"]?(.+?)['\"]?[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*(?:\n\s*|\Z)", re.MULTILINE)
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]|\n]+)\]\]")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\n]*\)")
_BREAKS = tuple(map(re.compile, (r"\n\s*\n", r"[.!?…][\"'”’)\]]*\s+|[。！？]", r"\n", r"\s+")))  # the best one first


def is_text(path: Path) -> bool:
    """Tell whether it is a folder of documents, or a file that is one."""
    return path.is_dir() or path.suffix.lower() in TEXTS


def texts(path: Path) -> Iterator[dict[str, str] | Broken]:
    """Yield the documents of a folder, or the one of a file, in the order of their paths. Raises SourceError."""
    found = _files(path)
    if not found:
        raise SourceError(f"{path} holds no document", f"a folder's documents end in {', '.join(TEXTS)}")
    for file in found:
        name = _name(file, path)
        try:
            text = read_text(file, LONGEST_ROW)
        except UnicodeDecodeError as error:
            yield Broken(error.object[:1000], f"{name} is not UTF-8")
        except OSError as error:
            yield Broken(b"", f"{name} cannot be read: {error.strerror}")
        else:
            title, text = (
                (file.stem.replace("_", " "), text) if file.suffix.lower() == ".txt" else _markdown(file, text)
            )
            yield {"id": name, "title": title, "text": text}


def digest_of_texts(path: Path) -> str:
    """Return what identifies the documents of a folder, or of a file: a SHA-256. Raises OSError."""
    lines = (f"{_name(file, path)} {digest_of_file(file)}\n" for file in _files(path))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _files(path: Path) -> list[Path]:
    """Return the documents of a folder, in any depth, without hidden ones; a file is its own only one."""
    if not path.is_dir():
        return [path]
    files = (file for file in path.rglob("*") if file.suffix.lower() in TEXTS and file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _name(file: Path, folder: Path) -> str:
    name = file.relative_to(folder).as_posix() if file != folder else file.name
    return name.encode(errors="backslashreplace").decode()


def _markdown(file: Path, text: str) -> tuple[str, str]:
    """Return title and plain text: no front matter, no marks of headings, and of a link only what is shown."""
    front = _FRONT.match(text)
    named = _TITLE.search(front[1]) if front else None
    text = text[front.end() :] if front else text
    heading = _HEADING.search(text)
    title = named[1] if named else heading[1] if heading else file.stem.replace("_", " ")
    if heading and heading[1] == title:
        text = text[: heading.start()] + text[heading.end() :]
    plain = _HEADING.sub(r"\1\n", text)  # a heading stays with what follows it
    return title, _LINK.sub(r"\1", _WIKI_LINK.sub(r"\1", plain)).strip()


def cut(text: str, most: int) -> Iterator[str]:
    """Yield passages of about the same length, none longer than `most` characters; a short text stays as it is.

    They end at a blank line where there is one, else at the end of a sentence, of a line or of a word.
    """
    start = 0
    while (rest := len(text) - start) > most:
        aim = rest // math.ceil(rest / most)
        first, last = start + max(1, aim // 2), start + min(most, aim + aim // 4)
        ends = ([found.end() for found in wanted.finditer(text, first, last)] for wanted in _BREAKS)
        end = next((found[-1] for found in ends if found), start + aim)
        if passage := text[start:end].strip():
            yield passage
        start = end
    if passage := text[start:].strip() if start else text:
        yield passage


def parse(record: Record) -> Loaded:
    """Read a document, which `load` cuts into passages. Raises RowRejected, also for a question."""
    row = fields_of(record)
    if "question" in row:
        raise RowRejected("it is a question, not a document: --source jsonl=FILE takes both")
    identity_of(row)  # `load` keeps it
    title, text = title_and_text(row)
    if not text.strip():
        raise RowRejected("it has no text")  # of nothing no passage could be cut, and nobody would know
    return None, [paragraph(title, text)]


DATASET = Dataset(
    name=CORPUS,
    doc="documents of your own, to make questions of",
    parse=parse,
    signatures=(frozenset({"title", "text"}), frozenset({"contents"})),
    suffix="jsonl",
    sample="corpus.sample.jsonl",
    documents=True,
)
