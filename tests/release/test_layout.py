"""A release of the sample, as `datasets` and Arrow read it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.digest import digest_of
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.record import read_record
from stepsearch_data.release.tables import CONFIGS
from tests.releases import build, release
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
    for split, rows in loaded.items():
        assert rows.features == datasets.Features.from_arrow_schema(config.schema.remove_metadata())
        assert rows.to_list() == written(sample_release, config.name, split)
        assert len(rows) == splits[split].rows > 0


@pytest.mark.parametrize("config", NAMES)
def test_datasets_streams_every_config(sample_release: Path, config: str, tmp_path: Path) -> None:
    stream = datasets.load_dataset(str(sample_release), config, streaming=True, cache_dir=str(tmp_path))
    for split, rows in stream.items():
        assert list(rows) == written(sample_release, config, split)
        assert rows.features is not None


def test_the_default_config_is_the_trajectories(sample_release: Path, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(sample_release), split="train", cache_dir=str(tmp_path))
    assert loaded.to_list() == written(sample_release, "trajectories", "train")


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


def test_queries_name_the_engines_on_which_they_are_valid(tmp_path: Path) -> None:
    store = build(tmp_path / "store", 'engines.use=["bm25", "chargram"]', "load.limit=12")
    release(store, tmp_path / "release")
    rows = written(tmp_path / "release", "queries", "train")
    ballots = pl.read_parquet(store.path(output(store, "ballots"))).filter("valid")
    valid = ballots.group_by("query_id", maintain_order=True).agg("engine")
    named = dict(zip(valid["query_id"], valid["engine"].to_list(), strict=True))
    assert {tuple(row["valid_engines"]) for row in rows} > {("bm25", "chargram")}
    for row in rows:
        assert row["valid_engines"] == named.get(row["query_id"], [])
        assert row["engines"] == 2


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


def test_the_store_comes_without_logs_indexes_locks_and_retries(sample_release: Path) -> None:
    names = {path.name for path in (sample_release / "store").iterdir()}
    assert names == {"manifest.json", "catalog.sql", "stages"}
    assert {path.suffix for path in (sample_release / "store/stages").rglob("*") if path.is_file()} == {".parquet"}


def test_an_earlier_release_is_replaced_and_nothing_of_it_stays(sample_release: Path, tmp_path: Path) -> None:
    store = build(tmp_path / "store", "load.limit=6")
    folder = tmp_path / "release"
    release(store, folder, shard_bytes=1)
    assert len(list(folder.glob("data/corpus/*"))) >= 1
    release(Store(sample_release / "store"), folder)
    assert tree(folder / "data") == tree(sample_release / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "store"]
