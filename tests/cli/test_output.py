"""Rows come back from every format as they were, and a file is whole or absent."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.cli.output import write
from stepsearch_data.core.errors import QueryError

FORMS = ["csv", "json", "jsonl", "parquet"]
ROWS: list[dict[str, Any]] = [
    {"n": 1, "x": 0.5, "ok": True, "text": 'a "quoted"\nline, ü', "list": ["a", None], "inner": {"k": [{"z": 1}]}},
    {"n": None, "x": None, "ok": None, "text": None, "list": None, "inner": None},
    {"n": 2, "x": -1.0, "ok": False, "text": "", "list": [], "inner": {"k": None}},
]
SCHEMA = pa.schema(
    [
        ("n", pa.int64()),
        ("x", pa.float64()),
        ("ok", pa.bool_()),
        ("text", pa.string()),
        ("list", pa.list_(pa.string())),
        ("inner", pa.struct([("k", pa.list_(pa.struct([("z", pa.int64())])))])),
    ]
)


def reader(rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatchReader:
    return pa.Table.from_pylist(rows, schema=schema).to_reader(max_chunksize=2)


def read(form: str, path: Path) -> list[dict[str, Any]]:
    if form == "parquet":
        return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types
    if form == "json":
        return json.loads(path.read_bytes())  # type: ignore[no-any-return]  # JSON is Any
    if form == "jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet"])
def test_rows_come_back_as_they_were(form: str, tmp_path: Path) -> None:
    write(reader(ROWS), form, tmp_path / "out")
    assert read(form, tmp_path / "out") == ROWS


def test_csv_holds_nested_values_as_json(tmp_path: Path) -> None:
    write(reader(ROWS), "csv", tmp_path / "out")
    first, nulls, last = read("csv", tmp_path / "out")
    assert first == {
        "n": "1",
        "x": "0.5",
        "ok": "true",
        "text": ROWS[0]["text"],
        "list": '["a",null]',
        "inner": '{"k":[{"z":1}]}',
    }
    assert set(nulls.values()) == {""}
    assert (last["list"], last["inner"]) == ("[]", '{"k":null}')


def test_csv_tells_null_from_an_empty_text(tmp_path: Path) -> None:
    write(reader(ROWS[1:]), "csv", tmp_path / "out")
    assert (tmp_path / "out").read_text().splitlines()[1:] == [",,,,,", '2,-1,false,"","[]","{""k"":null}"']


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_result_is_a_valid_file(form: str, tmp_path: Path) -> None:
    write(reader([]), form, tmp_path / "out")
    assert read(form, tmp_path / "out") == []


def test_an_empty_csv_still_has_its_header(tmp_path: Path) -> None:
    write(reader([]), "csv", tmp_path / "out")
    assert (tmp_path / "out").read_text() == '"n","x","ok","text","list","inner"\n'


def test_empty_parquet_keeps_its_schema(tmp_path: Path) -> None:
    write(reader([]), "parquet", tmp_path / "out")
    assert pq.read_schema(tmp_path / "out").equals(SCHEMA)


@pytest.mark.parametrize(("rows", "groups"), [(102_400, [102_400]), (250_000, [102_400, 102_400, 45_200])])
def test_parquet_has_row_groups_of_many_batches(rows: int, groups: list[int], tmp_path: Path) -> None:
    write(duckdb.connect().sql(f"FROM range({rows})").to_arrow_reader(2_048), "parquet", tmp_path / "out")
    metadata = pq.read_metadata(tmp_path / "out")
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == groups


def test_json_has_one_row_a_line(tmp_path: Path) -> None:
    write(reader(ROWS), "json", tmp_path / "out")
    assert len((tmp_path / "out").read_text().splitlines()) == len(ROWS) + 2


def test_numbers_of_sql_are_numbers_of_json(tmp_path: Path) -> None:
    """DuckDB's sums are 128-bit decimals."""
    sql = "SELECT sum(range) AS whole, 1.50 AS part, 2::HUGEINT ** 100 AS large, 'nan'::DOUBLE AS nan FROM range(4)"
    write(duckdb.connect().sql(sql).to_arrow_reader(), "jsonl", tmp_path / "out")
    assert read("jsonl", tmp_path / "out") == [{"whole": 6, "part": 1.5, "large": 2.0**100, "nan": None}]


