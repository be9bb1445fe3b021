"""A source: what `--source KIND=LOCATION` names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from itertools import count
from pathlib import Path

from stepsearch_data.core.errors import ConfigError, RowRejected, SourceError, StoreError
from stepsearch_data.core.files import digest_of_file
from stepsearch_data.remote.copies import copy_of
from stepsearch_data.remote.objects import address
from stepsearch_data.schemas.rows import Question
from stepsearch_data.sources import ASKED_ONLY, DATASETS, OWN, corpus, files, hub
from stepsearch_data.sources.dataset import Dataset, dataset_of, recognise
from stepsearch_data.sources.record import Record, numbered
from stepsearch_data.sources.tabular import csv_rows, parquet_rows, tsv_rows, without_nulls

Aliases = Mapping[str, tuple[str, ...]]
"""Other names of answers, by the id of the answer: an official metric accepts them as answers."""


@dataclass(frozen=True)
class Source:
    """A place to read questions or documents from, in the format that its kind names.

    `number` distinguishes several sources of one kind; 0 where there is only one. `id_aliases` is the dataset's table
    of other names, if it has one that does not lie beside the file.
    """

    kind: str
    location: str
    number: int = 0
    id_aliases: Path | None = None

    @property
    def label(self) -> str:
        """Return its name in `rejects.source`: the kind, with a number where a run has several of it."""
        return f"{self.kind}#{self.number}" if self.number else self.kind

    @property
    def dataset(self) -> Dataset:
        """Return what is declared of its kind."""
        return dataset_of(self.kind)

    @property
    def is_hub(self) -> bool:
        """Tell whether the location is a dataset repository."""
        return self.location.startswith("hf:") and not self.location.startswith(hub.FILES)

    @property
    def path(self) -> Path:
        """Return the file; the embedded one for the location `sample`."""
        if self.location == "sample":
            return Path(str(resources.files("stepsearch_data") / "data" / self.dataset.sample))
        return self._copy or Path(self.location)

    @cached_property
    def _copy(self) -> Path | None:
        """Return the local copy of a file at a URL; kept, so that the rows are those that the digest names."""
        if self.location.startswith(hub.FILES):
            return hub.download(self.location)
        url = address(self.location)
        copy = _fetched(url) if url else None
        if url and copy is None:
            raise SourceError(f"there is no {url}", "check the URL")
        return copy

    @property
    def aliases(self) -> Path | None:
        """Return the table of other names of answers: the one that is named, or the official one beside the file."""
        table = self.dataset.aliases
        if table is None or self.id_aliases or self.is_hub:
            return self.id_aliases if table else None
        if url := address(self.location):
            return _fetched(f"{url.rpartition('/')[0]}/{table.file}")
        beside = self.path.with_name(table.file)
        return beside if beside.is_file() else None

    @property
    def _is_text(self) -> bool:
        return not self.is_hub and self.dataset.documents and corpus.is_text(self.path)

    @cached_property
    def _repository(self) -> hub.HubDataset:
        """Return the dataset repository; kept, so that the rows come from the commit that the digest names."""
        return hub.parse(self.location)

    def digest(self) -> str:
        """Return what identifies the rows: the file's SHA-256 or the repository's commit, its aliases, its reader."""
        of = corpus.digest_of_texts if self._is_text else digest_of_file
        content = self._repository.commit() if self.is_hub else _digest(self.path, "check the path", of)
        aliases = f" {_digest(self.aliases, 'check load.id_aliases')}" if self.aliases else ""
        version = self.dataset.version
        return f"{content}{aliases}" + (f" version {version}" if version > 1 else "")

    def records(self) -> Iterator[Record]:
        """Yield all rows, streaming. Raises SourceError when the source cannot be read at all."""
        if self.is_hub:
            return numbered(hub.rows(self._repository))
        if self._is_text:
            return numbered(corpus.texts(self.path))
        suffixes = [suffix.lower() for suffix in self.path.suffixes[-2:]]
        if ".parquet" in suffixes[-1:]:
            return numbered(map(without_nulls, parquet_rows(self.path)))
        if ".csv" in suffixes[-1:]:
            return numbered(csv_rows(self.path))
        return numbered(tsv_rows(self.path) if ".tsv" in suffixes else files.rows(self.path))


def parse_sources(texts: Sequence[str], *, asked: bool = False) -> tuple[Source, ...]:
    """Parse all sources of a run, in order. Raises ConfigError."""
    sources = [parse_source(text, asked=asked) for text in texts]
    times = Counter(source.kind for source in sources)
    numbers = {kind: count(1) for kind, number in times.items() if number > 1}
    return tuple(replace(s, number=next(numbers[s.kind])) if s.kind in numbers else s for s in sources)


def parse_source(text: str, option: str = "--source", *, asked: bool = False) -> Source:
    """Parse `KIND=PATH`, `KIND=URL` or `KIND=hf:REPO[@REV][:[CONFIG/]SPLIT]`. Raises ConfigError.

    Questions with nothing but answers are accepted only where they are `asked`, not built from.
    """
    kind, separator, location = text.partition("=")
    kinds = [name for name in DATASETS.names() if asked or name not in ASKED_ONLY]
    if not separator or not location:
        raise ConfigError(f"{option} {text}: expected KIND=PATH or KIND=hf:REPO", f"KIND is one of {', '.join(kinds)}")
    if kind not in kinds:
        raise ConfigError(f"{option} {text}: unknown kind {kind!r}", f"known kinds: {', '.join(kinds)}")
    source = Source(kind, location)
    if not (asked or source.dataset.parse):
        raise ConfigError(
            f"{option} {text}: rows of {kind} can be asked, not built from", "ask them: `eval --questions`"
        )
    if location == "sample" and not source.dataset.sample:
        samples = (name for name in DATASETS.ours if dataset_of(name).sample)
        raise ConfigError(f"there is no embedded sample of {kind}", f"there is one of {' and '.join(samples)}")
    if source.is_hub:
        hub.parse(location)
    elif location.startswith(hub.FILES):
        hub.parse_file(location)
    elif "://" in location and not address(location):
        raise ConfigError(
            f"{option} {kind}: unknown kind of URL", "known: s3://, gs://, az://, hf://datasets/, hf:REPO"
        )
    return source


def check_kind(source: Source, first: Iterable[Record], option: str = "--source") -> None:
    """Raise SourceError for a source whose first rows are plainly of another dataset than it was given as."""
    found = [name for record in first for name in recognise(set(record.fields), source.kind)]
    if found and source.dataset.parse and source.kind not in found:
        raise SourceError(
            f"{source.location} was given as {source.kind}, but its rows are in the format of {found[0]}",
            f"use {option} {found[0]}={source.location}",
        )


def read_aliases(source: Source, reject: Callable[[Record, str], None]) -> Aliases:
    """Read names by id; none where the source has no table. Lines that cannot be read are rejected.

    Raises SourceError for a file that is not such a table.
    """
    path, aliases = source.aliases, source.dataset.aliases
    if not path or not aliases:
        return {}
    table: dict[str, tuple[str, ...]] = {}
    for record in Source(OWN, str(path)).records():
        try:
            key, names = aliases.row(record)
        except RowRejected as reason:
            reject(record, f"{path}: {reason}")
        else:
            table[key] = tuple(name for name in names if name.strip())
    if not table:
        raise SourceError(f"{path} holds no line of {aliases.columns}", f"is it the table of {source.kind}?")
    return table


def with_aliases(question: Question, table: Aliases) -> Question:
    """Return the question with all other names of its answer."""
    names = table.get(question.answer_id, ())
    known = dict.fromkeys((question.answer, *question.answer_aliases, *names))
    return question.model_copy(update={"answer_aliases": [*known][1:]}) if names else question


def _fetched(url: str) -> Path | None:
    try:
        return copy_of(url)
    except StoreError as error:
        raise SourceError(error.message, error.hint) from error
    except OSError as error:
        raise SourceError(f"cannot fetch {url}: {error.strerror or error}", "free some space") from error


def _digest(path: Path, hint: str, of: Callable[[Path], str] = digest_of_file) -> str:
    try:
        return of(path)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", hint) from error
