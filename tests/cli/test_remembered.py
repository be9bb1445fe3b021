"""A store goes on as it was built: what is remembered, what replaces it, and what a stranger's store cannot say."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.builds import remembered as told
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.pipeline.runner import Runner
from stepsearch_data.pipeline.store import Store
from stepsearch_data.remembered import recall, remember
from stepsearch_data.stages import STAGES, select
from tests.conftest import Run, run_cli
from tests.rows import jsonl, write_lines

OPTIONS = ("--engine", "bm25", "--engine", "chargram", "--limit", "4", "--set", "engines.chargram.max_df=0.5")
TOLD: dict[str, dict[str, Any]] = {
    "load": {"limit": 4},
    "engines": {"use": ["bm25", "chargram"], "chargram": {"max_df": 0.5}},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two engines and few questions, held against evaluation data. Tests only read it."""
    folder = tmp_path_factory.mktemp("remembered")
    write_lines(folder / "dev.jsonl", [jsonl("dev")])
    dev = f'quality.eval_sources=["jsonl={folder / "dev.jsonl"}"]'
    done = run_cli("build", "--store", folder / "store", "--quiet", *OPTIONS, "--set", dev)
    assert done.returncode == 0, done.stderr
    return folder / "store"


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "store"))


def explained(root: Path, *settings: str, fresh: bool = False, file: Path | None = None) -> tuple[list[str], list[str]]:
    """The stages that a build would run, and what it says first, as the verbs do it."""
    before = recall(Store(root), STAGES).settings
    config = load_config(STAGES, file, settings, {}, root, remembered=None if fresh else before)
    running = [decision.stage for decision in Runner(STAGES, config, select()).plan() if decision.runs]
    return running, list(told(before, config))


def recalled(root: Path) -> dict[str, Any]:
    return recall(Store(root), STAGES).settings


def test_a_second_build_drops_nothing_and_says_what_it_goes_on_with(store: Path, cli: Run) -> None:
    done = cli("build", "--store", store, "--set", "filter.k=5", "--to", "filter")
    assert done.returncode == 0
    first = done.stderr.splitlines()[0]
    assert first.startswith("remembered: engines.chargram.max_df = 0.5; engines.use = ")
    assert "load.limit = 4" in first
    engines = cli("sql", "SELECT DISTINCT engine FROM engine_votes ORDER BY 1", "--store", store, "-f", "csv")
    assert engines.stdout.split() == ['"engine"', '"bm25"', '"chargram"']
    said = cli("explain", "--store", store, "--set", "filter.k=4")
    assert "replaced: filter.k = 5 → 4" in said.stderr.splitlines()
    assert "config.k: 5 → 4" in said.stdout
    assert json.loads(cli("status", "--store", store, "--json").stdout)["settings"]["filter"] == {"k": 5}


def test_nothing_changes_where_nothing_is_said(built: Path) -> None:
    running, said = explained(built)
    assert running == []
    assert [line.partition(":")[0] for line in said] == ["remembered"]


@pytest.mark.parametrize(
    ("settings", "fresh", "replaced"),
    [
        (('engines.use=["bm25"]',), False, ["engines.chargram.max_df", "engines.use"]),
        (("load.limit=default",), False, ["load.limit"]),
        ((), True, ["engines.chargram.max_df", "engines.use", "load.limit", "quality.eval_sources"]),
    ],
)
def test_what_an_option_replaces_is_said(
    built: Path, settings: tuple[str, ...], fresh: bool, replaced: list[str]
) -> None:
    running, said = explained(built, *settings, fresh=fresh)
    assert running
    gone = [line.split()[1] for line in said if line.startswith("replaced: ") and line.endswith("→ default")]
    assert gone == replaced


