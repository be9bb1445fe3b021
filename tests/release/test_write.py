"""A release of the sample, as `datasets` and Arrow read it."""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import orjson
import polars as pl
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import PublishError, StepSearchError, StoreError
from stepsearch_data.core.files import digest_of
from stepsearch_data.core.progress import Meter, Reporter
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.pipeline.marks import Change, write_marks
from stepsearch_data.pipeline.runner import Runner
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release import write
from stepsearch_data.release.dataset import CONFIGS
from stepsearch_data.release.record import read_record
from stepsearch_data.release.write import ReleaseSettings, placing
from stepsearch_data.stages import STAGES, select
from tests import rows
from tests.releases import build, release
from tests.report import reading
from tests.tree import tree

NAMES = [config.name for config in CONFIGS]
Rows = list[dict[str, Any]]


def written(folder: Path, config: str, split: str) -> Rows:
    files = read_record(folder).configs[config][split].files
    return [row for file in files for row in pq.read_table(folder / file).to_pylist()]


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_datasets_loads_every_config_with_the_features_and_rows_that_were_written(
    sample_release: Path, config: Any, tmp_path: Path
) -> None:
    loaded = datasets.load_dataset(str(sample_release), config.name, cache_dir=str(tmp_path))
    splits = read_record(sample_release).configs[config.name]
    assert list(loaded) == list(splits) == (["train"] if config.name == "corpus" else ["train", "validation"])
    for split, read in loaded.items():
        assert read.features == datasets.Features.from_arrow_schema(config.schema.remove_metadata())
        assert read.to_list() == written(sample_release, config.name, split)
        assert len(read) == splits[split].rows > 0


@pytest.mark.parametrize("config", NAMES)
def test_datasets_streams_every_config(sample_release: Path, config: str, tmp_path: Path) -> None:
    stream = datasets.load_dataset(str(sample_release), config, streaming=True, cache_dir=str(tmp_path))
    for split, read in stream.items():
        assert list(read) == written(sample_release, config, split)
        assert read.features is not None


def test_trajectories_are_those_that_are_complete_and_passed_the_gates(sample_release: Path) -> None:
    store = Store(sample_release / "store")
    tables = {name: pl.read_parquet(store.path(output(store, name))) for name in ("trajectories", "quality")}
    fit = tables["trajectories"].join(tables["quality"].drop("source"), on="question_id").filter("complete", "passed")
    assert 0 < len(fit) < len(tables["trajectories"])
    for split in ("train", "validation"):
        expected = fit.filter(split=split)["question_id"].to_list()
        for name in ("trajectories", "sub_questions", "queries"):
            found = [row["question_id"] for row in written(sample_release, name, split)]
            assert list(dict.fromkeys(found)) == expected


def output(store: Store, name: str) -> Any:
    return store.manifest().output(name)


def test_a_round_has_the_texts_of_its_documents_and_gold_paragraphs_and_all_its_queries(sample_release: Path) -> None:
    texts = {row["passage_id"]: row["text"] for row in written(sample_release, "corpus", "train")}
    queries: defaultdict[tuple[str, int], Rows] = defaultdict(list)
    for row in written(sample_release, "queries", "train"):
        queries[row["question_id"], row["hop"]].append(row)
    for row in written(sample_release, "trajectories", "train"):
        for step in row["rounds"]:
            of_hop = queries[row["question_id"], step["hop"]]
            assert step["kept_queries"] == [query["query"] for query in of_hop if query["kept"]]
            assert step["rejected_queries"] == [query["query"] for query in of_hop if not query["kept"]]
            assert step["query"] in step["kept_queries"]
            for document in (*step["documents"], *step["gold"]):
                assert document["text"] == texts[document["passage_id"]]
            assert step["gold"][0]["passage_id"] in [d["passage_id"] for d in step["documents"] if d["is_gold"]]


@pytest.mark.long
def test_queries_name_the_engines_on_which_they_are_valid(tmp_path: Path) -> None:
    store = build(tmp_path / "store", 'engines.use=["bm25", "chargram"]', "load.limit=12")
    release(store, tmp_path / "release")
    queries = written(tmp_path / "release", "queries", "train")
    engine_votes = pl.read_parquet(store.path(output(store, "engine_votes"))).filter("valid")
    valid = engine_votes.group_by("query_id", maintain_order=True).agg("engine")
    named = dict(zip(valid["query_id"], valid["engine"].to_list(), strict=True))
    assert {tuple(row["valid_engines"]) for row in queries} > {("bm25", "chargram")}
    for row in queries:
        assert row["valid_engines"] == named.get(row["query_id"], [])
        assert row["engines"] == 2


