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

from stepsearch_data.pipeline.digest import digest_of_file
from stepsearch_data.pipeline.errors import ConfigError, SourceError
from stepsearch_data.pipeline.sources import files, hub

KINDS = ("musique", "hotpotqa", "2wiki", "jsonl")
_SAMPLES = {"musique": "musique.sample.jsonl", "hotpotqa": "hotpotqa.sample.json"}


@dataclass(frozen=True)
class Record:
    """One row as its source holds it: JSON bytes, or a Hub dataset's dict; `broken` says why it is neither."""

    position: int
    data: bytes | dict[str, Any]
    broken: str = ""


@dataclass(frozen=True)
class Source:
    """A place to read questions from, in the format that its kind names.

    `number` tells several sources of one kind apart; 0 where there is only one.
    """

    kind: str
    location: str
    number: int = 0

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

    @cached_property
    def _dataset(self) -> hub.HubDataset:
        """The dataset repository; kept, so that the rows come from the commit that the digest names."""
        return hub.parse(self.location)

    def digest(self) -> str:
        """What identifies the content: the file's SHA-256, or the repository's commit."""
        if self.is_hub:
            return self._dataset.commit()
        try:
            return digest_of_file(self.path)
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror}", "check the path after --source") from error

    def records(self) -> Iterator[Record]:
        """All rows, streaming. Raises SourceError when the source cannot be read at all."""
        if self.is_hub:
            for position, row in enumerate(hub.rows(self._dataset), start=1):
                yield Record(position, row)
        else:
            for position, item in enumerate(files.rows(self.path), start=1):
                if isinstance(item, files.Broken):
                    yield Record(position, item.raw, item.reason)
                elif item:
                    yield Record(position, item)


def parse_sources(texts: Sequence[str]) -> tuple[Source, ...]:
    """All sources of a run, in order. Raises ConfigError."""
    sources = [parse_source(text) for text in texts]
    kinds = Counter(source.kind for source in sources)
    numbers = {kind: count(1) for kind, times in kinds.items() if times > 1}
    return tuple(replace(s, number=next(numbers[s.kind])) if s.kind in numbers else s for s in sources)


def parse_source(text: str) -> Source:
    """`KIND=PATH` or `KIND=hf:REPO[@REV][:[CONFIG/]SPLIT]` as a Source. Raises ConfigError."""
    kind, separator, location = text.partition("=")
    if not separator or not location:
        raise ConfigError(f"--source {text}: expected KIND=PATH or KIND=hf:REPO", f"KIND is one of {', '.join(KINDS)}")
    if kind not in KINDS:
        raise ConfigError(f"--source {text}: unknown kind {kind!r}", f"known kinds: {', '.join(KINDS)}")
    if location == "sample" and kind not in _SAMPLES:
        raise ConfigError(f"there is no embedded sample of {kind}", f"there is one of {' and '.join(_SAMPLES)}")
    if location.startswith("hf:"):
        hub.parse(location)
    return Source(kind, location)