def test_a_run_file_is_the_whole_description(built: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[load]\nlimit = 4\n[filter]\nk = 2\n")
    _, said = explained(built, file=tmp_path / "run.toml")
    replaced = [line.split()[1] for line in said if line.startswith("replaced")]
    assert replaced == ["engines.chargram.max_df", "engines.use", "quality.eval_sources"]
    assert said[-1] == "remembered: load.limit = 4 (forget: --fresh)"


def test_an_interrupted_first_build_is_remembered_too(tmp_path: Path, cli: Run) -> None:
    source = f"musique={tmp_path / 'none.jsonl'}"
    failed = cli("build", "--store", tmp_path / "store", "--engine", "chargram", "--source", source)
    assert failed.returncode == 1
    assert recalled(tmp_path / "store") == {"engines": {"use": ["chargram"]}}


def test_services_are_remembered_with_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    settings = (
        "llm.base_url=http://localhost:8000/v1",
        "llm.rpm=5",
        "decompose.llm=default-model",
        "prompts.queries=mine.txt",
        'quality.eval_sources=["musique=dev.jsonl", "2wiki=hf:a/b"]',
        "engines.use=['wiki', 'http']",
        "engines.wiki.kind=bm25",
        "engines.wiki.index=wiki.index",
        "engines.http.at=http://localhost:1",
        "run.workers=97",
    )
    config = load_config(STAGES, settings=settings, environment={})
    remember(Store(tmp_path / "store"), config, STAGES)
    assert recalled(tmp_path / "store") == {
        "llm": {"base_url": "http://localhost:8000/v1", "rpm": 5.0},
        "run": {"workers": 97},
        "decompose": {"llm": "default-model"},
        "prompts": {"queries": str(tmp_path / "mine.txt")},
        "quality": {"eval_sources": [f"musique={tmp_path / 'dev.jsonl'}", "2wiki=hf:a/b"]},
        "engines": {
            "use": ["wiki", "http"],
            "wiki": {"kind": "bm25", "index": str(tmp_path / "wiki.index")},
            "http": {"url": "http://localhost:1"},
        },
    }
    again = load_config(STAGES, environment={}, remembered=recalled(tmp_path / "store"))
    assert (again.llm, again.prompts["queries"]) == (config.llm, tmp_path / "mine.txt")
    assert [engine.fingerprint() for engine in again.engines] == [engine.fingerprint() for engine in config.engines]
    fewer = load_config(
        STAGES, settings=["engines.use=['bm25']"], environment={}, remembered=recalled(tmp_path / "store")
    )
    assert [engine.name for engine in fewer.engines] == ["bm25"]


def test_a_store_from_elsewhere_says_by_its_fingerprints_how_it_was_built(store: Path, cli: Run) -> None:
    shutil.rmtree(store / "log")
    found = recall(Store(store), STAGES)
    assert found.settings == {**TOLD, "engines": {**TOLD["engines"], "chargram": {"kind": "chargram", "max_df": 0.5}}}
    assert found.lost == {"quality.eval_sources": "quality"}
    refused = cli("build", "--store", store)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-2:] == [
        "error: quality was built with quality.eval_sources, whose value the store does not keep",
        "hint: give it again: --set 'quality.eval_sources=…'; or go on without: --set quality.eval_sources=default",
    ]
    assert cli("build", "--store", store, "--to", "filter").returncode == 0
    assert recall(Store(store), STAGES).lost == found.lost  # a build that did not need it has not forgotten it
    assert explained(store, "quality.eval_sources=default")[0] == ["quality"]


def test_a_stranger_cannot_say_which_server_is_asked(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(STAGES, settings=["llm.base_url=http://elsewhere/v1"], environment={})
    remember(Store(store), config, STAGES)
    assert recalled(store) == {"llm": {"base_url": "http://elsewhere/v1"}}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    assert "llm" not in recalled(store)
    assert recalled(store)["load"] == TOLD["load"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"settings": 5, "signature": 5, "lost": null}', b"\xff"])
def test_a_damaged_memory_is_no_memory(store: Path, content: bytes) -> None:
    (store / "log" / "settings.json").write_bytes(content)
    assert recalled(store)["load"] == TOLD["load"]


@pytest.mark.parametrize(
    "engines",
    [
        {"use": ["bm25", "gone"]},
        {"use": {"bm25": 5}},
        {"use": ["mine"], "mine": {"kind": "not installed", "k1": 2}},
        {"use": ["mine"], "mine": {"k1": "x"}},
    ],
)
def test_fingerprints_of_a_stranger_may_hold_anything(store: Path, engines: dict[str, Any]) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    shutil.rmtree(store / "log")
    for entry in manifest["stages"].values():
        entry["fingerprint"] |= {"config": {"k": "x", "limit": -1, "unknown": 5}}
    manifest["stages"]["retrieve"]["fingerprint"]["engines"] = engines
    (store / "manifest.json").write_text(json.dumps(manifest))
    found = recall(Store(store), STAGES)
    assert set(found.settings) <= {"engines"}
    with pytest.raises(ConfigError) if "mine" in engines else nullcontext():
        load_config(STAGES, environment={}, remembered=found.settings)
    load_config(STAGES, settings=['engines.use=["bm25"]'], environment={}, remembered=found.settings)


def test_a_key_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "a" * 40
    config = load_config(
        STAGES, settings=["decompose.llm=canary-0123456789", f"llm.base_url=http://h/{long}/v1"], environment={}
    )
    monkeypatch.setenv("OPENAI_API_KEY", "canary-0123456789")
    remember(Store(tmp_path), config, STAGES)
    text = (tmp_path / "log" / "settings.json").read_text()
    assert "canary" not in text
    assert long not in text
    assert set(recall(Store(tmp_path), STAGES).lost) == {"decompose.llm", "llm.base_url"}


def test_a_default_is_a_word_of_its_own() -> None:
    before = {"filter": {"k": 5}, "decompose": {"llm": "x"}}
    assert (
        load_config(STAGES, settings=["filter.k=default"], environment={}, remembered=before).stages["filter"]
        == (load_config(STAGES, environment={}).stages["filter"])
    )
    named = load_config(STAGES, settings=['decompose.llm="default"'], environment={}, remembered=before)
    assert named.stages["decompose"].model_dump()["llm"] == "default"
    with pytest.raises(ConfigError, match="unknown key"):
        load_config(STAGES, settings=["filter.kk=5"], environment={}, remembered=before)
