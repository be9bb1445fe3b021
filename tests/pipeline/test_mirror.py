"""A store at a URL: commits are atomic, machines go on where others stopped, and only what is needed is fetched."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.pipeline import lease, mirror
from stepsearch_data.pipeline.store import Output, Store
from stepsearch_data.release.verify import verify
from stepsearch_data.remote import objects as objects_module
from tests.object_server import Broken, ObjectServer
from tests.pipeline.machines import NAME, Machine, logged, put, text_of


def test_constructing_a_store_touches_nothing(machine: Machine, objects_server: ObjectServer) -> None:
    store = machine("a")
    assert store.name.startswith("s3://bucket-")
    assert not store.root.exists()
    assert objects_server.requests == []


def test_a_commit_is_seen_by_another_machine(machine: Machine) -> None:
    put(machine("a"), "1")
    assert text_of(machine("b")) == "1"
    assert machine("a").digest() == machine("b").digest()


def test_a_url_holds_what_a_local_store_holds(machine: Machine, objects_server: ObjectServer, tmp_path: Path) -> None:
    put(machine("a"), "1", log="load")
    put(Store(tmp_path / "local"), "1", log="load")
    assert machine("b").digest() == Store(tmp_path / "local").digest()
    sent = {path.removeprefix("store/") for path in objects_server.asked("PUT")}
    assert sent == {
        ".lock",
        "log/builds.jsonl",
        f"stages/load-{NAME}/numbers.parquet",
        f"stages/load-{NAME}/rejects.parquet",
        "manifest.json",
    }


def test_copies_of_a_store_are_stores(machine: Machine, tmp_path: Path) -> None:
    """As `aws s3 sync` makes them, to a URL and back."""
    local = Store(tmp_path / "local")
    put(local, "1", log="load")
    objects = objects_module.Objects(machine("a").name)
    for path in (p for p in local.root.rglob("*") if p.is_file()):
        objects.upload(path, path.relative_to(local.root).as_posix())
    put(machine("a"), "2", stage="corpus", table="words", log="corpus")
    assert text_of(machine("b")) == "1"
    for key in objects.listed():
        (tmp_path / "back" / key).parent.mkdir(parents=True, exist_ok=True)
        objects.download(key, tmp_path / "back" / key)
    back = Store(tmp_path / "back")
    assert back.digest() == machine("a").digest()
    assert logged(back) == ["load", "corpus"]
    put(back, "3", stage="words", table="more")


def test_the_manifest_comes_last(machine: Machine, objects_server: ObjectServer) -> None:
    put(machine("a"), "1", log="load")
    puts = [path for path in objects_server.asked("PUT") if not path.endswith(".lock")]
    assert puts[-1] == "store/manifest.json"
    assert puts.count("store/manifest.json") == 1


def test_a_reader_fetches_what_it_reads_and_once(machine: Machine, objects_server: ObjectServer) -> None:
    put(machine("a"), "1")
    put(machine("a"), "2", stage="corpus", table="words")
    objects_server.requests.clear()
    for _ in range(2):
        assert text_of(machine("b")) == "1"
    fetched = [path for path in objects_server.asked("GET") if "/stages/" in path]
    assert fetched == [f"store/stages/load-{NAME}/numbers.parquet"]


def test_a_commit_that_was_not_sent_is_sent_by_the_next_build(machine: Machine, objects_server: ObjectServer) -> None:
    store = machine("a")
    objects_server.fault = lambda method, path: (
        Broken(status=500) if method == "PUT" and path.endswith("numbers.parquet") else None
    )
    with pytest.raises(StoreError, match="cannot be used: 500"):
        put(store, "1", log="load")
    objects_server.fault = lambda _method, _path: None
    assert machine("b").manifest().stages == {}
    assert logged(machine("b")) == ["load"]
    with machine("a").locked():
        pass
    assert text_of(machine("b")) == "1"


def test_what_was_sent_of_an_interrupted_commit_is_not_sent_again(
    machine: Machine, objects_server: ObjectServer
) -> None:
    objects_server.fault = lambda method, path: (
        Broken(status=500) if method == "PUT" and path.endswith("manifest.json") else None
    )
    with pytest.raises(StoreError):
        put(machine("a"), "1")
    objects_server.fault = lambda _method, _path: None
    objects_server.requests.clear()
    with machine("a").locked():
        pass
    assert [path for path in objects_server.asked("PUT") if "/stages/" in path] == []
    put(machine("b"), "1")
    assert [path for path in objects_server.asked("PUT") if "/stages/" in path] == []
    assert text_of(machine("c")) == "1"


def test_a_machine_goes_on_from_what_another_one_has_committed(machine: Machine) -> None:
    put(machine("a"), "1", log="load")
    put(machine("b"), "2", stage="corpus", table="words", log="corpus")
    assert text_of(machine("a"), "words") == "2"
    assert set(machine("a").manifest().stages) == {"load", "corpus"}
    assert logged(machine("a")) == ["load", "corpus"]


def test_a_mirror_that_was_deleted_is_made_again(machine: Machine) -> None:
    put(machine("a"), "1", log="load")
    shutil.rmtree(machine("a").root)
    put(machine("a"), "2", stage="corpus", table="words", log="corpus")
    assert text_of(machine("a")) == "1"
    assert logged(machine("b")) == ["load", "corpus"]


def test_a_store_that_was_deleted_is_new(machine: Machine) -> None:
    put(machine("a"), "1")
    objects = objects_module.Objects(machine("a").name)
    objects.delete(objects.listed())
    with machine("a").locked():
        assert machine("a").manifest().stages == {}
    put(machine("a"), "2", stage="corpus", table="words")
    assert set(machine("b").manifest().stages) == {"corpus"}


def test_two_builds_of_a_store_are_one_too_many(machine: Machine) -> None:
    one = machine("a")
    with one.locked(), pytest.raises(StoreError, match="another build is writing s3://"), machine("b").locked():
        pass
    with machine("b").locked():
        pass


def test_a_writer_that_was_overtaken_commits_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock ended while it slept, another build has committed: the manifest is not the one that it read."""
    slow, fast = machine("a"), machine("b")
    monkeypatch.setattr(lease.Lease, "_wait_for", lambda *_: None)  # as if the lock had ended
    monkeypatch.setattr(lease.Lease, "check", lambda _: None)  # and as if its owner had not noticed
    with pytest.raises(StoreError, match=r"another build has changed s3://.* meanwhile"):
        overtaken(slow, lambda: put(fast, "fast"))
    assert text_of(machine("c")) == "fast"
    with machine("a").locked():
        assert text_of(machine("a")) == "fast"


