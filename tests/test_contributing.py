"""Every walk of CONTRIBUTING.md is taken: its files are laid where it says, and its commands do what they should."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Run

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
WALKS = {part.partition("\n")[0]: BLOCK.findall(part) for part in TEXT.split("\n## ")[1:]}


def lay(blocks: list[tuple[str, str]], folder: Path) -> None:
    """Write what the blocks of a walk say: files, a package's declaration, and changes of files of ours."""
    shutil.copytree(ROOT / "stepsearch_data", folder / "stepsearch_data", ignore=shutil.ignore_patterns("__pycache__"))
    for language, block in blocks:
        first, _, rest = block.partition("\n")
        name = first.removeprefix("# ")
        if language in ("python", "jsonl"):
            (folder / name).write_text(block if language == "python" else rest)
        elif language == "toml":
            info = folder / "walk-1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: walk\nVersion: 1\n")
            points = block.replace("project.entry-points.", "").replace('"', "")
            (info / "entry_points.txt").write_text(points)
        elif language == "diff":
            change(folder / name, rest)


def change(path: Path, lines: str) -> None:
    """Put the lines with a + after the ones before them."""
    kept = "".join(f"{line[1:]}\n" for line in lines.splitlines() if line[0] != "+")
    made = "".join(f"{line[1:]}\n" for line in lines.splitlines() if line[0] != "-")
    assert path.read_text().count(kept) == 1, f"{path.name} has no such lines:\n{kept}"
    path.write_text(path.read_text().replace(kept, made))


@pytest.mark.long
@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_leads_where_it_says(walk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Run) -> None:
    lay(WALKS[walk], tmp_path)
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    commands = [line for language, block in WALKS[walk] if language == "console" for line in block.splitlines()]
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "stepsearch-data":
            done = cli(*arguments, env=environment)
        else:
            done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert done.stdout, f"{commands[-1]} shows nothing"
