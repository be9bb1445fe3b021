"""A Hub on loopback for each test, and the command line that speaks to it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from huggingface_hub import constants
from huggingface_hub.utils._http import default_client_factory, set_client_factory
from typer.testing import CliRunner

from stepsearch_data.cli import app
from tests.conftest import run_cli
from tests.hub_server import Hub, User, running_hub

TOKEN = "hf_thisIsASecretThatNobodyMaySee"
READ = "hf_thisOneMayOnlyReadAndIsSecretToo"
BOB = "hf_thisIsTheSecretOfSomebodyElse"
REPO = "ann/data"


class Said(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


Command = Callable[..., Said]


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a few questions. Tests only read it."""
    store = tmp_path_factory.mktemp("small") / "store"
    assert run_cli("build", "--store", store, "--limit", "4", "--quiet").returncode == 0
    return store


@pytest.fixture(scope="session")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another store of a few questions."""
    store = tmp_path_factory.mktemp("other") / "store"
    assert run_cli("build", "--store", store, "--limit", "6", "--quiet").returncode == 0
    return store


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that the clients of this process take for the real one."""
    with running_hub() as server:
        server.users |= {TOKEN: User("ann", orgs=("team",)), READ: User("ann", "read"), BOB: User("bob")}
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        files = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
        set_client_factory(default_client_factory)


@pytest.fixture
def command(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`stepsearch-data` in this process. Whatever it says or writes holds no token and no traceback."""
    monkeypatch.setenv("COLUMNS", "200")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: str | Path, token: str = TOKEN) -> Said:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"HF_TOKEN": token})
        said = Said(done.exit_code, done.stdout, done.stderr)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert not holds_secret(said.text), said.text
        return said

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or not holds_secret(path.read_bytes().decode(errors="replace")), path


@pytest.fixture
def publish(command: Command, small_store: Path, tmp_path: Path) -> Command:
    """Publishes the small store, or another one, as v1.0.0 of ann/data."""

    def run(*arguments: str | Path, store: Path = small_store, token: str = TOKEN, tag: str = "v1.0.0") -> Said:
        folder = tmp_path / "release"
        own = ("--yes", *(("--tag", tag) if tag else ()), "--patience", "1", "--store", store, "--output", folder)
        return command("publish", REPO, *own, *arguments, token=token)

    return run


def holds_secret(text: str) -> bool:
    """Whether a token, or what signs a URL of the storage, is in a text."""
    return any(secret in text for secret in (TOKEN, READ, BOB, "s3cr3t"))