def overtaken(slow: Store, meanwhile: Callable[[], object]) -> None:
    fingerprint = {"version": 1, "config": {}, "inputs": {}, "outputs": {"numbers": "text"}}
    with slow.locked(), slow.staging() as folder:
        meanwhile()
        (folder / "numbers.parquet").write_text("slow")
        (folder / "rejects.parquet").write_text("")
        slow.commit("load", "abcdefabcdef", fingerprint, folder, {"numbers": 1, "rejects": 0})


def test_other_bytes_of_the_same_fingerprint_get_a_folder_of_their_own(machine: Machine) -> None:
    """A model may answer differently: what a reader is about to fetch is never overwritten."""
    first = put(machine("a"), "1")
    reader = machine("c")
    before = reader.manifest()
    second = put(machine("b"), "2")
    assert (first.folder, second.folder) == (f"stages/load-{NAME}", f"stages/load-{NAME}.2")
    output = before.output("numbers")
    assert output
    assert reader.path(output).read_text() == "1"
    assert text_of(machine("a")) == "2"


def test_a_file_that_was_never_sent_is_not_taken_for_the_committed_one(
    machine: Machine, objects_server: ObjectServer
) -> None:
    objects_server.fault = lambda method, path: Broken(status=500) if method == "PUT" and "/stages/" in path else None
    with pytest.raises(StoreError):
        put(machine("a"), "A")
    objects_server.fault = lambda _method, _path: None
    put(machine("b"), "B")
    assert text_of(machine("a")) == "B"
    with machine("a").locked():
        pass
    assert text_of(machine("a")) == "B"


def committed(store: Store) -> Output:
    output = store.manifest().output("numbers")
    assert output
    return output


@pytest.mark.parametrize("text", [b"2", b"", b"much longer"], ids=["changed", "empty", "longer"])
def test_a_damaged_object_is_refused(text: bytes, machine: Machine) -> None:
    put(machine("a"), "1")
    store = machine("b")
    objects = objects_module.Objects(store.name)
    objects.write(committed(store).path, text, {"e_tag": objects.head(committed(store).path)["e_tag"]})  # type: ignore[index]  # it is there
    for _ in range(2):
        with pytest.raises(StoreError, match="is damaged") as error:
            text_of(store)
        assert "stepsearch-data verify s3://" in error.value.hint


def test_verify_reads_what_lies_there(machine: Machine) -> None:
    put(machine("a"), "1")
    put(machine("a"), "2", stage="corpus", table="words")
    store = machine("b")
    objects = objects_module.Objects(store.name)
    changed, missing = committed(store), store.manifest().output("words")
    assert missing
    objects.upload(Path(__file__), changed.path)
    objects.delete([missing.path])
    objects.write(f"stages/load-{NAME}/more", b"", None)
    with Reporter(quiet=True).stage("verify") as meter:
        report = verify(Path(store.name), meter)
    assert report.where == store.name
    assert {(fault.path, str(fault.state)) for fault in report.faults} == {
        (changed.path, "changed"),
        (missing.path, "missing"),
        (f"stages/load-{NAME}/more", "unexpected"),
    }


