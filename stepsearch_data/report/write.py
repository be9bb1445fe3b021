"""Writing a report: one HTML file where the data is small, else a folder whose page loads what is looked at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stepsearch_data.core.atomic import alone, place
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.catalog import check_current
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report.comparison import comparison
from stepsearch_data.report.facts import rejecting
from stepsearch_data.report.listing import make_listing, put_marks, read_index, read_rejects, read_texts
from stepsearch_data.report.page import MARK, NO_CHARTS, Mode, Shell, data_script, pack, packed_script, shell
from stepsearch_data.report.parts import read_parts
from stepsearch_data.report.policies import answered
from stepsearch_data.report.records import records
from stepsearch_data.report.rollouts import NONE, Rollouts
from stepsearch_data.report.shapes import Comparison, Index, Record, Rejects, Summary
from stepsearch_data.report.summary import summarize
from stepsearch_data.report.tables import open_tables
from stepsearch_data.schemas.tables import TRAJECTORIES

CHUNK_ROWS = 100
ONE_FILE = 64_000_000  # bytes of packed trajectories, some 25,000, that a browser opens at once as a single file
_CHUNKS = "chunks"
_HEAD = 4096  # bytes of a page in which its generator is named


@dataclass(frozen=True)
class Written:
    """The page to open, the trajectories that it shows, and its bytes with those beside it."""

    page: Path
    trajectories: int
    bytes: int


@dataclass(frozen=True)
class _Data:
    """What a page shows.

    `details` are packed already, and unpacked when something is searched for or counts of parts are followed;
    `packed` holds the chunks of trajectories, one per line.
    """

    summary: Summary
    index: Index
    rejects: Rejects
    comparison: Comparison | None
    details: dict[str, bytes]
    packed: Path


def report(
    store: Store,
    output: Path,
    meter: Meter,
    *,
    title: str | None = None,
    folder: bool = False,
    one_file: int = ONE_FILE,
    rollouts: Rollouts = NONE,
    compared: Store | None = None,
) -> Written:
    """Write `output`.html or, where the trajectories take more than `one_file` bytes, the folder `output`.

    It takes its place only when it is whole, and replaces an earlier report there; `folder` asks for a folder
    whatever the size, and `rollouts` are shown beside the trajectories. With a store to be `compared` with, the page
    also shows what has changed since that store.

    Raises StoreError: the store is stale or has nothing to show, or the place is not ours; OSError.
    """
    output = output.resolve()
    stores = (store, compared) if compared else (store,)
    _check(output, *stores)
    name = output.with_suffix("") if output.suffix in {".html", ".htm"} else output
    page = name.with_name(f"{name.name}.html")
    _check(name if folder else page, *stores)
    check_current(store)
    name.parent.mkdir(parents=True, exist_ok=True)
    with store.reading() as manifest, _scratch(name) as scratch:
        data = _gather(store, manifest, scratch / "packed", meter, rollouts, title, compared)
        whole = folder or data.packed.stat().st_size > one_file
        target, mode = (name, Mode.chunks) if whole else (page, Mode.embedded)
        _check(target, *stores)
        made = scratch / target.name
        page_shell = shell(mode, data.summary["title"])
        if not page_shell.draws:
            meter.tell(NO_CHARTS)
        (_write_folder if whole else _write_file)(made, data, page_shell)
        size = sum(path.stat().st_size for path in ([made] if made.is_file() else made.rglob("*.*")))
        place(made, target)
    return Written(target / "index.html" if whole else target, len(data.index["id"]), size)


def _check(place: Path, *stores: Store) -> None:
    """Refuse to write into a store, and over what is no report."""
    for store in stores:
        store.keep_out(place)
    if place.exists() and not _is_report(place):
        raise StoreError(f"{place} exists already and is not a report", "choose another place with --output")


def _is_report(place: Path) -> bool:
    if place.is_dir():
        names = {path.name for path in place.iterdir()}
        return not names or (names <= {"index.html", _CHUNKS} and _is_report(place / "index.html"))
    with open(place, "rb") as file:
        return MARK in file.read(_HEAD)


@contextmanager
def _scratch(name: Path) -> Iterator[Path]:
    """Yield a folder beside what is to be written, and remove it in the end.

    Raises StoreError where another process has it.
    """
    folder = name.with_name(f".{name.name}.new")
    busy = StoreError(f"another process is writing {name}", "wait for it, or choose another --output")
    with alone(folder, busy):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _gather(
    store: Store,
    manifest: Manifest,
    packed: Path,
    meter: Meter,
    rollouts: Rollouts,
    title: str | None,
    compared: Store | None,
) -> _Data:
    made = manifest.output(TRAJECTORIES.name)
    meter.expect(made.rows or 0 if made else 0)
    found = comparison(compared, store) if compared else None
    rollouts = rollouts.with_kept(store, manifest)
    with open(packed, "wb") as file:
        for number, chunk in enumerate(_chunks(records(store, manifest, rollouts)), start=1):
            file.write(pack(chunk) + b"\n")
            meter.advance(len(chunk))
            if found:
                found["first_chunk"] = number
        if compared and found:
            for chunk in _chunks(_others(compared, found)):
                file.write(pack(chunk) + b"\n")
                found["others"] += [record["id"] for record in chunk]
    with closing(open_tables(store, manifest)) as connection:  # now that rollouts are scored
        make_listing(connection, rejecting(manifest), answered(connection, rollouts))
        put_marks(connection, store.marks())
        summary = summarize(store, manifest, connection, title, rollouts)
        index, rejects = read_index(connection, CHUNK_ROWS), read_rejects(connection)
        details = {"texts": pack(read_texts(connection)), "parts": pack(read_parts(connection))}
    return _Data(summary, index, rejects, found, details, packed)


def _others(compared: Store, found: Comparison) -> Iterator[Record]:
    """Yield the changed trajectories of the other store, as it has them."""
    named = {change["id"] for change in found["changes"]}
    with compared.reading() as manifest:
        yield from records(compared, manifest, only=named)


def _chunks(rows: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def _write_file(path: Path, data: _Data, page: Shell) -> None:
    with open(path, "wb") as file, open(data.packed, "rb") as lines:
        file.write(page.before + _about(Mode.embedded, data))
        file.writelines(packed_script(name, packed) for name, packed in data.details.items())
        file.writelines(packed_script(f"chunk-{number}", line.rstrip()) for number, line in enumerate(lines))
        file.write(page.after)


def _about(mode: Mode, data: _Data) -> bytes:
    """Write all data but the trajectories."""
    packed = {"index": data.index, "rejects": data.rejects, "comparison": data.comparison}
    told = [data_script("mode", {"mode": mode}), data_script("summary", data.summary)]
    return b"".join([*told, *(packed_script(name, pack(value)) for name, value in packed.items() if value)])


def _write_folder(path: Path, data: _Data, page: Shell) -> None:
    """Write the page, and beside it scripts that it adds to itself.

    Only those can be loaded from `file://`.
    """
    (path / _CHUNKS).mkdir(parents=True)
    with open(path / "index.html", "wb") as file:
        file.write(page.before + _about(Mode.chunks, data) + page.after)
    with open(data.packed, "rb") as lines:
        for number, line in enumerate(lines):
            _write_chunk(path, f"chunk-{number}", line.rstrip())
    for name, packed in data.details.items():
        _write_chunk(path, name, packed)


def _write_chunk(path: Path, name: str, packed: bytes) -> None:
    (path / _CHUNKS / f"{name}.js").write_bytes(b'stepsearchChunk("%s", "%s");\n' % (name.encode(), packed))
