"""The door to a store: nothing outside of it is opened, nothing waits, and a table is what its manifest says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import QueryError, StoreError
from stepsearch_data.core.files import open_regular
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.rows import Paragraph
from stepsearch_data.schemas.tables import PARAGRAPHS, QUESTIONS, REJECTS

FINGERPRINT = {"version": 1, "config": {}, "inputs": {}, "outputs": {"paragraphs": "columns", "index": "folder"}}
ROWS = [Paragraph(passage_id=f"p{number}", title="A title", text="A text " * number) for number in range(50)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of one stage: a table of fifty rows, and a folder."""
    made = Store(tmp_path / "store")
    with made.locked(), made.staging() as folder:
        pq.write_table(PARAGRAPHS.to_arrow(ROWS), folder / "paragraphs.parquet")
        pq.write_table(REJECTS.schema.empty_table(), folder / "rejects.parquet")
        (folder / "index").mkdir()
        (folder / "index" / "words").write_text("a b c")
        made.commit("load", "0123456789ab", FINGERPRINT, folder, {"paragraphs": len(ROWS), "rejects": 0})
    return made


def paragraphs(store: Store) -> Path:
    return store.root / "stages" / "load-0123456789ab" / "paragraphs.parquet"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_out(path: Path) -> None:
    path.replace(path.parents[3] / "outside.parquet")
    path.symlink_to(path.parents[3] / "outside.parquet")


def link_to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def link_in_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "is missing from the store"),
    "empty": (empty, "is damaged: it has 0 bytes instead of"),
    "cut": (cut, "is damaged: it has"),
    "garbled": (garble, "is damaged: Parquet magic bytes not found"),
    "a folder": (as_folder, "is damaged: it is not a regular file"),
    "a FIFO": (as_fifo, "is damaged: it is not a regular file"),
    "a link out": (link_out, "lies outside of the store"),
    "a link to a device": (link_to_device, "lies outside of the store"),
    "a link to itself": (link_in_a_circle, "is missing from the store"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_table_is_a_whole_file_of_the_store(damage: str, store: Store) -> None:
    spoil, words = DAMAGES[damage]
    manifest = store.manifest()
    (output,) = [output for output in manifest.stages["load"].outputs.values() if output.path.endswith("phs.parquet")]
    assert store.is_whole(output)
    spoil(paragraphs(store))
    assert damage == "garbled" or not store.is_whole(output)
    for ask in (lambda: store.tables(manifest, PARAGRAPHS), lambda: store.check(manifest)):
        with pytest.raises(StoreError) as caught:
            ask()
        assert words in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint
    assert store.damaged(manifest) == ["paragraphs"] or damage == "a link out"


def replace(store: Store, table: pa.Table) -> None:
    """Commit other rows in the place of the paragraphs, as a stranger may who counts bytes and makes digests."""
    with store.locked(), store.staging() as folder:
        pq.write_table(table, folder / "paragraphs.parquet")
        pq.write_table(REJECTS.schema.empty_table(), folder / "rejects.parquet")
        (folder / "index").mkdir()
        store.commit("load", "0123456789ab", FINGERPRINT, folder, {"paragraphs": len(ROWS), "rejects": 0})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (PARAGRAPHS.to_arrow(ROWS).drop(["text"]), "its columns are not those of paragraphs"),
        (PARAGRAPHS.to_arrow(ROWS).rename_columns(["passage_id", "text", "title"]), "its columns are not those of"),
        (pa.table({"passage_id": range(50), "title": ["a"] * 50, "text": ["b"] * 50}), "its columns are not those of"),
        (PARAGRAPHS.to_arrow(ROWS[1:]), "it has 49 rows instead of 50"),
    ],
)
def test_a_table_has_its_columns_and_its_rows(table: pa.Table, words: str, store: Store) -> None:
    replace(store, table)
    with pytest.raises(StoreError, match=words):
        store.tables(store.manifest(), PARAGRAPHS)


def test_a_table_that_is_not_built_is_said(store: Store) -> None:
    with pytest.raises(StoreError, match="the store is not built to its end"):
        store.tables(store.manifest(), PARAGRAPHS, QUESTIONS)


@pytest.mark.parametrize("how", ["link", "fifo"])
def test_a_folder_holds_files_of_the_store_alone(how: str, store: Store, tmp_path: Path) -> None:
    output = store.manifest().output("index")
    assert output is not None
    path = store.path(output) / "deep" / "array"
    path.parent.mkdir()
    path.symlink_to(tmp_path) if how == "link" else os.mkfifo(path)
    with pytest.raises(StoreError, match="lies outside of the store" if how == "link" else "is not a regular file"):
        store.path(output)


