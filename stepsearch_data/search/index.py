"""An index folder: the documents once, and beside them what each engine made of them.

    INDEX/
      manifest.json      the corpus, and the engines whose part is complete; replaced atomically
      documents.arrow    id, title, text
      rejects.jsonl      rows of the corpus that are not passages, and why
      bm25/ …            one folder per engine

A part is built under another name, and renamed when it is complete: an interrupted build continues with the part that
it was at.
"""

from __future__ import annotations

import fcntl
import hashlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stepsearch_data.core.atomic import place, write_whole
from stepsearch_data.core.errors import SearchError
from stepsearch_data.core.files import read_regular
from stepsearch_data.core.progress import Meter
from stepsearch_data.search import documents as store
from stepsearch_data.search.corpus import Reject
from stepsearch_data.search.documents import Document, Documents
from stepsearch_data.search.engine import SearchEngine
from stepsearch_data.search.kinds import Engine, Service

FORMAT = 1
MANIFEST = "manifest.json"
REJECTS = "rejects.jsonl"
_MOST = 16 << 20  # bytes of metadata that are read
_Name = Annotated[str, Field(pattern=r"^[^/\x00.][^/\x00]*$")]
_TOLERATED = 0.2  # share of a corpus's rows that may be no passages

Phase = Callable[[str, int | None], AbstractContextManager[Meter]]
"""Gives the meter of a phase of so many steps, where their number is known."""


class Corpus(Protocol):
    """Passages to index. The same `digest`, the same passages; the same `stamp`, the same digest."""

    @property
    def name(self) -> str:
        """Return what people call it."""

    @property
    def stamp(self) -> Any:
        """Return something cheap that changes when the corpus does."""

    @property
    def digest(self) -> str:
        """Return what identifies the passages."""

    def documents(self, reject: Reject) -> Iterator[Document]:
        """Yield the passages."""


