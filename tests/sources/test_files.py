"""Files of any form, size and compression come back row by row; a fault costs no row that precedes it."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.core.errors import SourceError
from stepsearch_data.sources import files
from stepsearch_data.sources.files import Broken

ROWS = [
    {"id": "1", "text": 'brackets ]}[{ and a "quote"'},
    {"id": "2", "text": 'a backslash \\ and \\" and, a comma', "empty": [[], {}, ""]},
    {"id": "3", "text": "Zürich → 東京 \u2028 😀", "nested": {"list": [1, [2, {"three": 3}]]}},
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode() + b"\n"
ARRAY = json.dumps(ROWS).encode()

Write = Callable[[bytes], Path]


def read(path: Path) -> list[bytes | Broken]:
    return list(files.rows(path))


def parsed(items: Iterable[bytes | Broken]) -> list[Any]:
    return [json.loads(item) for item in items if isinstance(item, bytes)]


def fault(items: list[bytes | Broken]) -> str:
    """Reason of the last item, which is the only one that is broken."""
    *good, last = items
    assert isinstance(last, Broken)
    assert not [item for item in good if isinstance(item, Broken)]
    return last.reason


@pytest.fixture(params=[1, 2, 7, 64, files._CHUNK])
def any_chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CHUNK", request.param)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: bytes, name: str = "rows.json") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


# Forms


@pytest.mark.parametrize(
    "data",
    [
        LINES,
        LINES.removesuffix(b"\n"),
        LINES.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + LINES,
        ARRAY,
        b"\xef\xbb\xbf" + ARRAY,
        json.dumps(ROWS, indent=3).encode(),
        json.dumps(ROWS, indent=1, ensure_ascii=False).replace("\n", "\r\n").encode() + b"\r\n\r\n",
        b" \n\t " + json.dumps(ROWS, separators=(",", ":")).encode() + b" \n\n ",
    ],
    ids=["lines", "no_last_newline", "crlf", "bom", "array", "array_bom", "pretty", "pretty_crlf", "compact_padded"],
)
@pytest.mark.usefixtures("any_chunk")
def test_rows_of_every_form(write: Write, data: bytes) -> None:
    assert parsed(read(write(data))) == ROWS


@pytest.mark.usefixtures("any_chunk")
def test_values_of_every_type_are_elements(write: Write) -> None:
    values: list[Any] = [1, -2.5e10, True, None, "], [", [], [[1], [2]], {}, ""]
    assert parsed(read(write(json.dumps(values).encode()))) == values


@pytest.mark.usefixtures("any_chunk")
def test_empty_array_has_no_rows(write: Write) -> None:
    assert read(write(b"[ \n ]\n")) == []


@pytest.mark.usefixtures("any_chunk")
def test_blank_line_keeps_the_numbers_of_the_others(write: Write) -> None:
    assert read(write(b'{"id": 1}\n\n  \n{"id": 4}\n')) == [b'{"id": 1}', b"", b"", b'{"id": 4}']


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
SPACE = st.text(alphabet=" \t\r\n", max_size=3)


@given(
    values=st.lists(VALUES, max_size=5),
    space=st.lists(SPACE, min_size=4, max_size=4),
    indent=st.none() | st.integers(0, 3),
    escaped=st.booleans(),
    chunk=st.integers(1, 40),
)
def test_any_array_comes_back_for_any_chunk_size(
    values: list[Any], space: list[str], indent: int | None, escaped: bool, chunk: int
) -> None:
    comma = f"{space[0]},{space[1]}"
    elements = [json.dumps(value, indent=indent, ensure_ascii=escaped) for value in values]
    text = f"{space[2]}[{space[3]}{comma.join(elements)}{space[0]}]{space[1]}"
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK", chunk)
        path = Path(folder) / "rows.json"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        items = read(path)
    assert parsed(items) == values
    assert len(items) == len(values)


# Compression

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstandard.compress,
}
compression = pytest.mark.parametrize("suffix", COMPRESS)


@compression
@pytest.mark.parametrize("data", [LINES, ARRAY], ids=["lines", "array"])
@pytest.mark.usefixtures("any_chunk")
def test_compression_is_told_from_the_name(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"rows.json.{suffix}"
    path.write_bytes(COMPRESS[suffix](data))
    assert parsed(read(path)) == ROWS


@compression
@pytest.mark.usefixtures("any_chunk")
def test_members_are_joined(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(COMPRESS[suffix](LINES[:50]) + COMPRESS[suffix](LINES[50:]))
    assert parsed(read(path)) == ROWS


@pytest.mark.usefixtures("any_chunk")
def test_truncated_gzip_keeps_what_precedes(tmp_path: Path) -> None:
    whole = [{"id": number, "text": f"{number * 7919}"} for number in range(200)]
    data = gzip.compress("\n".join(json.dumps(row) for row in whole).encode())
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(data[: len(data) // 2])
    *items, cut, _ = found = read(path)
    assert len(items) > 50
    assert parsed(items) == whole[: len(items)]
    assert isinstance(cut, bytes)
    assert "cannot be read any further" in fault(found)


@pytest.mark.usefixtures("any_chunk")
def test_gzip_without_its_checksum_keeps_all_rows_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.json.gz"
    path.write_bytes(gzip.compress(ARRAY)[:-8])
    found = read(path)
    assert parsed(found) == ROWS
    assert "cannot be read any further" in fault(found)


@compression
def test_long_truncated_file_loses_no_more_than_its_end(tmp_path: Path, suffix: str) -> None:
    whole = [{"id": number, "text": f"{number * 7919 % 1_000_003}"} for number in range(60_000)]
    data = COMPRESS[suffix]("\n".join(json.dumps(row) for row in whole).encode())
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(data[: len(data) * 9 // 10])
    found = read(path)
    rows = parsed(found[:-2])
    assert rows == whole[: len(rows)]
    assert len(rows) > len(whole) * 0.4  # bzip2 and zstd compress in blocks, which are whole or lost
    assert "cannot be read any further" in fault(found)


def test_name_that_lies_about_compression_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(LINES)
    with pytest.raises(SourceError, match=r"cannot read .*rows\.jsonl\.gz"):
        read(path)


# Faults


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"], ids=["nothing", "blank", "bom"])
@pytest.mark.usefixtures("any_chunk")
def test_empty_file_is_an_error(write: Write, data: bytes) -> None:
    with pytest.raises(SourceError, match="is empty"):
        read(write(data))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.usefixtures("any_chunk")
def test_utf16_is_named_and_its_cure_too(write: Write, encoding: str) -> None:
    text = LINES.decode() if encoding == "utf-16" else "\ufeff" + LINES.decode()
    with pytest.raises(SourceError, match="UTF-16") as caught:
        read(write(text.encode(encoding)))
    assert "iconv -f UTF-16" in caught.value.hint


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*none\.json"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.bz2", "jsonl.zst"])
def test_fifos_and_devices_are_refused_at_once(tmp_path: Path, suffix: str) -> None:
    """A FIFO waits for its writer, and /dev/zero never ends."""
    os.mkfifo(tmp_path / f"fifo.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        with pytest.raises(SourceError, match="is not a regular file"):
            read(tmp_path / f"{name}.{suffix}")


@pytest.mark.parametrize("name", ["run[1]", "*", "caf\udce9", "hf:x", "a=b", "back\\slash", "new\nline"])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst"])
def test_any_name_is_a_name(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(LINES if suffix == ".jsonl" else zstandard.ZstdCompressor().compress(LINES))
    assert parsed(read(path)) == ROWS


def test_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        read(tmp_path)


@pytest.mark.parametrize(("missing", "left"), [(1, 3), (2, 2), (5, 2), (40, 2)])
@pytest.mark.usefixtures("any_chunk")
def test_truncated_array_keeps_what_precedes(write: Write, missing: int, left: int) -> None:
    found = read(write(ARRAY[:-missing]))
    assert parsed(found) == ROWS[:left]
    assert "the array is not closed" in fault(found)


def test_broken_row_is_shown(write: Write) -> None:
    assert read(write(b'[{"id": 1}, {"id": 2'))[-1] == Broken(
        b'{"id": 2', "the file breaks off: the array is not closed"
    )


@pytest.mark.parametrize("garbage", [b"garbage", b']\n{"id": 4}', b"]", b'\n[{"id": 4}]', b"\0"])
@pytest.mark.usefixtures("any_chunk")
def test_text_after_the_array_is_reported_and_not_read(write: Write, garbage: bytes) -> None:
    found = read(write(ARRAY + garbage + b"\n"))
    assert parsed(found) == ROWS
    assert "after the end of the array" in fault(found)


@pytest.mark.usefixtures("any_chunk")
def test_broken_element_on_its_own_line_harms_no_other(write: Write) -> None:
    first, last = json.dumps(ROWS[0]), json.dumps(ROWS[2])
    found = read(write(f'[\n{first},\n{{"id": "no end of text}},\n{{"id": no value}},\n{last}\n]'.encode()))
    assert json.loads(found[0] if isinstance(found[0], bytes) else b"") == ROWS[0]
    assert json.loads(found[-1] if isinstance(found[-1], bytes) else b"") == ROWS[2]


@pytest.mark.parametrize("form", ["lines", "array"])
def test_row_that_never_ends_stops_the_reading(write: Write, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(files, "_CHUNK", 1 << 10)
    monkeypatch.setattr(files, "LONGEST_ROW", 3 << 10)
    rows = [b'{"id": 1}', b'{"id": 2, "text": "' + b"x" * 10_000 + b'"}', b'{"id": 3}']
    found = read(write(b"\n".join(rows) if form == "lines" else b"[" + b",".join(rows) + b"]"))
    assert parsed(found) == [{"id": 1}]
    assert "longer than" in fault(found)
    assert isinstance(found[-1], Broken)
    assert len(found[-1].raw) <= 1 << 10


# Size


@pytest.mark.parametrize("form", ["lines", "array"])
def test_large_file_is_never_held(tmp_path: Path, form: str) -> None:
    path = tmp_path / "large.json"
    count, row = 6_000, json.dumps({"id": 1, "text": "word, [word] " * 760}).encode()
    separator = b"\n" if form == "lines" else b","
    with open(path, "wb") as file:
        file.write(b"" if form == "lines" else b"[")
        file.writelines(separator * (number > 0) + row for number in range(count))
        file.write(b"" if form == "lines" else b"]")
    assert path.stat().st_size > 55_000_000
    tracemalloc.start()
    try:
        read_rows = sum(1 for item in files.rows(path) if item == row)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read_rows == count
    assert peak < 12_000_000
