"""What a stage is: a plain function, and the declaration of everything that decides its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from pydantic import BaseModel, ConfigDict

from stepsearch_data.core.errors import SourceError
from stepsearch_data.core.files import digest_of_file
from stepsearch_data.schemas.tables import Folder, Table

if TYPE_CHECKING:
    from stepsearch_data.pipeline.context import StageContext

Fingerprint = dict[str, Any]
_LONGEST = 80  # characters of a value that `explain` shows


class StageConfig(BaseModel):
    """What decides a stage's rows. How a stage is run (workers, limits, keys) does not belong here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: ClassVar[tuple[str, ...]] = ()
    """Settings that name the user's files, or sources as KIND=PATH: their content decides the rows too."""

    @property
    def uses_model(self) -> bool:
        """Tell whether the stage asks a language model."""
        return False

    @property
    def marked(self) -> str:
        """Return the mark that decides the stage's rows, as a reader's findings; "" where none does."""
        return ""

    def prompts(self, files: Mapping[str, Path]) -> dict[str, str]:  # noqa: ARG002 - of those that need some
        """Return the texts of the prompts that the stage needs, by name. The user's `files` replace ours."""
        return {}

    def digests(self) -> dict[str, str]:
        """Return what identifies the content of each file that `files` name. Raises SourceError, ConfigError."""
        values = {name: getattr(self, name) for name in self.files}
        named = {name: value if isinstance(value, tuple) else (value,) for name, value in values.items()}
        return {
            f"{name} {number}": _content(location)
            for name, locations in named.items()
            for number, location in enumerate(locations, start=1)
            if location
        }


def _content(location: str | Path) -> str:
    if isinstance(location, str):
        from stepsearch_data.sources.source import parse_source  # reading a store imports no source

        source = parse_source(location, asked=True)
        return f"{source.kind} {source.digest()}"
    try:
        return digest_of_file(location)
    except OSError as error:
        raise SourceError(f"cannot read {location}: {error.strerror}", "check the path in the settings") from error


class Needs(Flag):
    """What decides a stage's rows besides tables."""

    NOTHING = 0
    SOURCES = auto()
    OWN_ENGINES = auto()
    """The search engines that index the run's own corpus."""
    ALL_ENGINES = auto()


@dataclass(frozen=True)
class Stage:
    """A stage's declaration. `version` goes up when the code changes the rows it writes.

    `only_with` is an input without whose rows there is nothing to do: the stage then writes empty tables, and a build
    does not mention it. An `optional` stage is left out until one of its settings is given.
    """

    name: str
    doc: str
    reads: tuple[Table[Any] | Folder, ...]
    writes: tuple[Table[Any] | Folder, ...]
    config: type[StageConfig]
    run: Callable[[StageContext], None]
    version: int = 1
    needs: Needs = Needs.NOTHING
    only_with: Table[Any] | None = None
    optional: bool = False

    def fingerprint(
        self,
        config: StageConfig,
        inputs: Mapping[str, str],
        prompts: Mapping[str, str] | None = None,
        retries: Mapping[str, int] | None = None,
        engines: Mapping[str, Any] | None = None,
        marked: Collection[str] = (),
    ) -> Fingerprint:
        """Return all that decides the rows: code version, config, prompts, engines, output schemas, inputs' digests.

        `retries` are the questions that were tried again, and how often; `marked` are those with the config's mark.
        """
        files = config.digests()
        if config.marked:  # named as a file is: a store from elsewhere comes without its reader's marks
            files["marks 1"] = hashlib.sha256(orjson.dumps(sorted(marked))).hexdigest()
        versions = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in (prompts or {}).items()}
        return {
            **({"prompts": versions} if versions else {}),
            **({"files": files} if files else {}),
            **({"retries": dict(retries)} if retries else {}),
            **({"engines": dict(engines)} if engines else {}),
            "version": self.version,
            "config": config.model_dump(mode="json", exclude=set(config.files)),  # their content counts, not their path
            "inputs": dict(inputs),
            "outputs": {output.name: _shape(output) for output in self.writes},
        }


def _shape(output: Table[Any] | Folder) -> str:
    """Return the names and types of the columns, without their descriptions."""
    if isinstance(output, Folder):
        return "folder"
    return str(output.schema.to_string(show_field_metadata=False, show_schema_metadata=False))


def digest(fingerprint: Fingerprint) -> str:
    """Return the name of a fingerprint: 12 hexadecimal digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(orjson.dumps(fingerprint, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Describe what changed between two fingerprints, one line per field."""
    before, after = dict(_flatten(old)), dict(_flatten(new))
    return [
        f"{key}: {_show(before.get(key))} → {_show(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _show(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