def test_a_missing_object_is_told_and_built_again(machine: Machine) -> None:
    put(machine("a"), "1")
    store = machine("b")
    objects_module.Objects(store.name).delete([committed(store).path])
    with pytest.raises(StoreError, match=r"numbers\.parquet is missing"):
        text_of(store)
    assert not store.is_whole(committed(store))
    with machine("a").locked():  # it has the file, and sends it again
        pass
    assert text_of(machine("b")) == "1"


@pytest.mark.parametrize(
    "manifest", [b"{", b'{"format": 2, "stages": {"load": {"folder": "../x"}}}', b'{"format": 1}', b"[]"], ids=repr
)
def test_a_manifest_of_a_stranger_is_refused(manifest: bytes, machine: Machine) -> None:
    store = machine("a")
    objects_module.Objects(store.name).write("manifest.json", manifest, None)
    with pytest.raises(StoreError, match=r"s3://.*/manifest\.json"):
        store.manifest()
    with pytest.raises(StoreError), store.locked():
        pass


def test_replaced_files_are_deleted_when_nobody_can_still_need_them(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(machine("a"), "1")
    put(machine("a"), "2", name="aaaaaaaaaaaa")
    objects = objects_module.Objects(machine("a").name)
    with machine("a").locked():
        pass
    assert f"stages/load-{NAME}/numbers.parquet" in objects.listed()
    monkeypatch.setattr(mirror, "KEPT", timedelta(seconds=1))
    time.sleep(2.1)
    objects.write("stages/mine.txt", b"not ours", None)
    with machine("b").locked():
        pass
    assert sorted(key for key in objects.listed("stages")) == [
        "stages/load-aaaaaaaaaaaa/numbers.parquet",
        "stages/load-aaaaaaaaaaaa/rejects.parquet",
        "stages/mine.txt",
    ]


def test_a_reader_of_a_manifest_that_was_swept_is_told_to_read_again(machine: Machine) -> None:
    put(machine("a"), "1")
    reader = machine("b")
    before = committed(reader)
    put(machine("a"), "2", name="aaaaaaaaaaaa")
    objects_module.Objects(reader.name).delete([before.path])
    with pytest.raises(StoreError, match="is missing") as error:
        reader.path(before)
    assert "run this again" in error.value.hint


def test_a_folder_is_fetched_whole(machine: Machine, tmp_path: Path) -> None:
    fingerprint = {"version": 1, "config": {}, "inputs": {}, "outputs": {"index": "folder"}}
    store = machine("a")
    with store.locked(), store.staging() as folder:
        (folder / "index" / "bm25").mkdir(parents=True)
        (folder / "index" / "bm25" / "data").write_text("data")
        (folder / "index" / "more").write_text("more")
        (folder / "rejects.parquet").write_text("")
        entry = store.commit("index", NAME, fingerprint, folder, {"rejects": 0})
    other = machine("b")
    output = entry.outputs["index"]
    assert other.is_whole(output)
    assert other.has(output)
    found = other.path(output)
    assert (found / "bm25" / "data").read_text() == "data"
    assert other.mirror
    assert other.mirror.digest(output) == output.digest


def test_a_path_that_arrives_on_another_machine_is_fetched_there(machine: Machine) -> None:
    """A worker of a cluster gets paths of the driver's mirror."""
    put(machine("a"), "1")
    store = machine("a")
    path = store.path(committed(store))
    sent = pickle.dumps(path)
    shutil.rmtree(store.root)
    arrived = pickle.loads(sent)
    assert arrived == path
    assert arrived.read_text() == "1"


def test_a_copy_that_cannot_be_written_is_told(machine: Machine, tmp_path: Path) -> None:
    put(machine("a"), "1")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write the copy of s3://.*/store: Not a directory") as error:
        text_of(machine("file"))
    assert "XDG_CACHE_HOME" in error.value.hint
    with pytest.raises(StoreError, match="cannot write"), machine("file").locked():
        pass


def test_a_place_that_cannot_hold_a_store_is_named() -> None:
    with pytest.raises(StoreError, match="https:// is not a place of stores"):
        Store(Path("https://host/store"))
    with pytest.raises(StoreError, match="too long"):
        Store(Path("s3://bucket/" + "a" * 300))


def test_a_mirror_is_known_by_its_folder(machine: Machine) -> None:
    store = machine("a")
    again = Store(store.root)
    assert (again.name, again.root) == (store.name, store.root)


def test_a_local_copy_that_was_cut_is_fetched_again(machine: Machine) -> None:
    put(machine("a"), "a longer text")
    store = machine("a")
    path = store.path(committed(store))
    path.write_text("a lon")
    assert text_of(store) == "a longer text"
