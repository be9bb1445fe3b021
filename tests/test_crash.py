"""A build may die at any moment: the store stays readable, and the next build ends with the very same bytes."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from stepsearch_data.core.files import digest_of
from stepsearch_data.pipeline.store import Store
from stepsearch_data.sql import query
from tests.conftest import Run
from tests.tree import tree

pytestmark = pytest.mark.long

KILLS = 20
STAGES = 8
LAUNCH = """
import resource, runpy, signal, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("stepsearch_data", run_name="__main__", alter_sys=True)
"""


class Reference(NamedTuple):
    """An uninterrupted build: its files, and the seconds from the store's first file to the end."""

    files: dict[str, str]
    seconds: float


def start(store: Path, sources: list[str], largest_file: int = resource.RLIM_INFINITY) -> subprocess.Popen[str]:
    """A build, quiet; signals are as in a terminal even where the tests run in the background."""
    options = ["build", "--quiet", "--store", str(store), *sources]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", LAUNCH, str(largest_file), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(build: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    _, errors = build.communicate(timeout=120)
    return build.returncode, errors


def wait_for(path: Path, build: subprocess.Popen[str]) -> None:
    """Until the build has made this file: what precedes is the interpreter's start."""
    while not path.exists() and build.poll() is None:
        time.sleep(0.001)


def committed(store: Path) -> dict[str, str]:
    """Digest by name of every committed output, each checked against its file."""
    outputs: dict[str, str] = {}
    manifest = Store(store).manifest()
    for entry in manifest.stages.values():
        for name, output in entry.outputs.items():
            assert digest_of(store / output.path) == output.digest
            outputs[f"{entry.folder}/{name}"] = output.digest
    return outputs


def readable(store: Path) -> None:
    """Every view that a store has right now can be read to its end."""
    if (store / "manifest.json").exists():
        committed(store)
        with query(Store.open(store), "SHOW TABLES") as reader:
            views = [row["name"] for row in reader.read_all().to_pylist()]
        assert "loaded" in views
        for view in views:
            with query(Store.open(store), f"SELECT * FROM {view}") as reader:
                reader.read_all()


