"""Files of questions, rollouts and passages that are wrong in some way, and how many rows they have if that is sure."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.bad.values import DEEP, damage, dumped, spoil
from tests.rows import hotpotqa, jsonl, musique, two_wiki

ROWS = {"musique": musique, "hotpotqa": hotpotqa, "2wiki": two_wiki, "jsonl": jsonl}
_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": partial(gzip.compress, mtime=0),
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
_ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp1252", "utf-7"]
RESPONSE = "<think> t </think><search> a query </search><information> Doc 1 </information><answer> Pesaro </answer>"


def rollout(identifier: str) -> dict[str, Any]:
    return {
        "id": identifier,
        "response": RESPONSE,
        "target": ["Pesaro"],
        "search_keys": [["a query"]],
        "support_docs": [{"title": "T", "paragraph_text": "a text"}],
    }


def answer(identifier: str) -> dict[str, Any]:
    return {"id": identifier, "prediction": "Pesaro", "answers": ["Pesaro"]}


def passage(identifier: str) -> dict[str, Any]:
    return {"id": identifier, "title": f"Title {identifier}", "text": f"The text of {identifier}, and words."}


def write_rows(stem: Path, make: Callable[[str], Any], rng: Random) -> tuple[Path, int | None]:
    """A file of rows, most of them good: JSON Lines or one array, packed or not."""
    rows = [make(f"id{number}") for number in range(rng.randint(1, 6))]
    lines = [dumped(spoil(row, rng) if rng.random() < 0.5 else row) for row in rows]
    lines += lines[-1:] if rng.random() < 0.1 else []
    if rng.random() < 0.4:
        data, rows_there = b"[" + b",\n".join(lines) + b"]", len(lines)
    else:
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            lines.insert(rng.randrange(len(lines) + 1), _odd_line(lines, rng))
        data = rng.choice([b"\n", b"\n", b"\r\n"]).join(lines)
        rows_there = sum(1 for line in data.split(b"\n") if line.strip())
    how = rng.choice(["as it is"] * 4 + ["damage", "encode", "damage packed", "suffix"])
    first = next((line for line in lines if line.strip()), b"")
    sure = how == "as it is" and not first.startswith(b"[")
    path = _packed(stem, data, how, rng)
    return path, rows_there if sure else None


def _packed(stem: Path, data: bytes, how: str, rng: Random) -> Path:
    """The data in a file: changed, packed and named as `how` says."""
    if how == "damage":
        data = damage(data, rng)
    elif how == "encode":
        data = data.decode("utf-8", "replace").encode(rng.choice(_ENCODINGS), "replace")
    packer = rng.choice(list(_PACKERS))
    packed = _PACKERS[packer](data)
    suffix = rng.choice(["", ".json", ".jsonl", ".txt"]) + packer
    if how == "suffix":
        suffix = rng.choice(["", ".json.gz", ".jsonl.bz2", ".zst", ".parquet", ".csv", ".tsv", ".gz.gz", ".toml"])
    path = stem.with_name(stem.name + suffix)
    path.write_bytes(damage(packed, rng) if how == "damage packed" else packed)
    return path


def _odd_line(lines: list[bytes], rng: Random) -> bytes:
    good = rng.choice(lines)
    return rng.choice(
        [
            *(b"", b"   ", b"null", b"1", b'"text"', b"[]", b"{}", b"NaN", b"{'a': 1}", b"\xff\xfe", b"\x00", b"{" * 9),
            *(text.encode() for text in DEEP),
            *(good[: len(good) // 2], good + good, good + b" x", good[:-1], b"1" * 5_000, b'"' + b"x" * 2_000_000),
            *(good.replace(b'"id"', b'"id": 1, "id"'), good.replace(b"Pesaro", b"\xc3\x28"), b"\xef\xbb\xbf" + good),
            *(good.replace(b"Pesaro", b"\\ud83d"), good.replace(b"Pesaro", b"\\u0000"), good.replace(b" ", b"\x0b")),
            *(good.replace(b"1", b"1" + b"0" * 400), good.replace(b"1", b"-1e999"), good.replace(b"}", b"}}", 1)),
        ]
    )


def write_table(path: Path, make: Callable[[str], Any], rng: Random) -> tuple[Path, int | None]:
    """A Parquet file of rows, or of something else."""
    rows = [make(f"id{number}") for number in range(rng.randint(1, 5))]
    table = pa.Table.from_pylist(rows)
    name = rng.choice(table.column_names)
    odd: dict[str, Callable[[], Any]] = {
        "number": lambda: pa.array([1] * len(rows)),
        "null": lambda: pa.nulls(len(rows)),
        "binary": lambda: pa.array([b"\xff\xfe"] * len(rows)),
        "no UTF-8": lambda: pa.StringArray.from_buffers(len(rows), *_offsets(len(rows))),
        "list": lambda: pa.array([[None, "x"]] * len(rows)),
        "struct": lambda: pa.array([{"a": None}] * len(rows)),
        "time": lambda: pa.array([2**62] * len(rows), pa.timestamp("us")),
        "decimal": lambda: pa.array([1] * len(rows), pa.decimal128(38, 0)),
        "text": lambda: pa.array(["\0 \u202e"] * len(rows)),
        "dictionary": lambda: pa.array(["x"] * len(rows)).dictionary_encode(),
        "map": lambda: pa.array([[("a", "b")]] * len(rows), pa.map_(pa.string(), pa.string())),
    }
    how = rng.choice(["as it is", "drop", "rename", "repeat", "empty", *odd])
    if how in odd:
        table = table.set_column(table.column_names.index(name), name, odd[how]())
    elif how == "drop":
        table = table.drop_columns([name])
    elif how == "rename":
        table = table.rename_columns(
            [rng.choice([old, "", "x", "a.b"]) if old == name else old for old in table.column_names]
        )
    elif how == "repeat":
        table = table.append_column(name, table[name])
    elif how == "empty":
        table = table.slice(0, 0)
    pq.write_table(table, path)
    if rng.random() < 0.3:
        path.write_bytes(damage(path.read_bytes(), rng))
        return path, None
    return path, table.num_rows


def _offsets(rows: int) -> list[Any]:
    offsets = pa.array(range(0, 2 * rows + 1, 2), pa.int32())
    return [offsets.buffers()[1], pa.py_buffer(b"\xff\xfe" * rows)]


def deep_text(rng: Random) -> str:
    return rng.choice(
        [
            *DEEP,
            "a = " + "[" * 5_000,
            "a = " + "{a=" * 5_000,
            ".".join("a" * 5_000) + " = 1",
            "[" + ".".join("a" * 5_000) + "]",
        ]
    )
