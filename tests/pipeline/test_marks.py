"""What a reader says stays: after kill -9, half a line, many writers and builds. The last word on a question counts."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import stepsearch_data as ssd
from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.pipeline.catalog import catalog
from stepsearch_data.pipeline.marks import LONGEST_NOTE, Change, changed, read_changes, write_marks
from stepsearch_data.pipeline.store import Store
from tests.conftest import Run, run_cli

HOSTILE = "'); DROP VIEW marks; --\n</script><b>\"\\ \u2028 \x1b[31m é 🙂"
WRITER = """
import sys
from pathlib import Path
from stepsearch_data.pipeline.marks import Change, write_marks
from stepsearch_data.pipeline.store import Store
for n in range(int(sys.argv[2])):
    write_marks(Store(Path(sys.argv[1])), {f"q{n}": Change(note="x" * 500), sys.argv[3] + str(n): Change(mark="good")})
    print(n, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "manifest.json").write_text('{"format": 2, "stages": {}}')
    return Store.open(tmp_path)


@pytest.fixture
def built(sample_store: Path, tmp_path: Path) -> Path:
    """A copy of the sample's store, to be marked."""
    return Path(shutil.copytree(sample_store, tmp_path / "store"))


def words(store: Store) -> dict[str, tuple[str, str]]:
    return {id_: (mark.mark, mark.note) for id_, mark in store.marks().items()}


def lines(store: Store) -> list[bytes]:
    return (store.root / "marks.jsonl").read_bytes().splitlines()


def test_parts_of_a_mark_are_changed_and_taken_back_alone(store: Store) -> None:
    """So two tabs that change different parts do not undo each other."""
    write_marks(store, {"q1": Change(mark="good"), "q2": Change(note=" why? ")})
    write_marks(store, {"q1": Change(note="clear")})
    assert words(store) == {"q2": ("", "why?"), "q1": ("good", "clear")}
    write_marks(store, {"q1": Change(mark="bad"), "q2": Change(note="")})
    assert words(store) == {"q1": ("bad", "clear")}
    write_marks(store, {"q1": Change(mark="", note="")})
    assert words(store) == {}
    assert len(lines(store)) == 6


def test_what_is_said_again_is_not_written_again(store: Store) -> None:
    for _ in range(2):
        write_marks(store, {"q1": Change(mark="good"), "q2": Change(mark="")})
    assert len(lines(store)) == 1


@pytest.mark.parametrize(
    "torn", [b'{"question_id":"q1","mark":"ba', b"\x00\xff\n", b'{"question_id":"q1","mark":"worse"}\n']
)
def test_a_line_that_cannot_be_read_costs_no_other(store: Store, torn: bytes) -> None:
    write_marks(store, {"q1": Change(mark="good")})
    with open(store.root / "marks.jsonl", "ab") as file:
        file.write(torn)
    assert words(store) == {"q1": ("good", "")}
    write_marks(store, {"q2": Change(mark="bad")})
    assert words(store) == {"q1": ("good", ""), "q2": ("bad", "")}
    assert frame(store) == rows(store)


def frame(store: Store) -> list[dict[str, Any]]:
    return ssd.open(store.root).table("marks").collect().sort("question_id").to_dicts()


def rows(store: Store) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ssd.open(store.root).sql("FROM marks ORDER BY question_id").to_pylist()
    return found


def test_sql_and_frames_have_the_last_word_on_each_question(store: Store) -> None:
    assert frame(store) == rows(store) == []
    for mark in ("good", "bad", ""):
        write_marks(store, {"q1": Change(mark=mark, note=HOSTILE), "q2": Change(mark="good"), mark: Change(mark="bad")})
    write_marks(store, {"q2": Change(mark="")})
    assert [(row["question_id"], row["mark"], row["note"]) for row in rows(store)] == [
        ("", "bad", ""),
        ("bad", "bad", ""),
        ("good", "bad", ""),
        ("q1", "", HOSTILE.strip()),
    ]
    assert frame(store) == rows(store)


