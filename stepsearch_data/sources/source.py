"""A source: what `--source KIND=LOCATION` names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from stepsearch_data.core.digest import digest_of_file
from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.sources import files, hub
from stepsearch_data.sources.csv_file import csv_rows
from stepsearch_data.sources.parquet import parquet_rows, without_nulls

KINDS = ("musique", "hotpotqa", "2wiki", "stepsearch", "jsonl")
ASKED = (*KINDS, "qa", "bamboogle")
"""What may be asked and compared with: those of builds, and questions with nothing but answers."""
ALIASES = "id_aliases.json"
_SAMPLES = {"musique": "musique.sample.jsonl", "hotpotqa": "hotpotqa.sample.json"}


@dataclass(frozen=True)
class Record:
    """One row as its source holds it: JSON bytes, or a table's dict; `broken` says why it is neither."""

    position: int
    data: bytes | dict[str, Any]
    broken: str = ""

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The row's fields; none where it is no JSON object."""
        if isinstance(self.data, dict):
            return self.data
        try:
            row = orjson.loads(self.data)
        except orjson.JSONDecodeError:
            return {}
        return row if isinstance(row, dict) else {}


@dataclass(frozen=True)
class Source:
    """A place to read questions from, in the format that its kind names.

    `number` tells several sources of one kind apart; 0 where there is only one. `id_aliases` is 2Wiki's table of
    other names, if it does not lie beside the file.
    """

    kind: str
    location: str
    number: int = 0
    id_aliases: Path | None = None

    @property
    def label(self) -> str:
        """What `rejects.source` calls it: the kind, with a number where a run has several of it."""
        return f"{self.kind}#{self.number}" if self.number else self.kind

    @property
    def is_hub(self) -> bool:
        """Whether the location is a dataset repository."""
        return self.location.startswith("hf:")

    @property
    def path(self) -> Path:
        """The file; the embedded one for the location `sample`."""
        if self.location == "sample":
            return Path(str(resources.files("stepsearch_data") / "data" / _SAMPLES[self.kind]))
        return Path(self.location)

    @property
    def aliases(self) -> Path | None:
        """2Wiki's table of other names of answers: the one that is named, or the official one beside the file."""
        if self.kind != "2wiki" or self.id_aliases or self.is_hub:
            return self.id_aliases
        beside = self.path.with_name(ALIASES)
        return beside if beside.is_file() else None

    @cached_property
    def _dataset(self) -> hub.HubDataset:
        """The dataset repository; kept, so that the rows come from the commit that the digest names."""
        return hub.parse(self.location)

    def digest(self) -> str:
        """What identifies the content: the file's SHA-256, or the repository's commit; and that of its aliases."""
        content = self._dataset.commit() if self.is_hub else _digest(self.path, "check the path after --source")
        return f"{content} {_digest(self.aliases, 'check load.id_aliases')}" if self.aliases else content

    def records(self) -> Iterator[Record]:
        """All rows, streaming. Raises SourceError when the source cannot be read at all."""
        for position, item in enumerate(self._items(), start=1):
            if isinstance(item, files.Broken):
                yield Record(position, item.raw, item.reason)
            elif item != b"":  # a blank line
                yield Record(position, item)

    def _items(self) -> Iterator[dict[str, Any] | bytes | files.Broken]:
        if self.is_hub:
            return hub.rows(self._dataset)
        suffix = self.path.suffix.lower()
        if suffix == ".parquet":
            return map(without_nulls, parquet_rows(self.path))
        return csv_rows(self.path) if suffix == ".csv" else files.rows(self.path)


def parse_sources(texts: Sequence[str], kinds: Sequence[str] = KINDS) -> tuple[Source, ...]:
    """All sources of a run, in order. Raises ConfigError."""
    sources = [parse_source(text, kinds) for text in texts]
    times = Counter(source.kind for source in sources)
    numbers = {kind: count(1) for kind, number in times.items() if number > 1}
    return tuple(replace(s, number=next(numbers[s.kind])) if s.kind in numbers else s for s in sources)


def parse_source(text: str, kinds: Sequence[str] = KINDS, option: str = "--source") -> Source:
    """`KIND=PATH` or `KIND=hf:REPO[@REV][:[CONFIG/]SPLIT]` as a Source of one of the kinds. Raises ConfigError."""
    kind, separator, location = text.partition("=")
    if not separator or not location:
        raise ConfigError(f"{option} {text}: expected KIND=PATH or KIND=hf:REPO", f"KIND is one of {', '.join(kinds)}")
    if kind not in kinds:
        raise ConfigError(f"{option} {text}: unknown kind {kind!r}", f"known kinds: {', '.join(kinds)}")
    if location == "sample" and kind not in _SAMPLES:
        raise ConfigError(f"there is no embedded sample of {kind}", f"there is one of {' and '.join(_SAMPLES)}")
    if location.startswith("hf:"):
        hub.parse(location)
    return Source(kind, location)


def _digest(path: Path, hint: str) -> str:
    try:
        return digest_of_file(path)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", hint) from error
