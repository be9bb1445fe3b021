"""What a stage writes: tables, rejects, and nothing where it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stepsearch_data.pipeline.context import StageContext, TableWriter, TooManyRejects, read_rows
from stepsearch_data.schemas.tables import REJECTS
from tests.pipeline.tiny import LOAD, NUMBERS, Number, Plain

FILL = """
import resource, sys
from pathlib import Path
from stepsearch_data.pipeline.context import TableWriter
from tests.pipeline.tiny import NUMBERS, Number
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = TableWriter(Path(sys.argv[1]), NUMBERS)
try:
    for value in range(100_000):
        writer.append(Number(value=value * value))
    writer.finish()
except OSError as error:
    print(error.strerror)
finally:
    writer.close()
"""


def context(folder: Path, max_reject_share: float = 0.5) -> StageContext:
    return StageContext(LOAD.name, LOAD.writes, Plain(), {}, folder, max_reject_share=max_reject_share)


def test_the_bytes_depend_on_the_rows_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        writer = TableWriter(tmp_path / name, NUMBERS)
        for value in range(1_234):
            writer.append(Number(value=value))
        writer.finish()
        writer.close()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert [row.value for row in read_rows(tmp_path / "one", NUMBERS)] == list(range(1_234))
    assert pq.read_metadata(tmp_path / "one").row_group(0).num_rows == NUMBERS.rows_per_group


def test_a_file_holds_its_schema_with_meanings(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path / "file", NUMBERS)
    writer.finish()
    writer.close()
    assert pq.read_schema(tmp_path / "file").field("value").metadata[b"description"] == b"the number"


def test_the_share_of_rejects_is_that_of_one_source(tmp_path: Path) -> None:
    """A large source with many good rows must not hide a small one that is all bad, and the message is about that."""
    stage = context(tmp_path)
    for position in range(1_500):
        stage.reject("large", position, None, "odd")
        stage.accept("large")
    stage.reject("small", 7, None, "empty")
    with pytest.raises(TooManyRejects, match=r"1 of 1 rows of small were rejected \(1 × empty\); the first is row 7"):
        stage.finish()
    stage.close()


def test_a_hopeless_source_is_given_up_early(tmp_path: Path) -> None:
    stage = context(tmp_path)
    for position in range(999):
        stage.reject("large", position, None, "odd")
    with pytest.raises(TooManyRejects, match="1000 of 1000"):
        stage.reject("large", 999, None, "odd")
    stage.close()


def test_a_reject_shows_any_bytes_as_text(tmp_path: Path) -> None:
    stage = context(tmp_path, max_reject_share=1)
    stage.reject("s", None, "id\ud800", "bad \0", b"\xff{" + b"x" * 9_999)
    stage.finish()
    (row,) = read_rows(tmp_path / "rejects.parquet", REJECTS)
    assert (row.question_id, row.reason) == ("id\\ud800", "bad \\x00")
    assert row.raw.startswith("\\xff{xxx")
    assert len(row.raw) <= 2_100


@pytest.mark.parametrize("limit", [0, 100, 20_000, 300_000])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path: Path, limit: int) -> None:
    """Arrow aborts the process when a write fails under content-defined chunking."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FILL, str(tmp_path / "file"), str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "File too large\n", "")


def test_scratch_files_are_no_output(tmp_path: Path) -> None:
    stage = context(tmp_path)
    (stage.scratch / "notes").touch()
    stage.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numbers.parquet", "rejects.parquet"]