@pytest.fixture(scope="module")
def reference(real_sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Reference:
    store = tmp_path_factory.mktemp("reference") / "store"
    build = start(store, real_sources)
    wait_for(store / ".lock", build)
    begin = time.monotonic()
    assert finish(build) == (0, "")
    return Reference(tree(store, "log"), time.monotonic() - begin)


def moments() -> list[float]:
    """One random moment in each of as many equal parts of a build's time."""
    chance = random.Random(20)
    return [(part + chance.random()) / KILLS for part in range(KILLS)]


@pytest.mark.parametrize("moment", moments(), ids=lambda moment: f"{moment:.3f}")
def test_a_build_that_is_killed_goes_on_to_the_same_bytes(
    moment: float, reference: Reference, real_sources: list[str], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    build = start(store, real_sources)
    wait_for(store / ".lock", build)
    time.sleep(moment * reference.seconds)
    build.kill()
    finish(build)
    readable(store)
    done = set(Store(store).manifest().stages)
    again = start(store, real_sources)
    assert finish(again) == (0, "")
    assert tree(store, "log") == reference.files
    ran = [str(record["stage"]) for record in Store(store).read_log("builds")]
    assert all(ran.count(stage) <= 1 for stage in done), "a committed stage ran again"


def test_builds_in_other_folders_give_the_same_bytes(
    reference: Reference, real_sources: list[str], tmp_path: Path
) -> None:
    builds = [
        (store, start(store, [*real_sources, "--workers", workers]))
        for store, workers in ((tmp_path / "one", "1"), (tmp_path / "elsewhere" / "it's two", "2"))
    ]
    for store, build in builds:
        assert finish(build) == (0, "")
        assert tree(store, "log") == reference.files


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(path.parent.name))
    return found


def workers(build: subprocess.Popen[str]) -> list[int]:
    """The worker processes of a build: those of the server that forks them."""
    return [worker for server in children(build.pid) for worker in children(server)]


@pytest.mark.skipif(sys.platform == "darwin", reason="reads /proc")
def test_killed_workers_change_no_byte_and_none_outlives_its_build(tmp_path: Path, cli: Run) -> None:
    world, source = tmp_path / "world.jsonl", ("--source", f"musique={tmp_path / 'world.jsonl'}")
    assert cli("synth", "--quiet", "-n", 1_200, "--paragraphs", 6_000, "-o", world).returncode == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert finish(start(one, [*source, "--workers", "1"])) == (0, "")
    build, killed = start(two, [*source, "--workers", "2"]), 0
    while build.poll() is None:
        for worker in workers(build)[:1] if killed < 2 else []:  # the third may end it
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                killed += 1
            time.sleep(1)
        time.sleep(0.02)
    assert finish(build) == (0, "")
    assert killed
    assert tree(two, "log") == tree(one, "log")
    shutil.rmtree(two)
    build = start(two, [*source, "--workers", "2"])
    while not (left := workers(build)) and build.poll() is None:
        time.sleep(0.01)
    build.kill()
    finish(build)
    time.sleep(2)
    assert left
    assert not [worker for worker in left if Path(f"/proc/{worker}").exists()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seen", [".lock", "stages", "stages/index-*"])
def test_a_signal_ends_a_build_at_once_with_one_line(number: signal.Signals, seen: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build = start(store, [])
    while not list(store.glob(seen)) and build.poll() is None:
        time.sleep(0.001)
    build.send_signal(number)
    begin = time.monotonic()
    assert finish(build) == (130, "interrupted; the same command goes on where it stopped\n")
    assert time.monotonic() - begin < 5
    readable(store)


def test_a_build_that_was_interrupted_goes_on(cli: Run, sample_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build = start(store, [])
    wait_for(store / "stages", build)
    build.send_signal(signal.SIGTERM)
    assert finish(build)[0] == 130
    assert cli("build", "--quiet", "--store", store).returncode == 0
    assert tree(store, "log") == tree(sample_store, "log")


def test_a_second_build_is_refused_and_a_reader_is_not(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    store = tmp_path / "store"
    shutil.copytree(sample_store, store)
    with Store(store).locked():
        second = cli("build", "--store", store)
        assert second.returncode == 1
        assert second.stderr.startswith(f"error: another build is writing {store} (process {os.getpid()})\nhint: ")
        assert cli("status", "--store", store).returncode == 0
        assert cli("sql", "SELECT count(*) FROM hits", "--store", store).returncode == 0


NO_SPACE = "error: no space left to write the store {}\nhint: free some, then run the same command again: it goes on\n"


@pytest.mark.parametrize("share", [0, 0.02, 0.6, 0.95])
def test_a_file_that_cannot_grow_stops_the_build_and_nothing_is_lost(
    share: float, sample_store: Path, tmp_path: Path, cli: Run
) -> None:
    """Files may be as large as a share of the largest one: the lock fails, the first stage, or the last."""
    limit = int(share * max(path.stat().st_size for path in sample_store.rglob("*")))
    store = tmp_path / "store"
    build = start(store, [], limit)
    assert finish(build) == (1, NO_SPACE.format(store))
    readable(store)
    before = committed(store)
    assert len(Store(store).manifest().stages) < STAGES
    assert cli("build", "--quiet", "--store", store).returncode == 0
    assert before.items() <= committed(store).items()
    assert tree(store, "log") == tree(sample_store, "log")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many KiB, or changes the size of the one that it mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(kibibytes: int) -> Path:
        again = ["-o", f"remount,size={kibibytes}k"] if place.is_mount() else ["-o", f"size={kibibytes}k"]
        done = subprocess.run(["mount", "-t", "tmpfs", *again, "tmpfs", str(place)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("needs to mount a file system, which this user or system does not allow")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_full_disk_stops_the_build_and_nothing_is_lost(
    share: float, tiny_disk: Callable[[int], Path], sample_store: Path, cli: Run
) -> None:
    """The disk holds a share of the store; half of it ends inside of the index, which numpy writes."""
    pages = sum(path.stat().st_size // 4096 + 1 for path in sample_store.rglob("*") if path.is_file())
    store = tiny_disk(int(share * pages * 4)) / "store"
    assert finish(start(store, [])) == (1, NO_SPACE.format(store))
    readable(store)
    before = committed(store)
    tiny_disk(10_000)
    assert cli("build", "--quiet", "--store", store).returncode == 0
    assert before.items() <= committed(store).items()
    assert tree(store, "log") == tree(sample_store, "log")
