from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from stepsearch_data.core.atomic import alone
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report import write
from stepsearch_data.report.page import pack
from stepsearch_data.report.records import records
from stepsearch_data.report.shapes import Index, Summary
from stepsearch_data.report.write import report
from tests.conftest import Run
from tests.report.conftest import HOSTILE
from tests.report.holds import check
from tests.report.reading import chunks, elements, read, unpack

METER = Meter(None, "report")


def test_small_data_is_one_file_that_holds_everything(rich: Store, tmp_path: Path) -> None:
    written = report(rich, tmp_path / "out", METER)
    assert [*tmp_path.iterdir()] == [written.page] == [tmp_path / "out.html"]
    found = read(written.page)
    check(found.summary, Summary)
    check(found.index, Index)
    assert found.mode == "embedded"
    assert found.records == plain(rich)
    assert found.index["id"] == [record["id"] for record in found.records]
    assert (written.trajectories, written.bytes) == (len(found.records), written.page.stat().st_size)
    assert written.bytes < 5_000_000


@pytest.mark.parametrize("arguments", [{"folder": True}, {"one_file": 10_000}], ids=["asked for", "large data"])
def test_large_data_is_a_folder_whose_page_loads_chunks(
    rich: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, int]
) -> None:
    monkeypatch.setattr(write, "CHUNK_ROWS", 20)
    written = report(rich, tmp_path / "out.html", METER, **arguments)  # type: ignore[arg-type]  # of either
    assert written.page == tmp_path / "out" / "index.html"
    found = read(written.page)
    assert found.mode == "chunks"
    assert found.records == plain(rich)
    assert found.index["chunk_rows"] == 20
    names = [path.name for path in chunks(written.page)]
    assert names == ["chunk-0.js", "chunk-1.js", "chunk-2.js", "chunk-3.js", "parts.js", "texts.js"]
    assert len(found.texts) == len(found.records)
    assert max(found.parts["rounds"]["place"]) == len(found.records)
    assert written.bytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.*"))
    assert [*tmp_path.iterdir()] == [tmp_path / "out"]


def plain(store: Store) -> list[object]:
    """The records as JSON gives them back: tuples are lists."""
    return [unpack(pack(record).decode()) for record in records(store, store.manifest())]


@pytest.mark.parametrize("folder", [False, True])
def test_equal_stores_give_equal_bytes(sample: Store, tmp_path: Path, folder: bool) -> None:
    shutil.copytree(sample.root, tmp_path / "copy")
    pages = [
        report(store, tmp_path / name, METER, folder=folder).page
        for name, store in (("one", sample), ("two", Store.open(tmp_path / "copy")))
    ]
    one, two = ([path.read_bytes() for path in (page, *chunks(page))] for page in pages)
    assert one == two
    assert str(tmp_path).encode() not in b"".join(one)
    assert str(sample.root).encode() not in b"".join(one)


@pytest.mark.parametrize("folder", [False, True])
def test_hostile_rows_stay_text(hostile: Store, tmp_path: Path, folder: bool) -> None:
    page = report(hostile, tmp_path / "out", METER, title=HOSTILE, folder=folder).page
    found = read(page)
    assert "window.broken" not in found.text.replace("\\u003c", "").partition("<title>")[0]
    executed = [element for element in elements(found.text) if element.attributes == {"type": "module"}]
    assert len(executed) == 2
    assert not any("window.broken" in element.text for element in executed)
    assert not [element for element in elements(found.text) if element.name == "img" or "onerror" in element.attributes]
    (record,) = found.records
    assert record["id"] == "q/1 <b>"
    assert record["question"] == f"Who founded Lodi? {HOSTILE}"
    assert HOSTILE.strip() in record["rounds"][0]["documents"][0]["text"]


def test_an_earlier_report_is_replaced(sample: Store, rich: Store, tmp_path: Path) -> None:
    for folder in (False, True):
        first = report(sample, tmp_path / "out", METER, folder=folder)
        second = report(rich, tmp_path / "out", METER, folder=folder)
        assert first.page == second.page
        assert len(read(second.page).records) == second.trajectories > first.trajectories
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.html"]


def test_what_is_no_report_is_left_alone(sample: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "page.html").write_text("<html>mine</html>")
    before = sorted(tmp_path.rglob("*"))
    for output, folder in (
        ("mine", False),
        ("mine", True),
        ("page", False),
        ("page.html", False),
        ("mine/thesis.txt", True),
        ("/", False),
    ):
        with pytest.raises(StoreError, match="already"):
            report(sample, tmp_path / output, METER, folder=folder)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("inside", ["report", "stages/report.html", "."])
