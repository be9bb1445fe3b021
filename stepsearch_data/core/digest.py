"""Digests of files and folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stepsearch_data.core.files import open_regular


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