@pytest.mark.parametrize("name", ["manifest.json", "retries.json", "log/llm_calls.jsonl"])
@pytest.mark.parametrize("how", ["fifo", "link", "device", "folder"])
def test_files_beside_the_tables_are_opened_with_the_same_care(
    name: str, how: str, store: Store, tmp_path: Path
) -> None:
    path = store.root / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    (tmp_path / "outside").write_text("{}")
    make: dict[str, Callable[[], None]] = {
        "fifo": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(tmp_path / "outside"),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
    }
    make[how]()
    read: dict[str, Callable[[], object]] = {
        "manifest.json": store.manifest,
        "retries.json": lambda: store.retries("load"),
        "log/llm_calls.jsonl": lambda: list(store.read_log("llm_calls")),
    }
    with pytest.raises(StoreError):
        read[name]()


NO_TRIES = ("[]", '{"load": ["q1"]}', '{"load": {"q1": "twice"}}', '{"load": {"q1": -1}}', "{", "", "\0")


@pytest.mark.parametrize("text", NO_TRIES)
def test_tries_that_are_no_counts_are_refused(text: str, store: Store) -> None:
    (store.root / "retries.json").write_text(text)
    with pytest.raises(StoreError, match=r"cannot read .*retries\.json") as caught:
        store.retries("load")
    assert caught.value.hint.startswith("remove it")


def test_what_is_no_record_of_a_log_is_left_out(store: Store) -> None:
    of_whom = '"engine": "bm25", "queries": 1, "failed": 0, "cached": false'
    call = f'{{{of_whom}, "attempts": 1, "latency": 0.1, "error": "", "answered_at": ""}}'
    (store.root / "log").mkdir()
    lines = ["[1]", "7", "null", "{}", '{"engine": 3}', call, "x" * 3_000_000, "\0\0", call, '{"engine": "bm']
    for name in ("search_calls", "llm_calls"):
        (store.root / "log" / f"{name}.jsonl").write_text("\n".join(lines))
    assert [record["engine"] for record in store.read_log("search_calls")] == ["bm25", "bm25"]
    assert list(store.read_log("llm_calls")) == []
    builds = b'{"stage": "load", "seconds": 1}\n{"stage": {"a": []}}\n\xff\xfe\n'
    (store.root / "log" / "builds.jsonl").write_bytes(builds)
    assert list(store.read_log("builds")) == [{"stage": "load", "seconds": 1}]


def test_what_a_damaged_table_makes_others_raise_names_it(store: Store) -> None:
    path = paragraphs(store)
    data = path.read_bytes()
    path.write_bytes(data[:8] + bytes(len(data) // 3) + data[8 + len(data) // 3 :])
    with pytest.raises(StoreError, match="cannot be read: paragraphs is damaged") as caught, store.reading():
        raise KeyError("p7")
    assert "stepsearch-data verify" in caught.value.hint


def test_a_fault_that_is_none_of_the_store_s_goes_on(store: Store) -> None:
    for error in (ZeroDivisionError("bug"), QueryError("the user's"), FileNotFoundError(2, "gone", "/elsewhere")):
        with pytest.raises(type(error)) as caught, store.reading():
            raise error
        assert caught.value is error
    with pytest.raises(StoreError, match="cannot be read: Corrupt snappy"), store.reading():
        raise OSError("Corrupt snappy compressed data")
    with pytest.raises(StoreError, match="do not fit together: 'p7' is missing"), store.reading():
        raise KeyError("p7")


def test_nothing_is_written_through_a_link(store: Store, tmp_path: Path) -> None:
    """A stranger's store must not have a build write to, truncate or sweep what it points to."""
    mine = tmp_path / "mine"
    (mine / "stages" / "load-ba9876543210").mkdir(parents=True)
    (mine / "text").write_text("mine")
    for name in (".lock", ".manifest.json.part", "log", "stages"):
        copy = Store(tmp_path / f"store-{name}")
        shutil.copytree(store.root, copy.root, symlinks=True)
        path = copy.root / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        path.symlink_to(mine / ("text" if name.startswith(".") else name))
        refused = pytest.raises(StoreError, match=r"outside of the store|cannot write the store")
        with nullcontext() if name == ".manifest.json.part" else refused, copy.locked():
            copy.write_text("manifest.json", (store.root / "manifest.json").read_text())
            copy.sweep()
        assert (mine / "text").read_text() == "mine"
        assert (mine / "stages" / "load-ba9876543210").is_dir()


def test_a_folder_that_is_called_like_an_address_is_a_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow takes a relative path `hf:x/…` for a place on the Hub, and `s3:x/…` for one on S3."""
    monkeypatch.chdir(tmp_path)
    store.root.rename("hf:x")
    moved = Store.open(Path("hf:x"))
    (output,) = (output for output in [moved.manifest().output("paragraphs")] if output)
    assert pq.read_table(moved.table(PARAGRAPHS, output)).num_rows == len(ROWS)


def test_a_name_with_a_nul_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="holds a NUL"):
        open_regular(tmp_path / "a\0b")
