"""From a release back to the very store that it was written from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from stepsearch_data.core.errors import PublishError, StoreError
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.pull import Restored, restore
from stepsearch_data.release.verify import verify
from tests.conftest import Run
from tests.llm_server import LlmServer
from tests.oracle import Oracle
from tests.releases import build, release
from tests.tree import tree

_OWN = (".lock", "log", "index")


def back(folder: Path, root: Path) -> Restored:
    return restore(folder, root, Meter(None, "restore"))


@pytest.fixture
def copied(sample_release: Path, tmp_path: Path) -> Path:
    """A release to spoil."""
    return shutil.copytree(sample_release, tmp_path / "release")


def test_the_store_has_the_digest_and_the_tables_that_it_had(sample_release: Path, tmp_path: Path) -> None:
    restored = back(sample_release, tmp_path / "store")
    assert restored.fresh
    assert restored.digest == Store(sample_release / "store").digest()
    assert tree(tmp_path / "store", *_OWN) == tree(sample_release / "store")


def test_sql_audit_and_export_work(sample_release: Path, tmp_path: Path, cli: Run) -> None:
    store = tmp_path / "store"
    back(sample_release, store)
    counted = cli("sql", "SELECT count(*) AS n FROM trajectories", "--store", store, "--format", "json")
    assert json.loads(counted.stdout) == [{"n": 70}]
    for verb in (("audit",), ("export", "--format", "verl", "--output", tmp_path / "verl")):
        said = cli(*verb, "--store", store)
        assert said.returncode == 0, said.stderr


def test_its_catalog_works_in_any_duckdb(sample_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back(sample_release, tmp_path / "store")
    monkeypatch.chdir(tmp_path / "store")
    connection = duckdb.connect()
    connection.execute(Path("catalog.sql").read_text())
    assert connection.execute("SELECT count(*) FROM queries WHERE NOT kept").fetchone() == (24,)
    assert connection.execute("SELECT count(*) FROM search_calls").fetchone() == (0,)


def test_a_build_makes_the_index_anew_and_nothing_else_and_the_digest_stays(
    sample_release: Path, tmp_path: Path, cli: Run
) -> None:
    restored = back(sample_release, tmp_path / "store")
    built = cli("build", "--store", tmp_path / "store", "--set", "quality.validation=0.2")
    assert built.returncode == 0, built.stderr
    ran = [line.split()[0] for line in built.stderr.splitlines() if line.endswith(" s")]
    assert ran == ["index"]
    assert Store(tmp_path / "store").digest() == restored.digest
    assert not verify(tmp_path / "store", Meter(None, "verify")).faults


def test_a_release_of_the_restored_store_has_the_same_data(sample_release: Path, tmp_path: Path) -> None:
    back(sample_release, tmp_path / "store")
    release(Store(tmp_path / "store"), tmp_path / "again")
    assert tree(tmp_path / "again") == tree(sample_release)


@pytest.mark.long
def test_what_a_model_wrote_is_not_asked_for_again(
    sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up-123456789abc")
    asked = ("decompose.llm=mock", "queries.llm=mock", "load.limit=3")
    with LlmServer(Oracle(sample_store)) as server:
        reach = (f"llm.base_url={server.url}", f"llm.replay={tmp_path / 'replay.sqlite'}")
        store = build(tmp_path / "store", *asked, *reach)
        store.try_again("decompose", ["2hop__811040_270741"])
        build(tmp_path / "store", *asked, *reach)
        release(store, tmp_path / "release")
        paid = len(server.requests)
        back(tmp_path / "release", tmp_path / "back")
        build(tmp_path / "back", *asked, *reach[:1], f"llm.replay={tmp_path / 'empty.sqlite'}")
        assert len(server.requests) == paid
    assert Store(tmp_path / "back").digest() == store.digest()


def test_the_same_store_is_left_as_it_is_and_what_it_lacks_is_mended(sample_release: Path, tmp_path: Path) -> None:
    back(sample_release, tmp_path / "store")
    whole = tree(tmp_path / "store")
    (tmp_path / "store/retries.json").write_text('{"decompose": {}}')
    next((tmp_path / "store/stages").glob("gather-*/questions.parquet")).write_bytes(b"")
    assert not back(sample_release, tmp_path / "store").fresh
    assert (tmp_path / "store/retries.json").read_text() == '{"decompose": {}}'
    assert tree(tmp_path / "store", "retries.json") == whole


def test_a_folder_with_other_files_is_refused(sample_release: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PublishError, match=r"holds other files, such as mine\.txt"):
        back(sample_release, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(PublishError, match="is a file"):
        back(sample_release, tmp_path / "mine.txt")


def test_a_store_that_a_build_is_writing_is_refused(sample_release: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.locked(), pytest.raises(StoreError, match="another build is writing"):
        back(sample_release, store.root)


def test_what_a_killed_restore_left_does_not_matter(sample_release: Path, tmp_path: Path) -> None:
    back(sample_release, tmp_path / "store")
    whole = tree(tmp_path / "store")
    (tmp_path / "store/manifest.json").unlink()  # it comes last
    (tmp_path / "store/.staging").mkdir()
    (tmp_path / "store/.staging/half.parquet").write_bytes(b"PAR1")
    next((tmp_path / "store/stages").glob("gather-*/questions.parquet")).write_bytes(b"cut")
    assert back(sample_release, tmp_path / "store").fresh
    assert tree(tmp_path / "store") == whole
