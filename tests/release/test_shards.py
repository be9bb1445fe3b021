"""Shards of bounded size, and row groups that never grow with a single row."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.release.dataset import CORPUS, ReleasedPassage
from stepsearch_data.release.shards import Shards


def passage(number: int, text: str) -> ReleasedPassage:
    fields = {"title": "T", "questions": 1, "gold_questions": 0, "sources": ["jsonl"], "licence": "mit"}
    return ReleasedPassage.model_validate({"passage_id": f"{number:016x}", "text": text, **fields})


def test_a_split_goes_into_as_many_shards_as_its_bytes_need(tmp_path: Path) -> None:
    shards = Shards(tmp_path, "train", CORPUS, shard_bytes=100_000)
    draw = Random(1)
    rows = [passage(number, draw.randbytes(50).hex()) for number in range(12_000)]
    for row in rows:
        shards.append(row)
    paths = shards.finish()
    total = len(paths)
    assert total > 1
    assert [path.name for path in paths] == [f"train-{n:05}-of-{total:05}.parquet" for n in range(total)]
    assert sorted(tmp_path.iterdir()) == paths
    assert shards.rows == len(rows)
    read = pa.concat_tables(pq.read_table(path) for path in paths)
    assert read["passage_id"].to_pylist() == [row.passage_id for row in rows]


def test_a_row_group_ends_where_its_rows_or_its_bytes_are_enough(tmp_path: Path) -> None:
    shards = Shards(tmp_path, "train", CORPUS, shard_bytes=1 << 40)
    for number in range(6_000):
        shards.append(passage(number, "short"))
    for number in range(100):
        shards.append(passage(number, "x" * 2_000_000))
    (path,) = shards.finish()
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    assert groups[0].num_rows == CORPUS.rows_per_group
    assert max(group.total_byte_size for group in groups) < 100_000_000
    assert sum(group.num_rows for group in groups) == 6_100


def test_a_row_that_is_put_in_changes_the_bytes_around_it_alone(tmp_path: Path) -> None:
    draw = Random(1)
    rows = [passage(number, draw.randbytes(800).hex()) for number in range(4_900)]
    before, after = write(tmp_path / "a", rows), write(tmp_path / "b", [passage(9_999, "new"), *rows])
    blocks = [before[at : at + 4096] for at in range(0, len(before) - 4096, 4096)]
    assert len(blocks) > 400
    assert sum(block in after for block in blocks) / len(blocks) > 0.7  # without content-defined chunks: a twentieth


def write(folder: Path, rows: list[ReleasedPassage]) -> bytes:
    shards = Shards(folder, "train", CORPUS, shard_bytes=1 << 40)
    for row in rows:
        shards.append(row)
    (path,) = shards.finish()
    return path.read_bytes()


def test_an_empty_split_has_no_file(tmp_path: Path) -> None:
    assert Shards(tmp_path, "train", CORPUS, shard_bytes=1).finish() == []
    assert not list(tmp_path.iterdir())