def test_the_store_itself_is_no_place_for_it(sample: Store, inside: str) -> None:
    before = sorted(sample.root.rglob("*"))
    with pytest.raises(StoreError, match="lies in the store"):
        report(sample, sample.root / inside, METER)
    assert sorted(sample.root.rglob("*")) == before


def test_a_store_that_is_not_up_to_date_is_refused(sample: Store, tmp_path: Path, cli: Run) -> None:
    shutil.copytree(sample.root, tmp_path / "store")
    change = ("--set", "queries.per_sub_question=2", "--to", "queries")
    assert cli("build", "--store", tmp_path / "store", "--quiet", *change).returncode == 0
    with pytest.raises(StoreError, match="pairs, quality, retrieve, trajectories come from earlier inputs"):
        report(Store.open(tmp_path / "store"), tmp_path / "out", METER)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_report_that_fails_leaves_nothing_and_keeps_the_one_before(sample: Store, tmp_path: Path) -> None:
    class Full(Meter):
        def advance(self, rows: int = 1) -> None:
            raise OSError(28, os.strerror(28), rows)

    report(sample, tmp_path / "out", METER)
    before = (tmp_path / "out.html").read_bytes()
    with pytest.raises(OSError, match="No space"):
        report(sample, tmp_path / "out", Full(None, "report"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]
    assert (tmp_path / "out.html").read_bytes() == before


def test_what_a_killed_process_left_goes_with_the_next_report(sample: Store, tmp_path: Path) -> None:
    (tmp_path / ".out.new").mkdir()
    (tmp_path / ".out.new" / "packed").write_text("half of")
    report(sample, tmp_path / "out", METER)
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_one_process_writes_a_report_at_a_time(sample: Store, tmp_path: Path) -> None:
    with alone(tmp_path / ".out.new", StoreError("")), pytest.raises(StoreError, match="another process is writing"):
        report(sample, tmp_path / "out", METER)


def test_a_table_that_is_damaged_is_a_clear_error(sample: Store, tmp_path: Path) -> None:
    for name in ("trajectories-*/rounds", "quality-*/quality", "gather-*/questions"):
        shutil.copytree(sample.root, tmp_path / "store")
        (path,) = (tmp_path / "store").glob(f"stages/{name}.parquet")
        whole = path.read_bytes()
        path.write_bytes(whole[:100] + b"\0" * (len(whole) - 8_000) + whole[-7_900:])
        with pytest.raises(StoreError, match=r"cannot be read: \w+ is damaged|parquet is damaged"):
            report(Store.open(tmp_path / "store"), tmp_path / "out", METER)
        shutil.rmtree(tmp_path / "store")
    assert [*tmp_path.iterdir()] == []


def test_a_store_without_trajectories_is_an_overview(tmp_path: Path, cli: Run) -> None:
    assert cli("build", "--store", tmp_path / "store", "--to", "load", "--quiet").returncode == 0
    found = read(report(Store.open(tmp_path / "store"), tmp_path / "out", METER).page)
    assert found.records == found.index["id"] == []
    assert found.summary["funnel"][0]["count"] == 74


def test_the_verb_says_what_it_wrote(sample: Store, tmp_path: Path, cli: Run) -> None:
    done = cli("report", "--store", sample.root, "--output", tmp_path / "new" / "out", "--title", "Mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(f"wrote {tmp_path / 'new' / 'out.html'}: 70 trajectories, 1.")
    assert read(tmp_path / "new" / "out.html").summary["title"] == "Mine"


def test_a_place_that_cannot_be_written_is_a_clear_error(sample: Store, tmp_path: Path, cli: Run) -> None:
    (tmp_path / "file").write_text("")
    refused = cli("report", "--store", sample.root, "--output", tmp_path / "file" / "out")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: cannot write ")
    assert "Traceback" not in refused.stderr


def test_real_rows_are_a_report_in_one_file(tmp_path: Path, real_sources: list[str], cli: Run) -> None:
    built = cli("build", "--store", tmp_path / "store", "--quiet", *real_sources)
    assert built.returncode == 0, built.stderr
    written = report(Store.open(tmp_path / "store"), tmp_path / "out", METER)
    assert written.trajectories == len(read(written.page).records) > 300
    assert written.bytes < 5_000_000
