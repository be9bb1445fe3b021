"""What is refused before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepsearch_data.core.errors import PublishError, StepSearchError, StoreError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.pipeline.engine import Build
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.placing import placing
from stepsearch_data.stages import STAGES, select
from tests import rows
from tests.releases import build, release
from tests.tree import tree


@pytest.fixture
def store(sample_store: Path, tmp_path: Path) -> Store:
    """A store to spoil."""
    return Store(shutil.copytree(sample_store, tmp_path / "store"))


def refusal(store: Store, tmp_path: Path, kind: type[StepSearchError], **settings: Any) -> str:
    """What a release of this store is refused with; nothing is left behind."""
    folder = tmp_path / "out" / "release"
    with pytest.raises(kind) as refused:
        release(store, folder, **settings)
    assert not folder.exists()
    assert not list(folder.parent.glob(".*"))
    return f"{refused.value.message} ({refused.value.hint})"


def test_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert "not built to its end" in refusal(Store(tmp_path / "store"), tmp_path, StoreError)


def test_an_unfinished_store(tmp_path: Path) -> None:
    config = load_config(STAGES, environment={}, store=tmp_path / "store")
    Build(STAGES, config, select("all", None, "filter")).run(Reporter(quiet=True))
    said = refusal(Store(tmp_path / "store"), tmp_path, StoreError)
    assert "not built to its end" in said
    assert "stepsearch-data build --store" in said


def test_a_stale_store(store: Store, tmp_path: Path) -> None:
    config = load_config(STAGES, settings=["filter.k=1"], environment={}, store=store.root)
    Build(STAGES, config, ["filter"]).run(Reporter(quiet=True))
    assert "not up to date: pairs, quality, trajectories" in refusal(store, tmp_path, StoreError)


def test_a_table_that_is_cut_or_changed(store: Store, tmp_path: Path) -> None:
    hits = next(store.root.glob("stages/retrieve-*/hits.parquet"))
    data = hits.read_bytes()
    hits.write_bytes(data[:-1])
    assert "hits.parquet is damaged" in refusal(store, tmp_path, StoreError)
    hits.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert "hits is damaged" in refusal(store, tmp_path, StoreError)


def test_a_store_without_a_trajectory_that_is_fit(tmp_path: Path) -> None:
    store = build(tmp_path / "store", "load.limit=4", "quality.min_letters=1", "quality.broken_text='reject'")
    assert "no trajectory is complete and passed" in refusal(store, tmp_path, PublishError)


def test_more_rejects_than_are_allowed(tmp_path: Path) -> None:
    lines: list[rows.Row | bytes] = [*(rows.musique(f"2hop__{n}_{n}") for n in range(8)), b"{broken", b"{broken too"]
    file = rows.write_lines(tmp_path / "rows.jsonl", lines)
    store = build(tmp_path / "store", "quality.duplicate='flag'", sources=[f"musique={file}"])
    said = refusal(store, tmp_path, PublishError)
    assert "2 of 10 rows were set aside, more than 5.0%" in said
    assert "--max-rejects" in said
    assert "more than 19.0%" in refusal(store, tmp_path, PublishError, max_rejects=0.19)
    release(store, tmp_path / "release", max_rejects=0.2)
    assert "| load | 2 |" in (tmp_path / "release/README.md").read_text()


def test_documents_of_their_own_count_as_rows_that_were_read(tmp_path: Path) -> None:
    documents = [{"title": f"T{n}", "text": f"Text number {n} of many."} for n in range(40)]
    file = rows.write_lines(tmp_path / "mine.jsonl", [rows.jsonl("q1"), b"{broken", *documents])
    store = build(tmp_path / "store", sources=[f"jsonl={file}"])
    release(store, tmp_path / "release", licences={"jsonl": "mit"})


def test_a_place_in_the_store_or_around_it(store: Store, tmp_path: Path) -> None:
    before = tree(store.root)
    for folder in (store.root, store.root / "release", tmp_path):
        with pytest.raises(PublishError, match="lie in each other"):
            release(store, folder)
    assert tree(store.root) == before


def test_a_folder_that_is_somebody_elses(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "data").mkdir()
    with pytest.raises(PublishError, match="is not empty, and data is no release's"):
        release(store, folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(PublishError, match=r"notes\.txt is no release's"):
        release(store, folder)
    with pytest.raises(PublishError, match="it is a file"):
        release(store, folder / "notes.txt")
    assert sorted(path.name for path in folder.iterdir()) == ["data", "notes.txt"]


def test_a_release_with_files_of_ones_own_in_it(sample_release: Path, store: Store, tmp_path: Path) -> None:
    folder = shutil.copytree(sample_release, tmp_path / "release")
    (folder / ".git").mkdir()
    with pytest.raises(PublishError, match=r"\.git is no release's"):
        release(store, folder)


def test_two_that_write_the_same_folder(store: Store, tmp_path: Path) -> None:
    with placing(tmp_path / "release"), pytest.raises(PublishError, match="another process is writing"):
        release(store, tmp_path / "release")


def test_what_fails_on_the_way_leaves_the_earlier_release(sample_release: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sample_release, tmp_path / "release")

    def fail() -> None:
        with placing(folder) as staging:
            (staging / "half").write_text("x")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert tree(folder) == tree(sample_release)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_left_overs_of_a_killed_process_do_not_matter(sample_release: Path, tmp_path: Path) -> None:
    for name in (".release.new", ".release.old"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "half").write_text("x")
    folder = shutil.copytree(sample_release, tmp_path / "release")
    release(Store(sample_release / "store"), folder)
    assert tree(folder) == tree(sample_release)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_a_manifest_that_tells_a_path_of_the_machine(store: Store, tmp_path: Path) -> None:
    manifest = orjson.loads((store.root / "manifest.json").read_bytes())
    manifest["stages"]["retrieve"]["recipe"]["engines"]["bm25"]["model"] = "/home/ann/models/e5"
    (store.root / "manifest.json").write_bytes(orjson.dumps(manifest))
    said = refusal(store, tmp_path, PublishError)
    assert "retrieve.engines.bm25.model = /home/ann/models/e5" in said
    assert "--allow-paths" in said
    release(store, tmp_path / "release", allow_paths=True)


def test_a_manifest_that_points_out_of_its_store(store: Store, tmp_path: Path) -> None:
    manifest = orjson.loads((store.root / "manifest.json").read_bytes())
    passages = manifest["stages"]["corpus"]["outputs"]["passages"]
    (store.root / passages["path"]).rename(tmp_path / "passages.parquet")
    passages["path"] = "../passages.parquet"
    (store.root / "manifest.json").write_bytes(orjson.dumps(manifest))
    assert "is not where passages lies" in refusal(store, tmp_path, StoreError)


def test_files_that_a_setting_names_are_told_by_what_they_hold_alone(tmp_path: Path) -> None:
    evaluation = rows.write_lines(tmp_path / "secret-place.jsonl", [rows.musique("2hop__9_9", question="Unlike?")])
    store = build(tmp_path / "store", "load.limit=4", f"quality.eval_sources=['musique={evaluation}']")
    release(store, tmp_path / "release")
    for path in (tmp_path / "release").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path
        assert path.is_dir() or b"secret-place" not in path.read_bytes(), path
    text = (tmp_path / "release/README.md").read_text()
    assert "Questions and gold paragraphs of this evaluation data were kept out" in text
