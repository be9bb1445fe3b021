"""Bad values: numbers, texts, names of files, JSON, and what may lie where a file is expected."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from random import Random
from typing import Any

INTEGERS = [
    *("0", "-1", "-0", "1.5", "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *("18446744073709551616", "1" + "0" * 400, "9" * 5_000, "0x10", "1_000", "١٢", "1e3", "true", "", " ", "null"),
]
FLOATS = [
    *("nan", "-nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "1e400", "-1", "0", "1" + "0" * 400, "1,5", "", "x"),
]
TEXTS = [
    *("", " ", "\n", "a\nb", "\t", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x7f", "\x85", "é", "\u202ea", "\ufeff"),
    *("bytes\udcff", "🙂" * 300, "x" * 5_000, "[ab]", "[bold]", "[/]", "*", "?", "a\\b", "'", '"', "`id`", "$(id)"),
    *("%s%n", "{0}", "${HOME}", "-", "--", "=", "a=b=c", "hf:x", "hf:", "hf:a/b@:", "sample", "..", "/", "None", "NaN"),
    *("<script>", "https://ann:pass@127.0.0.1:9/x?key=1", "http://", "http://[", "ftp://x", "a,b", ",", "a.b.c", "#"),
]
NAMES = [
    *("run[1]", "[ab]", "[!a]", "[", "]", "*", "**", "?", "a*b?", "{a,b}", "back\\slash", "sp ace", "new\nline"),
    *("tab\t", "é", "caf\udce9", "\udcff\udcfe", "🙂", "-dash", "=", "lang=en", "hf:x", "sample", "%41", "it's"),
    *('a"b', "a;b", "#", "~", "$HOME", "x" * 200, "\x1b[31m", ".hidden", "a,b", "file:x", "s3:x", "C:", "a|b", "&"),
    *("\x01", "trailing ", " leading", "a:b", "é" * 120, "@", "a@b", "null", "nan", "...", "<b>", "`id`", "\u202ea"),
]
MISSING = ["", "absent", "x" * 300, "x/" * 2_500, "absent/deeper", "."]
# Root could do harm there.
OUTSIDE = ["..", "/", "/proc/self/mem", "/dev/zero", "/dev/full", "/dev/null", "/dev/random", "/dev/stdin", "/dev/tty"]
_JSON: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 1e308, 2**63, 2**64, -(2**63) - 1, 10**30, "", " ", "x", "\0", "\ud800", "é"),
    *([], {}, [[]], [None], {"a": None}, ["x", 1], "x" * 100_000, [0] * 1_000, {"title": 1}, "\u202e", "#1", "#0"),
]
DEEP = ["[" * 100_000, "[" * 2_000 + "]" * 2_000, '{"a":' * 2_000 + "1" + "}" * 2_000, '{"a":' * 100_000]


def integer(rng: Random) -> str:
    return rng.choice(INTEGERS)


def number(rng: Random) -> str:
    return rng.choice([*FLOATS, *INTEGERS])


def text(rng: Random) -> str:
    return rng.choice(TEXTS)


def json_value(rng: Random) -> Any:
    return rng.choice(_JSON)


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON tree, the root first."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


def spoil(tree: Any, rng: Random) -> Any:
    """A copy of a JSON tree with one place replaced, removed, repeated or renamed."""
    tree = json.loads(json.dumps(tree))
    *path, last = rng.choice(places(tree)[1:]) if places(tree)[1:] else [None]
    if last is None:
        return json_value(rng)
    parent = tree
    for key in path:
        parent = parent[key]
    how = rng.choice(["replace", "replace", "replace", "remove", "wrap", "add"])
    if how == "replace":
        parent[last] = json_value(rng)
    elif how == "remove":
        del parent[last]
    elif how == "wrap":
        parent[last] = rng.choice([[parent[last]], {"a": parent[last]}, str(parent[last])])
    elif isinstance(parent, dict):
        parent[text(rng)] = json_value(rng)
    else:
        parent.insert(rng.randrange(len(parent) + 1), json_value(rng))
    return tree


def dumped(tree: Any) -> bytes:
    """JSON with whatever Python takes: NaN, lone surrogates as escapes."""
    return json.dumps(tree).encode()


def damage(data: bytes, rng: Random) -> bytes:
    """Bytes that were cut, changed, repeated, or are something else."""
    at = rng.randrange(len(data) + 1)
    junk = bytes(rng.randrange(256) for _ in range(rng.choice([1, 8, 300])))
    return rng.choice(
        [
            b"",
            data[:at],
            data[at:],
            data[:at] + junk + data[at:],
            data[:at] + junk + data[at + len(junk) :],
            data[:at] + b"\0" * 8 + data[at + 8 :],
            data + data,
            data + junk,
            junk,
            b"\xef\xbb\xbf" + data,
            b"PAR1" + junk + b"PAR1",
        ]
    )


def instead_of_file(path: Path, rng: Random) -> None:
    """Something at this path that is no file, or none that can be read."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.was"))
    path.unlink(missing_ok=True)
    how = rng.choice(["folder", "fifo", "device", "loop", "dangling", "locked", "absent", "empty"])
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "device":
        _make_device(path, rng)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "dangling":
        path.symlink_to("absent")
    elif how in {"locked", "empty"}:
        path.write_bytes(b"")
        path.chmod(0 if how == "locked" else 0o644)


def bad_place(folder: Path, rng: Random, *, written: bool = False) -> str:
    """A path to give where a file or a folder is expected, no FIFO if it is written: that waits for its reader."""
    if rng.random() < 0.5:
        return rng.choice([*MISSING, *_outside()])
    path = folder / f"input{rng.choice(['', '.json', '.jsonl', '.parquet', '.gz', '.toml', '.tsv'])}"
    instead_of_file(path, rng)
    return str(path) if not (written and path.is_fifo()) else "absent"


def _outside() -> list[str]:
    return OUTSIDE if os.geteuid() else ["absent", "."]


def _make_device(path: Path, rng: Random) -> None:
    """A link to a device; for root, who could harm the real ones, a zero of our own."""
    if os.geteuid():
        path.symlink_to(rng.choice(OUTSIDE))
        return
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:  # in a container, perhaps
        os.mkfifo(path)
