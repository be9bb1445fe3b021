"""A store commits whole stages, one build at a time, and never deletes what a reader holds or what is not its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.files import digest_of
from stepsearch_data.pipeline.store import Entry, Store

NAME = "0123456789ab"
HOLD = """
import sys, time
from pathlib import Path
from stepsearch_data.pipeline.store import Store
with Store(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, text: str, *, stage: str = "load", name: str = NAME, table: str = "numbers") -> Entry:
    """Commit a stage with one table and rejects (of text, which the store does not mind)."""
    fingerprint = {"version": 1, "config": {}, "inputs": {}, "outputs": {table: "text"}}
    with store.locked(), store.staging() as folder:
        (folder / f"{table}.parquet").write_text(text)
        (folder / "rejects.parquet").write_text("")
        entry = store.commit(stage, name, fingerprint, folder, {table: 1, "rejects": 0})
    store.sweep()
    return entry


def folders(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "stages").iterdir())


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store's lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_constructing_a_store_touches_nothing(store: Store) -> None:
    assert store.manifest().stages == {}
    assert not store.root.exists()


def test_opening_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at") as caught:
        Store.open(tmp_path)
    assert "stepsearch-data build" in caught.value.hint


def test_what_is_committed_is_found(store: Store) -> None:
    put(store, "one")
    output = Store.open(store.root).manifest().output("numbers")
    assert output is not None
    assert store.path(output).read_text() == "one"
    assert (output.rows, output.bytes) == (1, 3)
    assert output.digest == digest_of(store.path(output))
    assert folders(store) == [f"load-{NAME}"]


def test_a_commit_replaces_the_stage_and_sweeps_the_folder_before(store: Store) -> None:
    put(store, "one")
    put(store, "two", name="ba9876543210")
    assert folders(store) == ["load-ba9876543210"]
    assert store.manifest().stages["load"].folder == "stages/load-ba9876543210"


def test_other_stages_stay(store: Store) -> None:
    put(store, "one")
    put(store, "two", stage="corpus", table="letters")
    assert list(store.manifest().stages) == ["corpus", "load"]


def test_the_same_bytes_again_keep_the_folder(store: Store) -> None:
    put(store, "one")
    before = store.digest()
    put(store, "one")
    assert store.digest() == before
    assert folders(store) == [f"load-{NAME}"]


def test_other_bytes_of_one_fingerprint_get_a_folder_of_their_own(store: Store) -> None:
    put(store, "one")
    assert put(store, "two").folder == f"stages/load-{NAME}.2"
    assert folders(store) == [f"load-{NAME}.2"]


def test_what_is_not_committed_is_gone(store: Store) -> None:
    with store.locked(), store.staging() as folder:
        (folder / "numbers.parquet").write_text("one")
    assert not (store.root / ".staging").exists()
    assert store.manifest().stages == {}


def test_left_overs_of_a_crash_are_swept_by_the_next_build(store: Store) -> None:
    put(store, "one")
    for left in (".staging", "stages/corpus-0123456789ab", "stages/load-ba9876543210.2"):
        (store.root / left).mkdir(parents=True)
        (store.root / left / "half.parquet").write_text("ha")
    with store.locked():
        store.sweep()
    assert folders(store) == [f"load-{NAME}"]
    assert not (store.root / ".staging").exists()


def test_a_folder_that_is_not_ours_is_not_swept(store: Store) -> None:
    """Somebody's own project may have a folder `stages` too."""
    for theirs in ("stages/common", "stages/load-new"):
        (store.root / theirs).mkdir(parents=True)
    (store.root / "stages/notes.txt").write_text("mine")
    put(store, "one")
    assert folders(store) == ["common", f"load-{NAME}", "load-new", "notes.txt"]


def test_a_reader_keeps_its_files_while_a_build_replaces_them(store: Store) -> None:
    put(store, "one")
    with store.reading() as manifest:
        put(store, "two", name="ba9876543210")
        output = manifest.output("numbers")
        assert output is not None
        assert store.path(output).read_text() == "one"
        assert folders(store) == [f"load-{NAME}", "load-ba9876543210"]
    store.sweep()
    assert folders(store) == ["load-ba9876543210"]


def test_readers_do_not_wait_for_each_other_or_for_a_build(store: Store) -> None:
    put(store, "one")
    with store.locked(), store.reading() as first, store.reading() as second:
        assert first == second


def test_a_second_process_is_refused(store: Store) -> None:
    with holder(store.root) as process:
        with pytest.raises(StoreError, match="another build is writing") as caught, store.locked():
            pass
        assert f"process {process.pid}" in caught.value.message
        assert "--store" in caught.value.hint


def test_the_lock_is_free_after_kill_9(store: Store) -> None:
    with holder(store.root) as process:
        process.kill()
        process.wait()
        put(store, "one")
    assert (store.root / ".lock").read_text() == ""


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ('{"format": 1, "stages": ["something else"]}', "has store format 1; this version reads 2"),
        ('{"format": 2, "stages": ["something else"]}', "is not a store's manifest"),
        ('{"name": "My web app", "icons": []}', "is not a store's manifest"),
        ("[", "is not a store's manifest"),
        ("", "is not a store's manifest"),
        ("\0\xff", "is not a store's manifest"),
    ],
)
def test_a_manifest_that_is_not_ours_is_an_error_and_stays(store: Store, manifest: str, message: str) -> None:
    store.root.mkdir()
    path = store.root / "manifest.json"
    path.write_text(manifest, encoding="latin-1")
    with pytest.raises(StoreError, match=message):
        store.manifest()
    with pytest.raises(StoreError, match=message), store.locked():
        pass
    assert path.read_text(encoding="latin-1") == manifest


def test_a_path_through_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="Not a directory"):
            Store(root).manifest()
        with pytest.raises(StoreError, match="cannot write the store"), Store(root).locked():
            pass


def test_the_digest_of_a_folder_knows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a" / "in").mkdir(parents=True)
    (tmp_path / "a" / "in" / "x").write_text("1")
    before = digest_of(tmp_path / "a")
    (tmp_path / "a" / "in" / "x").rename(tmp_path / "a" / "in" / "y")
    renamed = digest_of(tmp_path / "a")
    (tmp_path / "a" / "in" / "y").write_text("2")
    assert len({before, renamed, digest_of(tmp_path / "a")}) == 3


def test_the_log_survives_a_line_that_was_cut_short(store: Store) -> None:
    put(store, "one")
    store.log("builds", {"stage": "load"})
    with open(store.root / "log" / "builds.jsonl", "a") as file:
        file.write('{"stage": "cor')
    assert list(store.read_log("builds")) == [{"stage": "load"}]
