"""A package beside ours, as `pip` leaves it: a module, and metadata that names what it declares."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, group: str, name: str, code: str) -> dict[str, str]:
    """Lay the distribution `NAME-plugin`, which declares `DECLARED`, into a folder; the environment that finds it."""
    (folder / f"{name}_plugin.py").write_text(code)
    info = folder / f"{name}_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}_plugin:DECLARED\n")
    return {"PYTHONPATH": str(folder)}
