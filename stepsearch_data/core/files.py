"""Files that a stranger may have prepared: only regular ones are opened, so nothing waits for a FIFO or a device."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader, BytesIO, TextIOWrapper
from pathlib import Path


def cache_folder() -> Path:
    """Return our folder in the folder of this user's caches."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "stepsearch-data"


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file to read. Raises OSError for anything else, and where there is none."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "holds a NUL", str(path))
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for its writer
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        number, words = (errno.EISDIR, "is a folder") if stat.S_ISDIR(mode) else (errno.EINVAL, "is not a regular file")
        raise OSError(number, words, str(path))
    return open(handle, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """Read the bytes of a regular file. Raises OSError, also where there are more than `most`."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
    return data


def read_text(path: Path, most: int = 1 << 20) -> str:
    """Read the text of a regular file: UTF-8, with or without a byte order mark, with the line ends of any system.

    Raises OSError, UnicodeDecodeError.
    """
    return TextIOWrapper(BytesIO(read_regular(path, most)), "utf-8-sig").read()


def read_lines(path: Path) -> list[bytes]:
    """Read the lines of a regular file, each with its end. Raises OSError."""
    with open_regular(path) as file:
        return file.readlines()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of a folder's files and their names: 64 hexadecimal digits.

    Raises OSError, also for what is neither file nor folder.
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        lines = (f"{p.relative_to(path).as_posix()} {digest_of(p)}\n" for p in files)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    return digest_of_file(path)


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes: 64 hexadecimal digits. Raises OSError for anything else."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
