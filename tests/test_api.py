"""The Python API: what a notebook does with a store, and what it is told when it cannot."""

from __future__ import annotations

import asyncio
import doctest
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import stepsearch_data as ssd
from stepsearch_data import api, trajectory
from stepsearch_data.core.progress import Reporter
from stepsearch_data.schemas.tables import OPTIONAL, TABLES, Table
from tests.conftest import Run
from tests.rows import QUESTION, jsonl, musique, write_lines


@pytest.fixture
def here(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sample's store in it, and the process in that folder."""
    shutil.copytree(sample_store, tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    return tmp_path


EXAMPLES = [
    example
    for module in (api, trajectory)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"ssd": ssd})
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_examples_of_docstrings_run(example: doctest.DocTest, here: Path) -> None:
    told: list[str] = []
    assert doctest.DocTestRunner().run(example, out=told.append).failed == 0, "".join(told)


def test_everything_public_has_an_example() -> None:
    public = {name for name in vars(ssd.Store) if not name.startswith("_")} - {"path"}
    wanted = {f"Store.{name}" for name in public} | {"Store", "build", "open", "score", "load_trajectories"}
    assert {example.name.removeprefix("stepsearch_data.api.") for example in EXAMPLES} >= wanted


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import sys, stepsearch_data as ssd; print(sorted(m for m in sys.modules if m.startswith('stepsearch_data')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['stepsearch_data', 'stepsearch_data.core', 'stepsearch_data.core.version']"
    assert set(ssd.__all__) == set(dir(ssd))
    assert ssd.errors.StoreError.__name__ == "StoreError"
    with pytest.raises(AttributeError, match="no attribute ballot"):
        _ = ssd.ballot
    assert (Path(ssd.__file__).parent / "py.typed").is_file()


@pytest.mark.long
def test_a_build_is_that_of_the_command(tmp_path: Path, cli: Run) -> None:
    settings = {"filter.k": 2, "quality.validation": 0.5, "run.workers": 1}
    store = ssd.build(tmp_path / "api", engines=["bm25", "chargram"], limit=3, settings=settings, progress=False)
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    engines = ["--engine", "bm25", "--engine", "chargram"]
    assert cli("build", "--store", tmp_path / "cli", "--limit", "3", *engines, *sets, "-q").returncode == 0
    assert store.folder.digest() == ssd.open(tmp_path / "cli").folder.digest()
    again = ssd.build(tmp_path / "api", progress=False)  # with the settings that the store remembers
    assert again.folder.digest() == store.folder.digest()
    ssd.build(tmp_path / "api", settings={"filter.k": None, "quality.validation": None}, progress=False)
    explained = cli("explain", "--store", tmp_path / "cli", "--set", "filter.k=default", "--json")
    reasons = {each["stage"]: each["reasons"] for each in json.loads(explained.stdout)}
    assert reasons["filter"] == ["config.k: 2 → 3"]
    assert ssd.open(tmp_path / "api").folder.manifest().stages["filter"].fingerprint["config"]["k"] == 3


def test_the_environment_names_a_run_file_and_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text("[load]\nlimit = 2\n")
    monkeypatch.setenv("STEPSEARCH_CONFIG", str(tmp_path / "run.toml"))
    monkeypatch.setenv("STEPSEARCH_STORE", str(tmp_path / "named"))
    assert ssd.build(stages="load", progress=False).path == tmp_path / "named"
    assert ssd.open(tmp_path / "named").tables["loaded"] == 4


def test_a_build_runs_where_an_event_loop_does_and_says_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_lines(tmp_path / "rows.jsonl", [jsonl("q1"), b"{"])

    async def cell() -> ssd.Store:
        return ssd.build(
            tmp_path / "store", sources=f"jsonl={source}", settings={"run.max_reject_share": 1}, stages="load"
        )

    store = asyncio.run(cell())
    assert store.tables == {"loaded": 1, "paragraphs": store.tables["paragraphs"], "origins": 0, "rejects": 1}
    assert store.table("rejects").collect()["position"].to_list() == [2]
    assert capsys.readouterr().err.startswith("load ")
    ssd.build(tmp_path / "store", stages="load")
    assert "remembered: run.max_reject_share = 1" in capsys.readouterr().err


def test_an_interrupt_ends_what_runs_beside_an_event_loop() -> None:
    reporter = Reporter(quiet=True)

    def work() -> None:
        with reporter.stage("endless") as meter:
            while True:
                meter.advance()
                time.sleep(0.01)

    async def cell() -> None:
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        api._outside_a_loop(work, reporter)

    with closing(asyncio.new_event_loop()) as loop, pytest.raises(KeyboardInterrupt):  # run() would hear it instead
        loop.run_until_complete(cell())


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ssd.open("none"), "StoreError", "there is no store at none"),
        (lambda: ssd.build("s", settings={"filter.kk": 1}), "ConfigError", "did you mean k?"),
        (lambda: ssd.build("s", sources="squad=x"), "ConfigError", "unknown kind 'squad'"),
        (lambda: ssd.build("s", sources="musique=none.jsonl", progress=False), "SourceError", "none.jsonl"),
        (lambda: ssd.build("s", config="none.toml"), "ConfigError", "cannot read the run file none.toml"),
        (lambda: ssd.open().table("round"), "StoreError", "there is no table 'round'"),
        (lambda: ssd.open().sql("DROP TABLE rounds"), "QueryError", "only SELECT"),
        (lambda: ssd.open().sql("SELECT * FROM read_text('/etc/hostname')"), "QueryError", ""),
        (lambda: ssd.open().trajectory("no"), "StoreError", "there is no trajectory of question no"),
        (lambda: ssd.open().export("verk", "out"), "ConfigError", "there is no format 'verk'"),
        (lambda: ssd.open().export("verl", "store/out"), "StoreError", "it lies in the store"),
        (lambda: ssd.open().export("verl", "/proc/out"), "StepSearchError", "cannot write"),
        (lambda: ssd.score([], preset="author's"), "ConfigError", "known: paper, reference"),  # type: ignore[arg-type]
        (lambda: ssd.score([], switches={"nothing": 1}), "ConfigError", "expected NAME=VALUE"),
        (lambda: ssd.score([{"target": "Rome"}]), "SourceError", "row 1 cannot be scored: response"),
        (lambda: ssd.score("none.jsonl"), "SourceError", "none.jsonl"),
        (lambda: ssd.open().report("r", rollouts="none.jsonl"), "SourceError", "cannot read none.jsonl"),
    ],
)
def test_what_cannot_be_is_an_error_of_the_package(call: Any, error: str, said: str, here: Path) -> None:
    with pytest.raises(ssd.errors.StepSearchError) as raised:
        call()
    assert type(raised.value).__name__ == error
    assert said in raised.value.message + raised.value.hint