def _named(fingerprint: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(fingerprint.get("kind"), str):
        raise ValueError("an engine has no kind")  # noqa: TRY004 - pydantic's
    return fingerprint


class IndexMetadata(BaseModel):
    """What an index folder holds: the corpus that it was made from, and the fingerprint of each complete engine."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    corpus: str
    stamp: Any
    digest: str
    documents: int
    rejects: int
    engines: dict[_Name, Annotated[dict[str, Any], AfterValidator(_named)]] = {}


def read_metadata(root: Path) -> IndexMetadata | None:
    """Read the metadata of an index folder; None for an empty one. Raises SearchError for other folders."""
    path = root / MANIFEST
    try:
        metadata = IndexMetadata.model_validate_json(read_regular(path, _MOST))
    except FileNotFoundError:
        ours = (".", REJECTS, store.FILE)  # what a build that was interrupted early leaves
        if root.is_dir() and any(not entry.name.startswith(ours) for entry in root.iterdir()):
            raise SearchError(f"{root} is neither empty nor an index", "choose another folder: --index DIR") from None
        return None
    except OSError as error:
        raise SearchError(f"cannot read the index {root}: {error.strerror}") from error
    except ValidationError:
        raise SearchError(f"{path} is not the metadata of an index", "choose another folder: --index DIR") from None
    if metadata.format != FORMAT:
        raise SearchError(
            f"{root} is an index of format {metadata.format}; this version reads {FORMAT}", "build it again"
        )
    return metadata


def open_engine(engine: Engine, root: Path | None, service: Service) -> SearchEngine:
    """Open an engine, over the index folder `root` where it needs one. Raises SearchError."""
    if not engine.is_local:
        return engine.kind.open(engine, None, None, service)
    root = engine.index or root
    assert root is not None, "local engines have an index"
    metadata = read_metadata(root)
    part = _part(engine, metadata)
    made = metadata.engines.get(part) if metadata else None
    if metadata is None or made is None:
        known = f" (it has {', '.join(metadata.engines)})" if metadata and metadata.engines else ""
        raise SearchError(f"{root} holds no {part} index{known}", _build_it(part, root, metadata))
    wanted = engine.fingerprint()
    if made != wanted:
        built = ", ".join(f"{key}={value}" for key, value in made.items() if wanted.get(key) != value)
        changed = {key: value for key, value in engine.config.model_dump(mode="json").items() if made.get(key) != value}
        settings = [f"--set engines.{part}.{key}={value}" for key, value in changed.items()]
        hint = " ".join([_build_it(part, root, metadata), *settings])
        raise SearchError(f"the {part} index of {root} was built with {built}", hint)
    documents = Documents(root)
    if len(documents) != metadata.documents:
        raise SearchError(
            f"{root} has {len(documents):,} documents instead of {metadata.documents:,}", "build it again"
        )
    for path in (root / part).rglob("*"):
        if not (path.is_file() or path.is_dir()):
            raise SearchError(f"{path} is not a regular file", "build it again")
    return engine.kind.open(engine, root / part, documents, service)


def _part(engine: Engine, metadata: IndexMetadata | None) -> str:
    """Return the name of an engine's folder in an index.

    In the index of another corpus it is the name of its kind, where no part has the engine's own name.
    """
    named = metadata is not None and engine.name in metadata.engines
    return engine.kind.name if engine.index and not named else engine.name


def fingerprint_of(engine: Engine) -> dict[str, Any]:
    """Return everything that decides an engine's answers, except the run's own corpus. Raises SearchError."""
    if engine.index is None:
        return engine.fingerprint()
    metadata = read_metadata(engine.index)
    if metadata is None:
        raise SearchError(f"{engine.index} holds no index", _build_it(engine.kind.name, engine.index, None))
    return {**engine.fingerprint(), "corpus": metadata.digest}


def _build_it(part: str, root: Path, metadata: IndexMetadata | None) -> str:
    corpus = shlex.quote(metadata.corpus) if metadata else "FILE"
    return f"build it: stepsearch-data index --corpus {corpus} --index {shlex.quote(str(root))} --engine {part}"


def build_index(
    root: Path, corpus: Corpus, engines: Sequence[Engine], phase: Phase, say: Callable[[str], None]
) -> IndexMetadata:
    """Bring an index folder up to date: build the engines that are missing or were built with other settings.

    Raises SearchError where the folder holds something else or the index of another corpus, or the corpus cannot be
    indexed.
    """
    with _locked(root):
        metadata = read_metadata(root)
        if metadata and metadata.stamp != corpus.stamp and metadata.digest != corpus.digest:
            if metadata.corpus != corpus.name:
                raise SearchError(
                    f"{root} is the index of another corpus, {metadata.corpus}", "choose another folder: --index DIR"
                )
            say(f"{corpus.name} has changed: the index is built again")
            _clear(root, metadata)
            metadata = None
        elif metadata and metadata.stamp != corpus.stamp:  # a copy of the same file, with the same bytes
            metadata = _commit(root, metadata.model_copy(update={"stamp": corpus.stamp}))
        metadata = metadata or _write_documents(root, corpus, phase)
        for engine in engines:
            if metadata.engines.get(engine.name) != engine.fingerprint():
                metadata = _build_engine(root, metadata, engine, phase)
        return metadata


def _write_documents(root: Path, corpus: Corpus, phase: Phase) -> IndexMetadata:
    count = rejected = 0
    aside = root / ".documents"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    with phase("documents", None) as meter, open(root / REJECTS, "wb") as rejects:

        def reject(position: int, reason: str) -> None:
            nonlocal rejected
            rejected += 1
            rejects.write(orjson.dumps({"position": position, "reason": reason}) + b"\n")

        def counted() -> Iterator[Document]:
            for document in corpus.documents(reject):
                meter.advance()
                yield document

        count = store.write_documents(counted(), aside)
    if rejected > _TOLERATED * (count + rejected):
        raise SearchError(
            f"{rejected:,} of {count + rejected:,} rows of {corpus.name} are not passages", f"see {root / REJECTS}"
        )
    if not count:
        raise SearchError(f"the corpus {corpus.name} holds no passage")
    _refuse_duplicates(aside, corpus)
    place(aside / store.FILE, root / store.FILE)
    aside.rmdir()
    if not rejected:
        (root / REJECTS).unlink()
    of = {"corpus": corpus.name, "stamp": corpus.stamp, "digest": corpus.digest}
    return _commit(root, IndexMetadata(**of, documents=count, rejects=rejected))


def _refuse_duplicates(folder: Path, corpus: Corpus) -> None:
    import polars as pl  # not imported by a server

    ids = pl.scan_ipc(folder / store.FILE, glob=False).select("id").with_row_index("row", offset=1)
    hashes = ids.select(pl.col("id").hash()).collect()["id"].sort()  # 8 bytes per passage: there may be 20 million
    repeated = hashes.filter(hashes == hashes.shift())
    if repeated.is_empty():
        return
    ids = ids.filter(pl.col("id").hash().is_in(repeated.unique().implode()))
    places = pl.col("row").list
    twice = ids.group_by("id").agg("row").filter(places.len() > 1).sort(places.min()).head(1).collect()
    if len(twice):
        identity, rows = twice.row(0)
        first, second = sorted(rows)[:2]
        raise SearchError(
            f"{corpus.name}: the id {identity!r} occurs {len(rows)} times, at passages {first} and {second}",
            "make ids distinct, or leave them out: passages are then numbered",
        )


def _build_engine(root: Path, metadata: IndexMetadata, engine: Engine, phase: Phase) -> IndexMetadata:
    assert engine.kind.build is not None
    fingerprint = engine.fingerprint()
    name = hashlib.sha256(orjson.dumps([fingerprint, metadata.digest], option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    aside = root / f".{engine.name}-{name}"
    if not engine.kind.resumes:
        shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(exist_ok=True)
    with phase(engine.name, metadata.documents) as meter:
        engine.kind.build(engine, Documents(root), aside, meter)
    others = {key: value for key, value in metadata.engines.items() if key != engine.name}
    if len(others) < len(metadata.engines):  # the old part goes first: the metadata never names what is not there
        _commit(root, metadata.model_copy(update={"engines": others}))
    place(aside, root / engine.name)
    return _commit(
        root, metadata.model_copy(update={"engines": dict(sorted({**others, engine.name: fingerprint}.items()))})
    )


def _commit(root: Path, metadata: IndexMetadata) -> IndexMetadata:
    write_whole(root / MANIFEST, metadata.model_dump_json(indent=1).encode())
    return metadata


def _clear(root: Path, metadata: IndexMetadata) -> None:
    """Remove an index, except the metadata, which then say that it is empty and that the folder is ours."""
    _commit(root, metadata.model_copy(update={"stamp": None, "digest": "", "documents": 0, "engines": {}}))
    for entry in root.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in {".lock", MANIFEST}:
            entry.unlink()


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = open(root / ".lock", "a")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SearchError(f"cannot write the index {root}: {error.strerror}", "choose another: --index DIR") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SearchError(
                f"another process is building {root}", "wait for it, or choose another --index"
            ) from error
        yield
