"""What lies in a folder, to tell whether it changed."""

from __future__ import annotations

from pathlib import Path

from stepsearch_data.core.files import digest_of


def tree(folder: Path, *left_out: str) -> dict[str, str]:
    """SHA-256 of every file by its relative path, hidden ones too; `left_out` are names at the top."""
    paths = ((path.relative_to(folder), path) for path in sorted(folder.rglob("*")))
    return {str(name): digest_of(path) for name, path in paths if path.is_file() and name.parts[0] not in left_out}