def test_many_writers_lose_nothing(store: Store) -> None:
    command = [sys.executable, "-c", WRITER, str(store.root), "40"]
    writers = [subprocess.Popen([*command, name], stdout=subprocess.DEVNULL) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert store.marks().keys() == {f"{name}{n}" for name in "abcq" for n in range(40)}
    assert all(json.loads(line) for line in lines(store))
    assert len(lines(store)) == 4 * 40


def test_what_was_said_before_a_kill_is_kept(store: Store) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.root), "100000", "a"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout
        said = [next(writer.stdout) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
    assert {f"a{int(n)}" for n in said} <= store.marks().keys()
    write_marks(store, {"after": Change(mark="good")})
    assert "after" in store.marks()


def test_a_full_disk_leaves_the_file_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_marks(store, {"q1": Change(mark="good")})
    before = lines(store)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, most[1]))
        with pytest.raises(StoreError, match=r"cannot write .*marks\.jsonl") as caught:
            write_marks(store, {"q2": Change(note="x" * 500)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
        signal.signal(signal.SIGXFSZ, previous)
    assert "read-only" in caught.value.hint
    assert lines(store) == before


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_what_is_no_file_of_the_store_is_not_written(store: Store, tmp_path: Path, kind: str) -> None:
    path, outside = store.root / "marks.jsonl", tmp_path / "outside"
    outside.touch()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(outside)
    with pytest.raises(StoreError, match=r"marks\.jsonl"):
        write_marks(store, {"q1": Change(mark="good")})
    assert outside.read_bytes() == b""


def test_marks_are_limited(tmp_path: Path) -> None:
    assert changed(None, "x" * LONGEST_NOTE).note
    for mark, note, said in (
        (None, "x" * (LONGEST_NOTE + 1), "10000 characters"),
        ("worse", None, "'good', 'bad' or ''"),
    ):
        with pytest.raises(ConfigError, match=said):
            changed(mark, note)


def test_files_of_marks_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "marks.jsonl"
    file.write_text('{"question_id": "q1", "mark": "bad", "question": "?"}\n{"question_id": "q2", "note": "n"}\n')
    assert read_changes(file) == {"q1": Change(mark="bad"), "q2": Change(note="n")}
    for line, said in (('{"mark": "bad"}', "question_id"), ('{"question_id": "q", "mark": 1}', "mark"), ("[", "JSON")):
        file.write_text('{"question_id": "q1", "mark": "bad"}\n' + line)
        with pytest.raises(ConfigError, match=f"line 2: .*{said}"):
            read_changes(file)
    with pytest.raises(ConfigError, match="cannot read"):
        read_changes(tmp_path / "none")


# ---- with a store that is built


@pytest.mark.long
def test_a_build_keeps_marks_and_no_digest_knows_of_them(built: Path, cli: Run) -> None:
    store = ssd.open(built)
    digest, (first, second) = store.folder.digest(), store.table("trajectories").collect()["question_id"][:2]
    store.mark(first, "bad", HOSTILE)
    marks = store.folder.marks()
    assert store.folder.digest() == digest
    assert cli("verify", built).returncode == 0
    for flags in ([], ["--force"], ["--limit", "1"]):
        assert cli("build", "--quiet", "--store", built, *flags).returncode == 0
        assert store.folder.marks() == marks
    (built / "manifest.json").unlink()  # it is built anew
    assert (
        cli("build", "--quiet", "--store", built, "--fresh", "--limit", "1", "--source", "hotpotqa=sample").returncode
        == 0
    )
    assert second not in store.table("trajectories").collect()["question_id"]
    assert store.folder.marks() == marks
    store.mark(first, "good")  # its question has gone, and its mark may still be changed
    assert words(store.folder) == {first: ("good", HOSTILE.strip())}
    with pytest.raises(StoreError, match="there is no trajectory of question"):
        store.mark(second, "good")


def test_any_duckdb_reads_marks_by_the_catalog_and_a_release_has_none(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    store = ssd.open(built)
    (question_id,) = store.table("trajectories").collect()["question_id"][:1]
    store.mark(question_id, "bad", HOSTILE)
    monkeypatch.chdir(built)
    with duckdb.connect() as connection:
        connection.execute(Path("catalog.sql").read_text(encoding="utf-8"))
        assert connection.sql("FROM marks").pl().equals(pl.DataFrame(store.sql("FROM marks")))
        connection.execute(catalog(store.folder.manifest()))  # as a release has it
        assert connection.sql("FROM marks").fetchall() == []


def test_the_command_line_marks_lists_and_reads_files(built: Path, cli: Run, tmp_path: Path) -> None:
    at = ("--store", built)
    assert cli("mark", *at).stdout == "nothing is marked yet\n"
    first, second = ssd.open(built).table("trajectories").collect()["question_id"][:2]
    assert cli("mark", first, "bad", "--note", "hop 2", *at).returncode == 0
    assert cli("mark", second, "--note", HOSTILE, *at).returncode == 0
    listed = json.loads(cli("mark", "--json", *at).stdout)
    assert [(row["question_id"], row["mark"], row["note"]) for row in listed] == [
        (first, "bad", "hop 2"),
        (second, "", HOSTILE.strip()),
    ]
    assert "Marked bad  hop 2\n" in cli("show", first, *at).stdout
    assert "\x1b" not in cli("mark", *at).stdout
    file = tmp_path / "marks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in listed))
    for question_id in (first, second):
        assert cli("mark", question_id, "clear", *at).returncode == 0
    assert json.loads(cli("mark", "--json", *at).stdout) == []
    assert cli("mark", "--import", file, *at).returncode == 0
    assert [row["note"] for row in json.loads(cli("mark", "--json", *at).stdout)] == ["hop 2", HOSTILE.strip()]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody", "good"], 1, "there is no trajectory of question nobody"),
        (["nobody"], 2, "say what of which question"),
        (["--note", "good"], 2, "say what of which question"),
        (["nobody", "worse"], 2, "'worse' is not one of"),
        (["q", "--import", "x"], 2, "--import marks what its file names"),
        (["--import", "/none"], 2, "cannot read /none"),
        (["q", "--note", "x" * 10_001], 2, "at most 10000 characters"),
    ],
)
def test_wrong_usage_is_told(sample_store: Path, cli: Run, arguments: list[str], code: int, said: str) -> None:
    done = cli("mark", *arguments, "--store", sample_store)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert done.stderr.count("\n") <= 2
    assert not (sample_store / "marks.jsonl").exists()


# ---- marks as a gate


def states(store: Path) -> set[str]:
    """The stages that a build would run."""
    return {row["stage"] for row in json.loads(run_cli("explain", "--store", store, "--json").stdout) if row["reasons"]}


@pytest.mark.long
def test_marks_decide_what_passes_when_they_are_asked_for(built: Path, cli: Run) -> None:
    """A changed mark builds `quality` again, a changed note does not."""
    store = ssd.open(built)
    passed = set(store.sql("SELECT question_id FROM quality WHERE passed").to_pydict()["question_id"])
    first, second, third = sorted(passed)[:3]
    before = store.folder.manifest().stages["quality"]
    assert "marks" not in before.fingerprint["config"]
    store.mark(first, "bad", "secret")
    assert states(built) == set()
    told = cli("build", "--store", built, "--set", "quality.marks=drop-bad")
    assert "pairs         current" in told.stderr
    assert gate(store) == {first: ["a reader marked it bad"]}
    assert fit(store) == passed - {first}
    store.mark(second, "good")
    store.mark(first, None, "another note")
    assert states(built) == set()
    store.mark(third, "bad")
    assert states(built) == {"quality"}
    assert "files.marks 1" in cli("explain", "--store", built).stdout
    assert cli("build", "--quiet", "--store", built).returncode == 0
    assert fit(store) == passed - {first, third}
    assert cli("build", "--quiet", "--store", built, "--set", "quality.marks=only-good").returncode == 0
    assert fit(store) == {second}
    assert store.audit()["by_gate"]["marks"] == {"hotpotqa": 30, "musique": 39}
    assert cli("build", "--quiet", "--store", built, "--set", "quality.marks=default").returncode == 0
    assert store.folder.manifest().stages["quality"] == before
    assert store.audit()["unchecked"]["marks"] == "off"


def gate(store: ssd.Store) -> dict[str, list[str]]:
    found = store.sql("SELECT question_id, reasons FROM quality WHERE 'marks' IN flags").to_pydict()
    return dict(zip(found["question_id"], found["reasons"], strict=True))


def fit(store: ssd.Store) -> set[str]:
    return set(store.sql("SELECT question_id FROM quality WHERE passed").to_pydict()["question_id"])


def test_a_store_from_elsewhere_asks_for_marks_of_its_own(built: Path, cli: Run) -> None:
    """Who has a store without its reader's marks does not build it with none by mistake."""
    store = ssd.open(built)
    store.mark(next(iter(sorted(fit(store)))), "bad")
    assert cli("build", "--quiet", "--store", built, "--set", "quality.marks=drop-bad").returncode == 0
    (built / "marks.jsonl").unlink()
    (built / "log" / "settings.json").unlink()
    assert cli("sql", "FROM marks", "--store", built).returncode == 0
    refused = cli("build", "--store", built)
    assert refused.returncode == 2
    assert "quality was built with quality.marks, whose value the store does not keep" in refused.stderr
    assert cli("build", "--quiet", "--store", built, "--set", "quality.marks=drop-bad").returncode == 0
    assert gate(store) == {}
