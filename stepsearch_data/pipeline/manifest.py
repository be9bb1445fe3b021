"""The manifest of a store. A store may come from a stranger, so its manifest is checked once, when it is read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.validation import in_words
from stepsearch_data.pipeline.stage import Fingerprint
from stepsearch_data.schemas.tables import REJECTS

FORMAT = 2
MOST = 256 << 20  # bytes of a manifest, or of a file beside it, that are read
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Name = Annotated[str, Field(pattern=r"^\w[\w-]*$")]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Parts(BaseModel):
    """The required and optional parts of a fingerprint. Unknown parts are left as they are."""

    version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    prompts: dict[str, str] = {}
    files: dict[str, str] = {}
    retries: dict[str, int] = {}
    engines: dict[str, dict[str, Any] | list[str]] = {}


def _checked(fingerprint: Fingerprint) -> Fingerprint:
    try:
        _Parts.model_validate(fingerprint, strict=True)
        orjson.dumps(fingerprint)  # what names it
    except ValidationError as error:
        raise ValueError(in_words(error, most=1)) from None
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None
    return fingerprint


class Output(BaseModel):
    """A committed table or folder. `digest` is the SHA-256 of its bytes; `rows` is null for a folder."""

    model_config = ConfigDict(frozen=True)

    path: str
    digest: _Digest
    rows: _Count | None
    bytes: _Count


class Entry(BaseModel):
    """A committed stage."""

    model_config = ConfigDict(frozen=True)

    fingerprint: Annotated[Fingerprint, AfterValidator(_checked)]
    folder: str
    outputs: dict[_Name, Output]

    @model_validator(mode="after")
    def _writes_what_it_says(self) -> Self:
        """Check that the outputs are those of the fingerprint and rejects, each in the stage's folder, by its name."""
        for name, output in self.outputs.items():
            if output.path != f"{self.folder}/{name}" + ("" if output.rows is None else ".parquet"):
                raise ValueError(f"{output.path!r} is not where {name} lies")
        declared = {*self.fingerprint["outputs"], REJECTS.name}
        if declared != self.outputs.keys() or self.outputs[REJECTS.name].rows is None:
            raise ValueError(f"it writes {', '.join(sorted(declared))}, and holds {', '.join(sorted(self.outputs))}")
        return self


class Manifest(BaseModel):
    """What a store holds."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    stages: Annotated[dict[_Name, Entry], Field(max_length=1_000)] = {}

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        """Check that each stage has its own folder, each table one writer, and that no stage depends on itself."""
        for stage, entry in self.stages.items():
            if not re.fullmatch(rf"stages/{re.escape(stage)}-[0-9a-f]{{12}}(\.\d+)?", entry.folder):
                raise ValueError(f"{entry.folder!r} is not a folder of stage {stage}")
            for name in entry.outputs.keys() - {REJECTS.name}:
                if self.writer(name) != stage:
                    raise ValueError(f"{self.writer(name)} and {stage} both write {name}")
        try:
            self.fresh  # noqa: B018 - finds circles
        except CycleError as error:
            raise ValueError(f"stages read each other in a circle: {' → '.join(reversed(error.args[1]))}") from error
        return self

    @cached_property
    def fresh(self) -> frozenset[str]:
        """Return the stages whose inputs, and the inputs of those, are the ones that are committed now."""
        reads = {stage: dict(self._reads(entry)) for stage, entry in self.stages.items()}
        fresh: set[str] = set()
        for stage in TopologicalSorter({stage: of.keys() for stage, of in reads.items()}).static_order():
            if all(current and writer in fresh for writer, current in reads[stage].items()):
                fresh.add(stage)
        return frozenset(fresh)

    def _reads(self, entry: Entry) -> Iterator[tuple[str, bool]]:
        """Yield each stage whose outputs a stage has read, and whether these are still the committed ones."""
        recorded = entry.fingerprint["inputs"]
        for stage, other in self.stages.items():
            read = [name for name in other.outputs if name in recorded and name != REJECTS.name]
            if read:
                yield stage, all(other.outputs[name].digest == recorded[name] for name in read)

    def output(self, name: str) -> Output | None:
        """Return the committed output of this name, whichever stage wrote it."""
        return next((e.outputs[name] for e in self.stages.values() if name in e.outputs), None)

    def writer(self, name: str) -> str:
        """Return the committed stage that wrote an output. Raises StopIteration where none did."""
        return next(stage for stage, entry in self.stages.items() if name in entry.outputs)


def with_stage(manifest: Manifest, stage: str, entry: Entry) -> Manifest:
    """Return the manifest with a stage committed, without others that wrote the same tables. Raises StoreError."""
    taken = entry.outputs.keys() - {REJECTS.name}
    others = {name: other for name, other in manifest.stages.items() if not taken & other.outputs.keys()}
    try:
        return Manifest(stages=dict(sorted({**others, stage: entry}.items())))
    except ValidationError as error:
        raise StoreError(
            f"the store cannot take {stage}: {in_words(error, most=1)}", "build into another --store"
        ) from error


def without_stages(manifest: Manifest, names: Collection[str]) -> Manifest:
    """Return the manifest without these stages."""
    return Manifest(stages={name: entry for name, entry in manifest.stages.items() if name not in names})


class _Format(BaseModel):
    """What manifests of all formats have."""

    format: int


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parse a manifest; `where` it comes from is for the error message. Raises StoreError."""
    try:
        found = _Format.model_validate_json(data).format
        if found == FORMAT:
            return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise StoreError(
            f"{where} is not a store's manifest: {in_words(error, most=1)}",
            "choose another --store, or take it from a copy",
        ) from None
    again = f"rm {shlex.quote(where)} && stepsearch-data build --store {shlex.quote(str(Path(where).parent))}"
    raise StoreError(
        f"{where} has store format {found}; this version reads {FORMAT}",
        f"build it again, which pays for nothing twice: {again} --source KIND=PATH; "
        "or use the version of stepsearch-data that wrote it",
    )
