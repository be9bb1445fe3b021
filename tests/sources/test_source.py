"""What `--source` may say, and what identifies a source's content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.sources import BUILT
from stepsearch_data.sources.record import Record
from stepsearch_data.sources.source import Source, parse_source, parse_sources
from tests.rows import musique


@pytest.mark.parametrize("kind", BUILT)
def test_kind_and_path(kind: str) -> None:
    source = parse_source(f"{kind}=some/rows.jsonl.gz")
    assert source == Source(kind, "some/rows.jsonl.gz")
    assert source.path == Path("some/rows.jsonl.gz")
    assert not source.is_hub


def test_path_may_hold_an_equals_sign() -> None:
    assert parse_source("musique=a=b.jsonl").path == Path("a=b.jsonl")


def test_hub_dataset_and_embedded_sample() -> None:
    assert parse_source("hotpotqa=hf:hotpotqa/hotpot_qa@main:distractor/validation").is_hub
    assert parse_source("hotpotqa=sample").path.is_file()
    assert parse_source("musique=sample").path.is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows.jsonl", "expected KIND=PATH"),
        ("musique", "expected KIND=PATH"),
        ("musique=", "expected KIND=PATH"),
        ("=rows.jsonl", "unknown kind ''"),
        ("squad=rows.json", "unknown kind 'squad'"),
        ("MuSiQue=rows.jsonl", "unknown kind 'MuSiQue'"),
        ("2wiki=sample", "no embedded sample of 2wiki"),
        ("jsonl=sample", "no embedded sample of jsonl"),
        ("musique=hf:", "expected hf:REPO"),
        ("musique=hf:team/data@", "expected hf:REPO"),
    ],
)
def test_what_is_no_source_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_source(text)


def test_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_source("squad=rows.json")
    assert all(kind in caught.value.hint for kind in BUILT)


def test_digest_is_that_of_the_bytes_wherever_they_lie(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    one.write_bytes(b'{"id": 1}\n')
    other.write_bytes(b'{"id": 1}\n')
    assert Source("jsonl", str(one)).digest() == hashlib.sha256(b'{"id": 1}\n').hexdigest()
    assert Source("jsonl", str(one)).digest() == Source("jsonl", str(other)).digest()
    other.write_bytes(b'{"id": 2}\n')
    assert Source("jsonl", str(one)).digest() != Source("jsonl", str(other)).digest()


def test_digest_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*none.jsonl: No such file"):
        Source("jsonl", str(tmp_path / "none.jsonl")).digest()


def test_positions_are_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"id": 2}\n \n{"id": 4}')
    assert list(Source("jsonl", str(path)).records()) == [Record(2, b'{"id": 2}'), Record(4, b'{"id": 4}')]


def test_positions_are_those_of_array_elements_and_a_broken_end_is_a_record(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'[\n\n{"id": 1},\n\n{"id": 2},\n\n{"id"')
    *rows, broken = Source("hotpotqa", str(path)).records()
    assert rows == [Record(1, b'{"id": 1}'), Record(2, b'{"id": 2}')]
    assert (broken.position, broken.data) == (3, b'{"id"')
    assert broken.broken


def test_rows_of_parquet_are_what_was_written_and_a_bad_one_harms_no_other(tmp_path: Path) -> None:
    rows = [musique("a"), musique("b", answer_aliases=["Pisaurum"]), {"id": "c"}, {"id": "dddd"}]
    path = tmp_path / "rows.Parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none", use_dictionary=False, write_statistics=False)
    path.write_bytes(path.read_bytes().replace(b"dddd", b"\xff" * 4))
    *good, broken = Source("musique", str(path)).records()
    assert good == [Record(position, row) for position, row in enumerate(rows[:3], start=1)]
    assert "cannot be read" in broken.broken


def test_several_sources_of_one_kind_are_told_apart() -> None:
    sources = parse_sources(["musique=a.jsonl", "hotpotqa=b.json", "musique=c.jsonl"])
    assert [source.label for source in sources] == ["musique#1", "hotpotqa", "musique#2"]
