"""A key is in no output and no file, whatever verb runs and however the servers repeat it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from stepsearch_data.llm.doctor import examine
from stepsearch_data.llm.settings import LlmSettings
from tests.conftest import run_cli
from tests.fake import Fault
from tests.hub_server import Fault as HubFault
from tests.hub_server import User, running_hub
from tests.llm_server import LlmServer, error
from tests.oracle import Oracle
from tests.search_servers import Page, SearchServer
from tests.search_servers import error as search_error

KEY = "canary-Q7zX9/pL2+vT4"
SPELLINGS = (
    KEY,
    KEY.upper(),
    quote(KEY, safe=""),
    base64.b64encode(KEY.encode()).decode(),
    json.dumps(KEY).replace("/", "\\/"),
    f"{KEY[:9]}…{KEY[-4:]}",
    f"{KEY[:4]}*****{KEY[-4:]}",
    f"http://me:{KEY}@elsewhere/v1?key={KEY}",
)
VARIABLES = ("OPENAI_API_KEY", "SERPER_API_KEY", "HF_TOKEN")
Done = subprocess.CompletedProcess[str]


def tells(text: str) -> list[str]:
    """What of the key, five characters at least, a text holds."""
    pieces = {KEY[at : at + 5].lower() for at in range(len(KEY) - 4)} - {"canar", "anary"}
    found = [piece for piece in pieces if piece in text.lower()]
    return found + [spelling for spelling in SPELLINGS if spelling in text]


class World:
    """Verbs that all have the key in their environment, and what they print."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder, self.store = folder, folder / "store"
        self.env = {"XDG_CACHE_HOME": str(folder / "cache"), **dict.fromkeys(VARIABLES, KEY), **env}

    def run(self, *arguments: str | Path, **env: str) -> Done:
        done = run_cli(*arguments, env={**self.env, **env})
        assert "Traceback" not in done.stderr, done.stderr
        assert not tells(done.stdout + done.stderr), done.stdout + done.stderr
        return done

    def check_files(self) -> None:
        for path in (path for path in self.folder.rglob("*") if path.is_file()):
            assert not tells(path.read_bytes().decode("latin-1")), path


def test_a_key_in_a_reply_does_not_reach_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LlmServer(lambda _: f"the key is {KEY}") as server:
        said = asyncio.run(examine(LlmSettings(base_url=server.url), "mock"))
    assert "the key is ***" in "".join(said)


BAD = f"http://me:{KEY}@127.0.0.1:1/v1?key={KEY}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", f"llm.base_url={BAD}"),
        ("--set", f"decompose.llm={KEY}"),
        ("--set", f'quality.eval_sources=["musique={BAD}"]'),
        ("--engine", f"http={BAD}"),
        ("--engine", f"dense={BAD}"),
        ("--set", f"engines.dense.base_url={BAD}", "--set", "engines.dense.model=m", "--engine", "dense"),
        ("--source", f"musique={BAD}"),
        ("--source", BAD),
        ("--config", BAD),
        ("--prompt", f"decompose={BAD}"),
        ("--llm", "mock", "--set", f"llm.replay={BAD}"),
    ],
)
@pytest.mark.long
def test_a_build_tells_no_key_of_its_options(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    world = World(tmp_path)
    assert world.run("build", "--store", world.store, "--limit", "2", *arguments).returncode in (1, 2)
    world.check_files()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sample_store: Path) -> Iterator[World]:
    """A store whose model and whose engine repeated the key in every spelling while it was built."""
    oracle, spellings = Oracle(sample_store), itertools.cycle(SPELLINGS)
    calls = itertools.count()

    def answer(request: dict[str, Any]) -> str | Fault:
        known = "Question: " in str(request) and next(calls) % 6
        return oracle(request) if known else error(400, f"bad key {next(spellings)}")

    def pages(query: str) -> list[Page] | Fault:
        refused = search_error("serper", 400, f"bad request with {next(spellings)}")
        return [Page(query, f"all about {query}")] if len(query) % 4 else refused

    with LlmServer(answer) as server, SearchServer("serper", pages, KEY) as engine:
        world = World(tmp_path_factory.mktemp("world"), OPENAI_BASE_URL=server.url)
        options = ("--llm", "mock", "--engine", "bm25", "--engine", "serper", "--limit", "6")
        settings = (f"engines.serper.url={engine.url}", "engines.serper.rps=default", "run.max_reject_share=1")
        done = world.run("build", "--store", world.store, *options, *(w for s in settings for w in ("--set", s)))
        assert done.returncode == 3, done.stderr
        yield world


FILES = ("audit", "explain", "status", "show", "retry-failed", "build")


@pytest.mark.long
def test_no_verb_tells_a_key_and_no_file_holds_one(built: World) -> None:
    """The model and the engine refused some rows: their words are in the tables and in the logs."""
    words = "SELECT reason AS said FROM rejects UNION ALL SELECT error FROM hits WHERE error IS NOT NULL"
    found = built.run("sql", words, "--store", built.store, "--format", "json")
    assert len(json.loads(found.stdout)) > len(SPELLINGS)
    for verb in FILES:
        assert built.run(verb, "--store", built.store).returncode in (0, 3), verb
    folder = built.folder
    for arguments in (
        ("report", "--store", built.store, "--output", folder / "page"),
        ("export", "--format", "verl", "--output", folder / "verl", "--store", built.store),
        ("init", folder / "run.toml"),
        ("search", "who", "--store", built.store, "--engine", "bm25"),
        ("stages", "--json"),
        ("verify", built.store),
        ("doctor", "--llm", "mock"),
    ):
        assert built.run(*arguments).returncode in (0, 5), arguments
    built.check_files()


@pytest.mark.long
def test_the_hub_learns_and_tells_no_key(tmp_path: Path, sample_store: Path) -> None:
    world = World(tmp_path, HF_HUB_DISABLE_XET="1", HF_HOME=str(tmp_path / "hf"))
    with running_hub() as hub:
        hub.users[KEY] = User("ann")
        publish = ("publish", "ann/data", "--store", sample_store, "--output", tmp_path / "release")
        assert world.run(*publish, "--yes", HF_ENDPOINT=hub.endpoint).returncode == 0
        hub.fail("info", HubFault(400, json.dumps({"error": f"no {KEY}"})), times=99)
        assert world.run("pull", "ann/data", "--store", tmp_path / "pulled", HF_ENDPOINT=hub.endpoint).returncode
        elsewhere = f"http://me:{KEY}@127.0.0.1:1"
        assert world.run(*publish, "--dry-run", "--patience", "0.2", HF_ENDPOINT=elsewhere).returncode
        files = [data for repository in hub.repositories.values() for data in repository.head.values()]
    assert files
    assert not any(tells(data.decode("latin-1")) for data in files)
    world.check_files()