@pytest.mark.parametrize("form", FORMS)
def test_times_and_ids_can_be_written(form: str, tmp_path: Path) -> None:
    sql = "SELECT DATE '2026-11-22' AS d, TIMESTAMP '2026-11-22 09:00:00' AS t, uuid() AS u, MAP {'a': 1} AS m"
    write(duckdb.connect().sql(sql).to_arrow_reader(), form, tmp_path / "out")
    (row,) = read(form, tmp_path / "out")
    assert str(row["d"]) == "2026-11-22"
    assert str(row["t"]).startswith("2026-11-22")


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_date_that_python_does_not_know_is_an_error(form: str, tmp_path: Path) -> None:
    far = duckdb.connect().sql("SELECT DATE '294247-01-10' AS d").to_arrow_reader()
    with pytest.raises(QueryError, match="a value cannot be shown") as caught:
        write(far, form, tmp_path / "out")
    assert "VARCHAR" in caught.value.hint


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_whole_or_absent(form: str, tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    def batches() -> Any:
        yield from reader(ROWS)
        raise Broken

    (tmp_path / "out").write_text("before")
    with pytest.raises(Broken):
        write(pa.RecordBatchReader.from_batches(SCHEMA, batches()), form, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "before"


@pytest.mark.parametrize("path", [".", "..", "/", "no/such/folder/out", "file/out"])
def test_a_place_that_cannot_be_written_is_an_error(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(QueryError, match="cannot write"):
        write(reader(ROWS), "csv", Path(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("form", FORMS)
def test_a_symlink_stays_one(form: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/out")
    for _ in range(2):  # at first it leads nowhere
        write(reader(ROWS), form, tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert len(read(form, tmp_path / "folder" / "out")) == len(ROWS)
    assert len(list(tmp_path.rglob("*"))) == 3


@pytest.mark.parametrize("form", FORMS)
def test_a_fifo_stays_one_and_takes_the_rows(form: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)  # so that neither side waits for the other
    try:
        write(reader(ROWS), form, fifo)
        assert fifo.is_fifo()
        (tmp_path / "out").write_bytes(os.read(end, 1 << 16))
    finally:
        os.close(end)
    assert len(read(form, tmp_path / "out")) == len(ROWS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", FORMS)
def test_a_device_stays_one(form: str, tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(QueryError, match="No space left"):
        write(reader(ROWS), form, tmp_path / "full")
    assert (tmp_path / "full").is_char_device()


@pytest.mark.parametrize("place", ["store/manifest.json", "store/new", "link", "folder/new"])
def test_a_file_of_the_store_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").write_text("old")
    (tmp_path / "link").symlink_to("store/manifest.json")
    (tmp_path / "folder").symlink_to("store")
    with pytest.raises(QueryError, match="it lies in the store"):
        write(reader(ROWS), "csv", tmp_path / place, store=tmp_path / "store")
    assert [(file.name, file.read_text()) for file in (tmp_path / "store").iterdir()] == [("manifest.json", "old")]


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("INTERVAL 3 DAY", "csv"),
        ("INTERVAL 3 DAY", "parquet"),
        ("'101'::BIT", "csv"),
        ("union_value(a := 1)", "parquet"),
    ],
)
def test_a_type_that_a_format_lacks_is_an_error(value: str, form: str, tmp_path: Path) -> None:
    rows = duckdb.connect().sql(f"SELECT {value} AS v").to_arrow_reader()
    with pytest.raises(QueryError, match=f"cannot be written as {form}; cast it to VARCHAR"):
        write(rows, form, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("'\\x00\\xFFa'::BLOB", "00ff61"),
        ("[INTERVAL 0 DAY]", ["0 days"]),
        ("INTERVAL 3 DAY", "3 days"),
        ("INTERVAL '-14 months 1 hour 0.5 second'", "-14 months 3600.5 seconds"),
        ("INTERVAL 10 MINUTE", "600 seconds"),
    ],
)
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_bytes_and_intervals_are_readable_in_json(form: str, value: str, told: Any, tmp_path: Path) -> None:
    write(duckdb.connect().sql(f"SELECT {value} AS v").to_arrow_reader(), form, tmp_path / "out")
    assert read(form, tmp_path / "out") == [{"v": told}]
    if isinstance(told, str) and value.startswith("INTERVAL"):
        assert duckdb.execute(f"SELECT '{told}'::INTERVAL = {value}").fetchall() == [(True,)]
