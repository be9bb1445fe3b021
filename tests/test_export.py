"""`export` on the command line: what it says where, what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stepsearch_data.exports.formats import FORMATS
from stepsearch_data.verbs import sharing
from tests.conftest import Run

NAMES = [form.name for form in FORMATS]


def test_it_says_what_it_wrote_and_how_to_load_it(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    """Both splits that the sample's gates make, and nothing of what they failed."""
    done = cli("export", "-f", "verl", "-t", "tools", "-o", tmp_path / "a b", "--store", sample_store)
    assert (done.returncode, done.stdout) == (0, "")
    files = [tmp_path / "a b" / f"{split}.parquet" for split in ("train", "validation")]
    *wrote, load = done.stderr.splitlines()
    counted = [
        re.fullmatch(rf"wrote (\d+) rows: {re.escape(str(file))}", line)
        for file, line in zip(files, wrote, strict=True)
    ]
    assert load == f"load: data.train_files='{files[0]}' data.val_files='{files[1]}'"
    assert sorted(files[0].parent.iterdir()) == files
    passed = cli("sql", "SELECT count(*) AS n FROM quality WHERE passed", "--store", sample_store, "-f", "json")
    assert sum(int(found[1]) for found in counted if found) == json.loads(passed.stdout)[0]["n"]


def test_quiet_says_nothing(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    done = cli("export", "-f", "corpus", "-o", tmp_path, "--store", sample_store, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "corpus.jsonl").stat().st_size > 0


@pytest.mark.parametrize("form", ["trl-sft", "llama-factory", "corpus"])
def test_the_loading_line_names_the_file_or_its_folder(form: str, sample_store: Path, tmp_path: Path, cli: Run) -> None:
    done = cli("export", "-f", form, "-o", tmp_path, "--store", sample_store)
    assert str(tmp_path) in done.stderr.splitlines()[-1].removeprefix("load: ")


def test_list_says_what_each_format_is_for(cli: Run) -> None:
    done = cli("export", "--list")
    assert (done.returncode, done.stderr) == (0, "")
    for form, line in zip(FORMATS, done.stdout.splitlines()[1:], strict=True):
        assert line.split()[:2] == [form.name, f".{form.suffix}"]
        assert form.doc in line


def test_the_help_names_every_format() -> None:
    assert sharing._FORMATS.split(", ") == NAMES


@pytest.mark.parametrize(
    ("arguments", "code", "complaint", "hint"),
    [
        (["-f", "verk"], 2, "there is no format 'verk'", "did you mean verl?"),
        (["-f", "parquet"], 2, "there is no format 'parquet'", f"known: {', '.join(NAMES)}"),
        (["-f", "verl", "-t", "no.txt"], 2, "there is no template no.txt", "known: musique, paper, tools, or a file"),
        (["-f", "search-r1", "-t", "tools"], 2, "the trainer of search-r1 reads tags", "--template musique or paper"),
        (["-f", "verl", "--split", "dev"], 2, "there is no split 'dev'", "this store has: train, validation"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], code: int, complaint: str, hint: str, sample_store: Path, tmp_path: Path, cli: Run
) -> None:
    done = cli("export", *arguments, "-o", tmp_path / "out", "--store", sample_store)
    assert (done.returncode, done.stdout) == (code, "")
    error, help_line = done.stderr.splitlines()
    assert error.startswith(f"error: {complaint}")
    assert help_line.startswith(f"hint: {hint}")
    assert not list(tmp_path.glob("out/*"))


def test_a_folder_that_cannot_be_written_is_one_line(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    (tmp_path / "file").touch()
    done = cli("export", "-f", "verl", "-o", tmp_path / "file", "--store", sample_store)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: cannot write {tmp_path / 'file'}: File exists\n"


def test_there_has_to_be_a_store(tmp_path: Path, cli: Run) -> None:
    done = cli("export", "-f", "verl", "-o", tmp_path / "out", "--store", tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no store at")