@pytest.mark.parametrize("name", [table.name for table in TABLES if table not in OPTIONAL])
def test_a_table_has_the_rows_and_columns_of_its_view(name: str, sample_store: Path) -> None:
    store = ssd.open(sample_store)
    frame, view = store.table(name).collect(), pl.DataFrame(store.sql(f"FROM {name}"))
    assert frame.columns == view.columns
    order = [column for column, kind in view.schema.items() if not kind.is_nested()]
    assert frame.sort(order).to_dicts() == view.sort(order).to_dicts()
    assert name.endswith("_calls") or name == "marks" or store.tables[name] == frame.height


@pytest.mark.parametrize("table", OPTIONAL, ids=lambda table: table.name)
def test_a_table_that_only_some_stores_have(table: Table[Any], sample_store: Path) -> None:
    with pytest.raises(ssd.errors.StepSearchError, match=f"the store has no table {table.name}"):
        ssd.open(sample_store).table(table.name)


def test_a_table_is_what_the_manifest_names(here: Path) -> None:
    """Also where a folder of an earlier build still lies beside its own, and while its votes are about earlier rows."""
    (folder,) = (here / "store" / "stages").glob("trajectories-*")
    shutil.copytree(folder, folder.with_name("trajectories-000000000000"))
    assert ssd.open().table("rounds").collect().height == 182
    ssd.build("store", settings={"queries.per_sub_question": 2}, stages=["queries"], progress=False)
    assert ssd.open().table("queries").collect()["kept"].null_count() == ssd.open().tables["queries"]
    (file,) = (here / "store").glob("stages/corpus-*/passages.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ssd.errors.StoreError, match="is damaged"):
        ssd.open().table("passages")


def test_what_a_notebook_shows_is_text(tmp_path: Path) -> None:
    question = f"{QUESTION}<script>alert(1)</script>\x1b[31m"
    source = write_lines(tmp_path / "rows.jsonl", [musique("<q>", question=question)])
    store = ssd.build(tmp_path / "<b>", sources=f"musique={source}", progress=False)
    page = store.trajectory("<q>")._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "\x1b" not in page + str(store.trajectory("<q>"))
    assert "&lt;b&gt;" in store._repr_html_()
    assert "<tr><td>questions</td><td>1</td></tr>" in store._repr_html_()


def test_scores_are_those_of_the_command(here: Path, cli: Run) -> None:
    rows = ssd.open().table("trajectories").select("rollout", "answer", "answer_aliases").collect()
    rows.write_parquet("rollouts.parquet")
    assert cli("score", here / "rollouts.parquet", "--preset", "reference", "-q").returncode == 0
    scored = ssd.score(rows.iter_rows(named=True), "reference")
    assert scored.equals(ssd.score("rollouts.parquet", "reference"))
    assert scored.to_pylist() == pl.read_parquet("rollouts.scores.parquet").to_dicts()
    assert ssd.score(here / "rollouts.parquet", switches={"refit_tfidf": True}).num_rows == rows.height
    assert ssd.score([]).num_rows == 0
