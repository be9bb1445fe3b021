"""verify: which file of a store or a release is not as recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stepsearch_data.core.errors import PublishError, StoreError
from stepsearch_data.core.progress import Meter
from stepsearch_data.release.verify import Report, State, verify
from tests.conftest import Run


@pytest.fixture
def copied(sample_release: Path, tmp_path: Path) -> Path:
    """A release to spoil."""
    return shutil.copytree(sample_release, tmp_path / "release")


def check(path: Path) -> Report:
    return verify(path, Meter(None, "verify"))


def faults(path: Path) -> dict[str, State]:
    return {fault.path: fault.state for fault in check(path).faults}


def flip(path: Path) -> None:
    """Change one byte in the middle; the size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_release_and_a_store_as_they_were_written_are_ok(sample_release: Path, sample_store: Path) -> None:
    for path in (sample_release, sample_store):
        report = check(path)
        assert not report.faults
        assert {finding.state for finding in report.findings} == {State.ok}
        assert len(report.findings) > 20


SHARD = "data/queries/train-00000-of-00001.parquet"
SPOILT: list[tuple[str, Callable[[Path], object], State]] = [
    (SHARD, flip, State.changed),
    ("README.md", flip, State.changed),
    ("run.toml", lambda path: path.write_text(""), State.changed),
    ("store/manifest.json", flip, State.changed),
    ("data/corpus/train-00000-of-00001.parquet", Path.unlink, State.missing),
    ("data/queries/train-00001-of-00002.parquet", lambda path: path.write_bytes(b"PAR1"), State.unexpected),
    ("store/log", lambda path: path.write_text("x"), State.unexpected),
]


@pytest.mark.parametrize(("path", "spoil", "state"), SPOILT, ids=[f"{path} {state}" for path, _, state in SPOILT])
def test_what_is_not_as_recorded_is_named(
    copied: Path, path: str, spoil: Callable[[Path], object], state: State
) -> None:
    spoil(copied / path)
    assert faults(copied) == {path: state}


def test_files_beside_a_release_are_nobodys_business(copied: Path) -> None:
    (copied / ".gitattributes").write_text("*.parquet filter=lfs")
    (copied / "notes.txt").write_text("mine")
    assert not check(copied).faults


def test_a_release_whose_record_was_made_to_fit_a_changed_table_is_found_out(copied: Path) -> None:
    table = next((copied / "store/stages").glob("queries-*/queries.parquet"))
    shutil.copyfile(copied / SHARD, table)
    record = json.loads((copied / "release.json").read_bytes())
    own = record["files"][table.relative_to(copied).as_posix()]
    own["sha256"] = record["files"][SHARD]["sha256"]
    (copied / "release.json").write_text(json.dumps(record))
    with pytest.raises(PublishError, match="contradict each other"):
        check(copied)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "data/../../x", "else/x", "data\\..\\x"])
def test_a_record_that_points_out_of_the_release_is_refused(copied: Path, path: str) -> None:
    record = json.loads((copied / "release.json").read_bytes())
    record["files"][path] = {"sha256": "0" * 64, "bytes": 1, "rows": None}
    (copied / "release.json").write_text(json.dumps(record))
    with pytest.raises(PublishError, match="not a path of a release"):
        check(copied)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not describe a release"),
        ("[]", "does not describe"),
        ('{"format": 9}', "format 9; this version reads 1 and 2"),
    ],
)
def test_a_record_that_is_none_is_said_to_be_none(copied: Path, text: str, said: str) -> None:
    (copied / "release.json").write_text(text)
    with pytest.raises(PublishError, match=said):
        check(copied)


def test_a_store_is_checked_table_by_table_and_its_index_as_one(sample_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sample_store, tmp_path / "store")
    flip(next(store.glob("stages/trajectories-*/rounds.parquet")))
    flip(next(store.glob("stages/index-*/index/documents.arrow")))
    next(store.glob("stages/corpus-*/passages.parquet")).unlink()
    next(store.glob("stages/load-*")).joinpath("extra").write_text("x")
    found = {Path(path).name: state for path, state in faults(store).items()}
    assert found == {
        "rounds.parquet": State.changed,
        "index": State.changed,
        "passages.parquet": State.missing,
        "extra": State.unexpected,
    }


def test_an_index_that_is_not_there_is_no_fault(sample_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sample_store, tmp_path / "store")
    index = next(store.glob("stages/index-*/index"))
    shutil.rmtree(index)
    report = check(store)
    assert not report.faults
    assert [f.path for f in report.findings if f.state is State.absent] == [index.relative_to(store).as_posix()]


def test_a_manifest_that_points_out_of_its_store_is_refused(sample_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(sample_store, tmp_path / "store")
    text = (store / "manifest.json").read_text()
    folder = next(store.glob("stages/corpus-*")).relative_to(store).as_posix()
    (store / "manifest.json").write_text(text.replace(f'"{folder}/passages.parquet"', '"../../../etc/passwd"'))
    with pytest.raises(StoreError, match="is not where passages lies"):
        check(store)


def test_the_command_says_which_file_and_ends_with_1(copied: Path, cli: Run) -> None:
    assert cli("verify", copied).returncode == 0
    flip(copied / SHARD)
    (copied / "README.md").unlink()
    for quiet in ((), ("--quiet",)):
        said = cli("verify", copied, *quiet)
        assert said.returncode == 1
        assert f"changed    {SHARD}" in said.stdout
        assert "missing    README.md" in said.stdout
    report = json.loads(cli("verify", copied, "--json").stdout)
    assert not report["ok"]
    assert {"path": SHARD, "state": "changed"} in report["findings"]


def test_the_command_refuses_what_is_neither(tmp_path: Path, cli: Run) -> None:
    said = cli("verify", tmp_path)
    assert said.returncode == 1
    assert "there is neither a store nor a release" in said.stderr
