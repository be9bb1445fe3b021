from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.core.plugins import Registry
from stepsearch_data.search import Answer, Engine, Found, Kind
from stepsearch_data.search.engine import SearchEngine
from stepsearch_data.search.kinds import EngineConfig, choose, kind_of, kinds, need
from tests.conftest import Run
from tests.plugins import install

PLUGIN = """
from stepsearch_data.core.plugins import Registry
from stepsearch_data.search import Answer, Found, Kind
from stepsearch_data.search.kinds import EngineConfig, EngineSettings


class Echo:
    name, batch, in_flight = "echo", 10, 1

    async def search(self, queries, k):
        return [Answer([Found(None, 1.0, "Echo", query)]) for query in queries]

    async def close(self):
        pass


DECLARED = Kind("echo", "says what it hears", EngineConfig, lambda *_: Echo(), settings=EngineSettings, location="")
"""


@pytest.mark.parametrize("name", kinds())
def test_every_kind_says_what_it_is(name: str) -> None:
    kind = kind_of(name)
    assert kind.name == name
    assert kind.doc
    for model in (kind.config, kind.settings):
        for key, info in model.model_fields.items():
            assert info.description, key


def test_kinds_of_this_process_are_built_and_the_others_are_not() -> None:
    local = [name for name in kinds() if kind_of(name).build is not None]
    assert local == ["bm25", "tantivy", "rank-bm25", "chargram", "dense"]


@pytest.mark.long
def test_a_package_adds_a_kind_by_an_entry_point(tmp_path: Path, cli: Run) -> None:
    """A real distribution on the path: votes in a build, beside our own engine."""
    environment = install(tmp_path, "stepsearch_data.engines", "echo", PLUGIN)
    store = tmp_path / "store"
    built = cli("build", "--store", store, "--limit", "2", "-e", "bm25", "-e", "echo", "--quiet", env=environment)
    assert built.returncode == 0, built.stderr
    found = cli("sql", "SELECT DISTINCT engine, title FROM hits ORDER BY engine", "--store", store, "-f", "csv")
    assert found.stdout.splitlines()[1:] == ['"bm25",', '"echo","Echo"']


def test_settings_that_decide_answers_are_the_fingerprint_and_the_others_are_not() -> None:
    (engine,) = choose(["bm25"], {"bm25": {"k1": 0.5, "index": "somewhere"}})
    assert engine.fingerprint() == {
        "kind": "bm25",
        "version": engine.kind.version,
        "k1": 0.5,
        "b": 0.75,
        "title_weight": 2,
        "variant": "lucene",
    }


def test_where_an_engine_is_goes_to_the_setting_that_means_it() -> None:
    local, remote = choose(["bm25", "http"], {"bm25": {"at": "wiki.index"}, "http": {"at": "http://localhost:1"}})
    assert local.index == Path("wiki.index")
    assert remote.settings.url == "http://localhost:1"


def test_what_is_no_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no search engine 'chargam'") as unknown:
        kind_of("chargam")
    assert unknown.value.hint == "did you mean chargram?"
    odd = Registry("stepsearch_data.engines", "search engine", {"odd": "pathlib:Path"})
    monkeypatch.setattr(sys.modules[kind_of.__module__], "ENGINES", odd)
    with pytest.raises(ConfigError, match="is not a stepsearch_data Kind"):
        kind_of("odd")


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(SearchError, match="needs the package surely_not_there") as missing:
        need("surely_not_there", "extra")
    assert missing.value.hint == "pip install 'stepsearch-data[extra]'"


def test_the_protocol_is_all_that_an_engine_needs() -> None:
    class Plain:
        name, batch, in_flight = "plain", 1, 1

        async def search(self, queries: Sequence[str], k: int) -> list[Answer]:
            return [Answer([Found(None, 1.0)] * k) for _ in queries]

        async def close(self) -> None: ...

    engine: SearchEngine = Plain()
    kind = Kind("plain", "nothing more", EngineConfig, open=lambda *_: engine)
    assert not Engine("plain", kind, EngineConfig(), None).is_local


@pytest.mark.parametrize("name", ["..", ".", "/etc", "a/b", "manifest.json", "", "-x", "a b"])
def test_a_name_that_could_be_another_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name an engine"):
        choose([name], {name: {"kind": "bm25"}})
    with pytest.raises(ConfigError, match="cannot name an engine"):
        choose(["bm25"], {name: {"kind": "bm25"}})


def test_sections_that_are_not_used_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"engines\.chargram\.typo: unknown key"):
        choose(["bm25"], {"chargram": {"typo": 1}})
    with pytest.raises(ConfigError, match="there is no search engine 'x'"):
        choose(["bm25"], {"x": {"y": 1}})


def test_a_server_without_a_revision_is_told_by_its_url() -> None:
    def fingerprint(**section: str) -> object:
        (engine,) = choose(["http"], {"http": section})
        return engine.fingerprint()

    assert fingerprint(url="http://a") != fingerprint(url="http://b")
    assert fingerprint(url="http://a", revision="wiki") == fingerprint(url="http://b", revision="wiki")
