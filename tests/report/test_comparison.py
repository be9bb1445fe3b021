"""Two stores compared on a page: what it is told, and how it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.compare import compare
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.progress import Meter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report import write
from stepsearch_data.report.comparison import comparison
from stepsearch_data.report.page import pack
from stepsearch_data.report.records import records
from stepsearch_data.report.shapes import Comparison
from stepsearch_data.report.write import report
from tests.conftest import Run
from tests.releases import build
from tests.report.holds import check
from tests.report.reading import read, unpack

METER = Meter(None, "report")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Two builds of the sample that differ in one setting: fewer queries are valid in the second."""
    folder = tmp_path_factory.mktemp("compared")
    k3, k1 = (build(folder / f"k{k}", "queries.per_sub_question=1", f"filter.k={k}") for k in (3, 1))
    return k3, k1


def test_it_names_what_compare_finds_with_questions_and_reasons(stores: tuple[Store, Store]) -> None:
    told, found = comparison(*stores), compare(*stores)
    check(told, Comparison)
    assert (told["a"], told["b"]) == ("k3", "k1")
    assert told["kept_share"] == found["kept_share"]
    assert told["fit"] == found["counts"]["trajectories_passed"]
    asked = {record["id"]: record["question"] for record in records(stores[0], stores[0].manifest())}
    lost = {change["id"]: change for change in told["changes"] if change["kind"] == "lost"}
    assert {name: change["reasons"] for name, change in lost.items()} == {
        one["question_id"]: [one["why"]] for one in found["lost"]
    }
    assert {name: change["question"] for name, change in lost.items()} == {name: asked[name] for name in lost}
    assert {one["question_id"]: one["differs"] for one in found["changed"]} == {
        change["id"]: change["reasons"] for change in told["changes"] if change["kind"] == "changed"
    }
    assert comparison(stores[1], stores[0])["changes"][0]["kind"] == "gained"


def test_its_tables_hold_the_settings_counts_and_gates_of_both(stores: tuple[Store, Store]) -> None:
    settings, counts, gates = comparison(*stores)["tables"]
    found = compare(*stores)
    assert settings["rows"] == [["filter.k", "3", "1"]]
    assert {str(row[0]).replace(" ", "_"): (row[1], row[2]) for row in counts["rows"]} == found["counts"]
    assert {row[0]: (row[1], row[2]) for row in gates["rows"]} == found["gates"]
    assert {"B": "#/t?passed=true"} in counts["links"]
    assert [links["B"] for links in gates["links"]] == [f"#/t?flags={gate}" for gate in found["gates"]]
    assert all(row[3] == row[2] - row[1] for row in [*counts["rows"], *gates["rows"]])  # type: ignore[operator]  # numbers


@pytest.mark.parametrize("folder", [False, True])
def test_a_report_holds_both_versions_of_what_differs(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    monkeypatch.setattr(write, "CHUNK_ROWS", 20)
    a, b = stores
    written = report(b, tmp_path / "out", METER, compared=a, folder=folder)
    found = read(written.page)
    assert found.comparison
    check(found.comparison, Comparison)
    changed = {change["id"] for change in found.comparison["changes"]}
    ours = list(records(b, b.manifest()))
    theirs = [record for record in records(a, a.manifest()) if record["id"] in changed]
    assert found.records == [unpack(pack(record).decode()) for record in [*ours, *theirs]]
    assert found.comparison["others"] == [record["id"] for record in theirs]
    assert found.comparison["first_chunk"] == -(-len(ours) // 20)
    assert written.trajectories == len(ours)


def test_equal_stores_give_equal_bytes_without_a_change(stores: tuple[Store, Store], tmp_path: Path) -> None:
    pages = [report(stores[0], tmp_path / name, METER, compared=stores[0]).page for name in ("one", "two")]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    found = read(pages[0]).comparison
    assert found
    assert (found["changes"], found["others"], found["tables"][0]["rows"]) == ([], [], [])
    assert str(stores[0].root) not in pages[0].read_text()


def test_the_page_is_not_written_into_either_store(stores: tuple[Store, Store]) -> None:
    for a, b in (stores, stores[::-1]):
        with pytest.raises(StoreError, match="it lies in the store and could damage it"):
            report(b, a.root / "out", METER, compared=a)


@pytest.mark.long
def test_the_commands_write_it(stores: tuple[Store, Store], tmp_path: Path, cli: Run) -> None:
    a, b = stores
    done = cli("compare", a.root, b.root, "--html", tmp_path / "one.html")
    assert done.returncode == 0, done.stderr
    assert "filter.k: 3 → 1" in done.stdout
    assert f"wrote {tmp_path / 'one.html'}: 70 trajectories" in done.stderr
    assert cli("report", "--store", b.root, "--compare", a.root, "-o", tmp_path / "two").returncode == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    missing = cli("report", "--store", b.root, "--compare", tmp_path / "none", "-o", tmp_path / "two")
    assert missing.returncode == 1
    assert missing.stderr.startswith(f"error: there is no store at {tmp_path / 'none'}\n")
