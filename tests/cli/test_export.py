"""`export` on the command line: what it says where, what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stepsearch_data.exports import FORMATS
from stepsearch_data.exports.export import find_format
from tests.conftest import Run
from tests.plugins import install

NAMES = FORMATS.names()


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
    for form, line in zip(map(find_format, NAMES), done.stdout.splitlines()[1:], strict=True):
        assert line.split()[:2] == [form.name, f".{form.suffix}"]
        assert form.doc in line


def test_the_help_names_every_format(cli: Run) -> None:
    shown = " ".join(cli("export", "--help").stdout.replace("│", " ").split())
    assert f"{', '.join(NAMES)}. What each is for: --list." in shown


PLUGIN = """
import pyarrow as pa
from stepsearch_data.exports.formats import Format

DECLARED = Format(
    "lines",
    "a question and its answer",
    lambda template: pa.schema([("question", pa.string()), ("answer", pa.string())]),
    lambda example, template: [{"question": example.question, "answer": example.answers[0]}],
    lambda files: "read it",
    suffix="jsonl",
)
"""


def test_a_package_adds_a_format_by_an_entry_point(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    """A real distribution on the path: listed with what it is for, and written."""
    environment = install(tmp_path, "stepsearch_data.exports", "lines", PLUGIN)
    listed = cli("export", "--list", env=environment)
    assert listed.stdout.splitlines()[-1].split() == ["lines", ".jsonl", *["a", "question", "and", "its", "answer"]]
    done = cli("export", "-f", "lines", "-o", tmp_path / "out", "--store", sample_store, env=environment)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "load: read it")
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert rows
    assert all(row.keys() == {"question", "answer"} for row in rows)


def test_a_format_of_a_broken_package_is_named(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    environment = install(tmp_path, "stepsearch_data.exports", "lines", "import surely_not_there")
    done = cli("export", "-f", "lines", "-o", tmp_path / "out", "--store", sample_store, env=environment)
    assert done.returncode == 2
    assert "the format lines of the package lines-plugin cannot be loaded: ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr


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