@pytest.mark.long
def test_kept_rollouts_are_a_config_with_their_turns(sample_release: Path, tmp_path: Path) -> None:
    shown = written(sample_release, "trajectories", "train")
    lines = [orjson.dumps({"id": row["question_id"], "response": row["rollout"]}) for row in shown]
    (tmp_path / "gold.jsonl").write_bytes(b"\n".join(lines))
    settings = ("quality.validation=0.2", f'rollouts.policies=["gold={tmp_path / "gold.jsonl"}"]', "pick.teacher=gold")
    made = release(build(tmp_path / "store", *settings), tmp_path / "release")
    assert list(made.record.configs) == [*NAMES, "rollouts"]
    rows = written(tmp_path / "release", "rollouts", "train")
    assert [row["response"] for row in rows] == [row["rollout"] for row in shown]
    for row, whole in zip(rows, shown, strict=True):
        assert row["right"]
        assert [turn["query"] for turn in row["turns"]] == [step["query"] for step in whole["rounds"]]
        gains = [step["information_gain"] for step in whole["rounds"]]
        assert [turn["information_gain"] for turn in row["turns"]] == pytest.approx(gains)
    loaded = datasets.load_dataset(str(tmp_path / "release"), "rollouts", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].to_list() == rows
    assert output(Store(tmp_path / "release" / "store"), "picks").rows == len(shown)


@pytest.mark.long
def test_a_rollout_has_the_licence_of_what_it_shows(sample_release: Path, tmp_path: Path) -> None:
    """A document of a web engine is nobody's; the last one of a search may be cut."""
    shown = written(sample_release, "trajectories", "train")[0]
    whole, text = shown["rollout"], shown["rounds"][0]["documents"][0]["text"]
    texts = [whole, *(whole.replace(text, other, 1) for other in (text[:20], "From the web."))]
    lines = [orjson.dumps({"id": shown["question_id"], "response": text}) for text in texts]
    (tmp_path / "mine.jsonl").write_bytes(b"\n".join(lines))
    store = build(tmp_path / "store", "quality.validation=0.2", f'rollouts.policies=["mine={tmp_path / "mine.jsonl"}"]')
    release(store, tmp_path / "release")
    rows = written(tmp_path / "release", "rollouts", "train")
    assert [row["licence"] for row in rows] == [shown["licence"], shown["licence"], "other"]
    assert shown["licence"] != "other"


