"""`release.json`: what a release holds and what it was made from, every file and every input by digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from stepsearch_data.core.errors import PublishError
from stepsearch_data.core.files import digest_of, read_regular
from stepsearch_data.core.validation import in_words

NAME = "release.json"
CARD = "README.md"
RUN_FILE = "run.toml"
REPORT = "report.html"
PICTURE = "trajectories.png"
DATA, STORE = "data", "store"
OWN = (NAME, CARD, RUN_FILE, REPORT, PICTURE, DATA, STORE)
"""What a release consists of; other files in its folder are not part of it."""
FORMAT = 2
_READ = (1, FORMAT)  # a release of format 1 has no report and no picture
_MOST = 256 << 20  # bytes of a record that are read


class File(BaseModel):
    """A file of a release; `rows` is null where it is not a table."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    bytes: int
    rows: int | None = None

    @classmethod
    def of(cls, path: Path, rows: int | None = None) -> Self:
        """Describe the file at a path."""
        return cls(sha256=digest_of(path), bytes=path.stat().st_size, rows=rows)


class Split(BaseModel):
    """A split of a config: its rows, their bytes in memory and its files, by their paths."""

    model_config = ConfigDict(frozen=True)

    rows: int
    bytes: int
    files: tuple[str, ...]


class Record(BaseModel):
    """What a release says of itself."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    name: str
    version: str | None
    package: str
    store: str
    command: str
    run_file: str
    lineage: dict[str, Any]
    configs: dict[str, dict[str, Split]]
    files: dict[str, File]

    @property
    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file, by path."""
        return {path: file.sha256 for path, file in self.files.items()}

    @field_validator("files")
    @classmethod
    def _lie_inside(cls, files: dict[str, File]) -> dict[str, File]:
        for path in files:
            parts = PurePosixPath(path).parts
            if not parts or parts[0] not in OWN or ".." in parts or "\\" in path or "\0" in path:
                raise ValueError(f"{path} is not a path of a release")
        return files


class Published(Protocol):
    """What a repository gets: files in a folder. `mark` is one that tells that the repository is ours."""

    @property
    def folder(self) -> Path:
        """Return where the files are."""

    @property
    def version(self) -> str | None:
        """Return its tag."""

    @property
    def label(self) -> str:
        """Return what its commit is called."""

    @property
    def mark(self) -> str:
        """Return the name of that file."""

    def files(self) -> dict[str, File]:
        """Return its files by their paths."""

    def owns(self, path: str) -> bool:
        """Tell whether a file of the repository is replaced or deleted with it."""


@dataclass(frozen=True)
class Release:
    """A release that lies in a folder."""

    folder: Path
    record: Record
    mark: str = NAME

    @property
    def version(self) -> str | None:
        """Return its tag."""
        return self.record.version

    @property
    def label(self) -> str:
        """Return what its commit is called."""
        return f"Release {self.version or self.record.store[:12]}"

    def files(self) -> dict[str, File]:
        """Return its files by their paths, its record too."""
        return {**self.record.files, NAME: File.of(self.folder / NAME)}

    def owns(self, path: str) -> bool:
        """Tell whether a file lies where those of releases lie."""
        return path.partition("/")[0] in OWN


class _Format(BaseModel):
    format: int


def read_record(folder: Path) -> Record:
    """Read the record of a release's folder. Raises PublishError where there is none, or one of another version."""
    path = folder / NAME
    try:
        data = read_regular(path, _MOST)
    except OSError as error:
        raise PublishError(f"there is no release at {folder}: cannot read {path} ({error.strerror})") from error
    try:
        found = _Format.model_validate_json(data).format
        if found in _READ:
            return Record.model_validate_json(data)
    except ValidationError as error:
        raise PublishError(f"{path} does not describe a release: {in_words(error, most=1)}") from None
    raise PublishError(
        f"{path} has release format {found}; this version reads {' and '.join(map(str, _READ))}",
        "use the version of stepsearch-data that wrote it",
    )
