"""What tests share: the command line as a subprocess, a built sample store, and the shared data where it is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import starter
from tests.releases import build, release

# On a busy machine an example may take any time: that is no failure.
settings.register_profile(
    "same examples in every run", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same examples in every run")
if TYPE_CHECKING:
    from tests.object_server import ObjectServer

SHARED = Path(__file__).resolve().parents[2] / "shared"
Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes and functions by their argument: a gzip file's time, or an address, would differ in each worker."""
    return argname if isinstance(val, bytes) or callable(val) else None


def run_cli(
    *arguments: str | Path, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `stepsearch-data` with these arguments, as a user would."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STEPSEARCH_")}
    return starter.run([*map(str, arguments)], {**clean, "COLUMNS": "200", **(env or {})}, stdin)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of tests that are coroutines and marked `anyio`."""
    return "asyncio"


@pytest.fixture
def cli() -> Run:
    """The command line; returns the finished process."""
    return run_cli


@pytest.fixture(scope="session")
def all_objects() -> Iterator[ObjectServer]:
    """One server of objects for all tests of a process: it starts in half a second."""
    from tests.object_server import running_objects

    with running_objects() as server:
        yield server


@pytest.fixture
def objects_server(all_objects: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """A server of objects that has no faults yet, and is in the environment."""
    from tests.object_server import CREDENTIALS

    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": all_objects.endpoint}.items():
        monkeypatch.setenv(name, value)
    quiet = all_objects.fault, all_objects.after
    yield all_objects
    all_objects.fault, all_objects.after = quiet


@pytest.fixture
def bucket(objects_server: ObjectServer) -> str:
    """The URL of an empty bucket."""
    return f"s3://{objects_server.bucket()}"


@pytest.fixture(scope="session")
def sample_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built from the embedded sample. Tests only read it."""
    store = tmp_path_factory.mktemp("sample") / "store"
    built = run_cli("build", "--store", store, "--quiet")
    assert built.returncode == 0, built.stderr
    return store


@pytest.fixture(scope="session")
def harvest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of questions that a model composed of documents, with some lost at most steps. Tests only read it."""
    from tests.harvest import build as build_harvest

    return build_harvest(tmp_path_factory.mktemp("harvest"))


@pytest.fixture(scope="session")
def sample_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of a store of the sample, a fifth of it for validation. Tests only read it."""
    folder = tmp_path_factory.mktemp("sample-release")
    release(build(folder / "store", "quality.validation=0.2"), folder / "release")
    return folder / "release"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real rows; the test is skipped where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real rows in {folder}")
    return folder


@pytest.fixture(scope="session")
def shared_vectors() -> Path:
    """Folder of golden vectors; the test is skipped where it is absent."""
    folder = SHARED / "vectors"
    if not folder.is_dir():
        pytest.skip(f"needs the golden vectors in {folder}")
    return folder


@pytest.fixture(scope="session")
def real_sources(shared_data: Path) -> list[str]:
    """`--source` arguments for all real rows."""
    return [
        f"--source=musique={shared_data / 'musique_ans_dev.sample.jsonl'}",
        f"--source=hotpotqa={shared_data / 'hotpot_dev_distractor.sample.json'}",
        f"--source=2wiki={shared_data / '2wikimultihopqa_dev.sample.json'}",
    ]