@pytest.mark.long
def test_rejected_rollouts_are_no_rejected_questions(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(b'{"id": "nobody", "response": "no"}\n' * 99)
    settings = (f'rollouts.policies=["mine={tmp_path / "mine.jsonl"}"]', "run.max_reject_share=1")
    release(build(tmp_path / "store", *settings), tmp_path / "release")


def test_files_have_a_page_index_and_small_row_groups(sample_release: Path) -> None:
    paths = sorted((sample_release / "data").rglob("*.parquet"))
    assert len(paths) == 7
    for path in paths:
        metadata = pq.read_metadata(path)
        column = metadata.row_group(0).column(0)
        assert column.has_offset_index
        assert column.has_column_index
        assert column.compression == "ZSTD"
        assert all(metadata.row_group(at).total_byte_size < 100_000_000 for at in range(metadata.num_row_groups))


@pytest.mark.long
def test_equal_stores_and_settings_give_equal_bytes(sample_release: Path, tmp_path: Path) -> None:
    store = build(tmp_path / "elsewhere", "quality.validation=0.2", "run.workers=1")
    release(store, tmp_path / "again")
    assert tree(tmp_path / "again") == tree(sample_release)


def test_the_record_names_every_file_by_digest_size_and_rows(sample_release: Path) -> None:
    record = read_record(sample_release)
    there = {p.relative_to(sample_release).as_posix(): p for p in sample_release.rglob("*") if p.is_file()}
    assert there.keys() - {"release.json"} == record.files.keys()
    for path, file in record.files.items():
        assert (digest_of(there[path]), there[path].stat().st_size) == (file.sha256, file.bytes)
        assert file.rows == (pq.read_metadata(there[path]).num_rows if path.endswith(".parquet") else None)


@pytest.mark.long
def test_the_report_is_of_all_trajectories_and_of_nothing_that_is_not_released(
    sample_release: Path, sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = reading.read(sample_release / "report.html")
    assert found.summary["title"] == "ann/data"
    assert found.summary["store"] == read_record(sample_release).store
    assert len(found.records) == 70
    marked = tmp_path / "store"
    shutil.copytree(sample_store, marked)
    write_marks(Store.open(marked), {"2hop__811040_270741": Change(note="a note of mine")})
    release(Store.open(marked), tmp_path / "marked")
    assert "a note of mine" not in str(reading.read(tmp_path / "marked" / "report.html"))
    monkeypatch.setattr(write, "_REPORTED", 69)
    release(Store.open(sample_store), tmp_path / "large")
    assert not (tmp_path / "large" / "report.html").exists()
    assert "report.html" not in (tmp_path / "large" / "README.md").read_text()


def test_without_the_extra_that_draws_there_is_no_picture(
    sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    said: list[str] = []
    made = write.write_release(
        Store.open(sample_store), tmp_path / "plain", ReleaseSettings(name="ann/data"), Meter(None, "", said.append)
    )
    assert said == ["the card has no picture, and the report no charts: pip install 'stepsearch-data[charts]'"]
    assert "trajectories.png" not in (tmp_path / "plain" / "README.md").read_text()
    assert {"report.html"} < made.record.files.keys()


def test_the_store_comes_without_logs_indexes_locks_and_retries(sample_release: Path) -> None:
    names = {path.name for path in (sample_release / "store").iterdir()}
    assert names == {"manifest.json", "catalog.sql", "stages"}
    assert {path.suffix for path in (sample_release / "store/stages").rglob("*") if path.is_file()} == {".parquet"}


@pytest.mark.long
def test_an_earlier_release_is_replaced_and_nothing_of_it_stays(sample_release: Path, tmp_path: Path) -> None:
    store = build(tmp_path / "store", "load.limit=6")
    folder = tmp_path / "release"
    release(store, folder, shard_bytes=1)
    assert len(list(folder.glob("data/corpus/*"))) >= 1
    release(Store(sample_release / "store"), folder)
    assert tree(folder / "data") == tree(sample_release / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "store"]


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


@pytest.mark.parametrize("last", ["", "filter"])
def test_an_unfinished_store(tmp_path: Path, last: str) -> None:
    (tmp_path / "store").mkdir()
    if last:
        config = load_config(STAGES, environment={}, store=tmp_path / "store")
        Runner(STAGES, config, select("all", None, last)).run(Reporter(quiet=True))
    said = refusal(Store(tmp_path / "store"), tmp_path, StoreError)
    assert "not built to its end" in said
    assert "stepsearch-data build --store" in said


def test_a_stale_store(store: Store, tmp_path: Path) -> None:
    config = load_config(STAGES, settings=["filter.k=1"], environment={}, store=store.root)
    Runner(STAGES, config, ["filter"]).run(Reporter(quiet=True))
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
    assert "2 of 10 rows were rejected, more than 5.0%" in said
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


def test_a_folder_with_other_files(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "data").mkdir()
    with pytest.raises(PublishError, match="holds data, which no release wrote"):
        release(store, folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(PublishError, match=r"notes\.txt, which no release wrote"):
        release(store, folder)
    with pytest.raises(PublishError, match="it is a file"):
        release(store, folder / "notes.txt")
    assert sorted(path.name for path in folder.iterdir()) == ["data", "notes.txt"]


def test_a_release_with_files_of_ones_own_in_it(sample_release: Path, store: Store, tmp_path: Path) -> None:
    folder = shutil.copytree(sample_release, tmp_path / "release")
    (folder / ".git").mkdir()
    with pytest.raises(PublishError, match=r"\.git, which no release wrote"):
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


@pytest.mark.long
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
    manifest["stages"]["retrieve"]["fingerprint"]["engines"]["bm25"]["model"] = "/home/ann/models/e5"
    (store.root / "manifest.json").write_bytes(orjson.dumps(manifest))
    said = refusal(store, tmp_path, PublishError)
    assert "retrieve.engines.bm25.model = /home/ann/models/e5" in said
    assert "--allow-paths" in said
    release(store, tmp_path / "release", allow_paths=True)


def test_files_that_a_setting_names_are_told_by_what_they_hold_alone(tmp_path: Path) -> None:
    evaluation = rows.write_lines(tmp_path / "secret-place.jsonl", [rows.musique("2hop__9_9", question="Unlike?")])
    store = build(tmp_path / "store", "load.limit=4", f"quality.eval_sources=['musique={evaluation}']")
    release(store, tmp_path / "release")
    for path in (tmp_path / "release").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path
        assert path.is_dir() or b"secret-place" not in path.read_bytes(), path
    text = (tmp_path / "release/README.md").read_text()
    assert "Questions and gold paragraphs of this evaluation data were kept out" in text
