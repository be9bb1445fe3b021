"""Builds and reads of a store on S3, through the command line against a real server: the promises of a local store."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from stepsearch_data.core.files import digest_of
from stepsearch_data.pipeline.store import Store
from stepsearch_data.remote.objects import Objects
from tests.conftest import run_cli
from tests.llm_server import LlmServer
from tests.object_server import CREDENTIALS, Broken, ObjectServer
from tests.oracle import Oracle
from tests.rows import musique

KILLS = 12


class Machine:
    """A machine with caches of its own, and the store's URL."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.env = url, {"XDG_CACHE_HOME": str(folder)}

    def run(self, *arguments: str | Path) -> CompletedProcess[str]:
        done = run_cli(*arguments, env=self.env)
        assert not [value for value in list(CREDENTIALS.values())[:2] if value in done.stdout + done.stderr]
        assert "Traceback" not in done.stderr
        return done

    def build(self, *arguments: str | Path) -> CompletedProcess[str]:
        return self.run("build", "--store", self.url, "--limit", "8", *arguments)

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "stepsearch_data", "build", "-q", "--store", self.url, "--limit", "8"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env={**os.environ, **self.env}, stdout=pipe, stderr=pipe, text=True)

    def digest(self) -> str:
        status = self.run("status", "--store", self.url, "--json")
        assert status.returncode == 0, status.stderr
        return str(json.loads(status.stdout)["digest"])


@pytest.fixture(scope="module")
def local_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the same build in a folder."""
    store = tmp_path_factory.mktemp("local") / "store"
    assert run_cli("build", "--store", store, "--limit", "8", "-q").returncode == 0
    return digest_of(store / "manifest.json")


@pytest.fixture
def machine(bucket: str, tmp_path: Path) -> Machine:
    return Machine(f"{bucket}/data/store", tmp_path / "cache")


@pytest.fixture
def other(machine: Machine, tmp_path: Path) -> Machine:
    return Machine(machine.url, tmp_path / "other")


@pytest.mark.long
def test_a_store_at_a_url_is_built_read_and_built_on(machine: Machine, other: Machine, local_digest: str) -> None:
    built = machine.build()
    assert built.returncode == 0, built.stderr
    assert f"{machine.url}: " in built.stdout
    assert "/cache/" not in built.stdout + built.stderr
    assert machine.digest() == other.digest() == local_digest
    again = other.build()
    assert {line.split()[-1] for line in again.stderr.splitlines() if line.split()[0] == "trajectories"} == {"current"}
    checked = other.run("verify", other.url)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.long
def test_commands_fetch_what_they_need(
    machine: Machine, other: Machine, objects_server: ObjectServer, tmp_path: Path
) -> None:
    machine.build("-q")
    fetched: dict[str, set[str]] = {}
    out = tmp_path / "out"
    commands: dict[str, list[str | Path]] = {
        "status": ["status", "--store", other.url],
        "explain": ["explain", "--store", other.url],
        "sql": ["sql", "SELECT count(*) FROM Quality", "--store", other.url],
        "tables": ["sql", "SHOW TABLES", "--store", other.url],
        "show": ["show", "--store", other.url],
        "search": ["search", "Seville", "--store", other.url],
        "export": ["export", "--format", "verl", "-o", out, "--store", other.url],
        "audit": ["audit", "--store", other.url],
        "compare": ["compare", other.url, other.url],
        "report": ["report", "-o", out.with_name("report"), "--store", other.url],
        "again": ["report", "-o", out.with_name("report"), "--store", other.url],
    }
    for name, command in commands.items():
        objects_server.requests.clear()
        done = other.run(*command)
        assert done.returncode == 0, (name, done.stderr)
        parts = [path.split("/") for path in objects_server.asked("GET") if "/stages/" in path]
        fetched[name] = {path[4].removesuffix(".parquet") for path in parts}
    assert fetched["status"] == fetched["explain"] == fetched["tables"] == fetched["again"] == set()
    assert fetched["sql"] == {"quality"}
    assert "trajectories" in fetched["show"]
    assert "hits" not in fetched["show"]
    assert fetched["search"] == {"index"}


def test_python_reads_and_builds_it_too(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    import stepsearch_data as ssd

    monkeypatch.setenv("XDG_CACHE_HOME", machine.env["XDG_CACHE_HOME"])
    store = ssd.build(machine.url, limit=3, progress=False)
    assert repr(store) == f"Store('{machine.url}')"
    assert ssd.open(machine.url).table("rounds").collect().height == store.tables["rounds"]


def test_a_run_file_names_a_url(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'store = "{machine.url}"\n[load]\nlimit = 3\n')
    assert machine.run("build", "--config", tmp_path / "run.toml", "-q").returncode == 0
    assert Objects(machine.url).head("manifest.json")


def test_a_source_at_a_url_is_the_same_bytes(bucket: str, machine: Machine, tmp_path: Path) -> None:
    rows = tmp_path / "train.jsonl"
    rows.write_text("\n".join(json.dumps(musique(f"q{n}")) for n in range(3)))
    Objects(bucket).upload(rows, "data/train.jsonl")
    built = machine.run("build", "--store", tmp_path / "store", "--source", f"musique={bucket}/data/train.jsonl", "-q")
    assert built.returncode == 0, built.stderr
    told = machine.run("explain", "--store", tmp_path / "store", "--source", f"musique={rows}", "--stage", "load")
    assert "current" in told.stdout


def test_aliases_beside_a_source_at_a_url_are_found(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from stepsearch_data.sources.source import parse_source

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    objects = Objects(bucket)
    objects.write("dev.json", b"[]", None)
    assert parse_source(f"2wiki={bucket}/dev.json").aliases is None
    objects.write("id_aliases.json", b"{}", None)
    found = parse_source(f"2wiki={bucket}/dev.json").aliases
    assert found
    assert found.read_bytes() == b"{}"


def test_a_corpus_at_a_url_is_searched(bucket: str, machine: Machine, tmp_path: Path) -> None:
    Objects(bucket).write("corpus.jsonl", b'{"id": "p1", "title": "Lenn", "text": "The Lenn is a river."}\n', None)
    found = machine.run("search", "river", "--corpus", f"{bucket}/corpus.jsonl")
    assert (found.returncode, "Lenn" in found.stdout) == (0, True), found.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["status", "--store", "s3://no-such-bucket/store"], "there is no bucket no-such-bucket"),
        (["build", "--store", "s3://no-such-bucket/store"], "there is no bucket no-such-bucket"),
        (["sql", "SELECT 1", "--store", "{bucket}/nothing"], "there is no store at {bucket}/nothing"),
        (["build", "--source", "musique={bucket}/none.jsonl"], "there is no {bucket}/none.jsonl"),
        (["build", "--source", "musique=https://host/x"], "unknown kind of URL"),
        (["search", "x", "--corpus", "{bucket}/none.jsonl"], "there is no {bucket}/none.jsonl"),
        (["verify", "{bucket}"], "there is no store at {bucket}"),
        (["pull", "ann/data", "--store", "{bucket}/store"], "pull makes a folder"),
        (["report", "-o", "{bucket}/report"], "{bucket}/report is a URL: write into a folder"),
        (["build", "--store", "https://host/store"], "https:// is not a place of stores"),
        (["build", "--store", "s3://me:Passw0rd@bucket/store"], "a user, a password"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_told_in_one_line(command: list[str], said: str, machine: Machine, bucket: str) -> None:
    done = machine.run(*(part.replace("{bucket}", bucket) for part in command))
    assert done.returncode != 0
    error, *hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert said.replace("{bucket}", bucket) in error
    assert len(hint) <= 1
    assert "Passw0rd" not in done.stderr


@pytest.mark.parametrize("when", ["first", "last"])
def test_a_server_that_refuses_ends_a_build_in_one_line(
    when: str, machine: Machine, objects_server: ObjectServer
) -> None:
    refused = ".lock" if when == "first" else "manifest.json"
    objects_server.fault = lambda method, path: (
        Broken(status=403, code="AccessDenied") if method == "PUT" and path.endswith(refused) else None
    )
    done = machine.build("-q")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert "refuses these credentials (403, AccessDenied)" in done.stderr


@pytest.fixture
def models(sample_store: Path, machine: Machine, other: Machine) -> Iterator[LlmServer]:
    with LlmServer(Oracle(sample_store)) as server:
        for one in (machine, other):
            one.env |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-made-up-123456789abc"}
        yield server


def test_money_is_counted_over_machines(machine: Machine, other: Machine, models: LlmServer) -> None:
    assert machine.build("--llm", "mock", "-q", "--to", "decompose").returncode == 0
    paid = len(models.requests)
    assert paid >= 8
    stopped = other.build("--llm", "mock", "-q", "--max-tokens-total", str(120 * paid))
    assert stopped.returncode == 4, stopped.stderr
    assert len(models.requests) == paid


def test_a_commit_that_fails_is_not_paid_again(
    machine: Machine, models: LlmServer, objects_server: ObjectServer
) -> None:
    objects_server.fault = lambda method, path: (
        Broken(status=403, code="AccessDenied") if method == "PUT" and "/decompose-" in path else None
    )
    assert machine.build("--llm", "mock", "-q", "--to", "decompose").returncode == 1
    paid = len(models.requests)
    objects_server.fault = lambda _method, _path: None
    done = machine.build("--llm", "mock", "--to", "decompose")
    assert (done.returncode, len(models.requests)) == (0, paid)
    assert "decompose     current" in done.stderr


def moments() -> list[tuple[str, int, bool]]:
    """Writes of a build: random ones, and that of a manifest. It is killed before each is carried out, or after it."""
    chance = random.Random(16)
    drawn = [("", chance.randrange(60), chance.random() < 0.5) for _ in range(KILLS)]
    return [*drawn, ("/store/manifest.json", 5, False), ("/store/manifest.json", 5, True)]


@pytest.mark.long
@pytest.mark.parametrize(("end", "number", "done"), moments())
def test_a_build_that_is_killed_at_any_write_goes_on_to_the_same_bytes(
    end: str, number: int, done: bool, machine: Machine, other: Machine, objects_server: ObjectServer, local_digest: str
) -> None:
    started: list[subprocess.Popen[str]] = []
    writes = 0

    def kill(method: str, path: str) -> None:
        nonlocal writes
        if method == "PUT" and path.endswith(end):
            writes += 1
            if writes == number + 1:
                started[0].kill()
                started[0].wait()

    if done:
        objects_server.after = kill
    else:
        objects_server.fault = kill
    started.append(machine.start())
    started[0].communicate(timeout=300)
    assert started[0].returncode == -signal.SIGKILL
    store = Store(Path(machine.url))
    assert store.mirror
    assert all(map(store.is_whole, (o for e in store.manifest().stages.values() for o in e.outputs.values())))
    finished = machine.build("-q")
    assert finished.returncode == 0, finished.stderr
    assert machine.digest() == other.digest() == local_digest
    assert other.run("verify", other.url).returncode == 0


@pytest.mark.long
def test_two_builds_at_once_are_one_and_a_refusal(machine: Machine, other: Machine, local_digest: str) -> None:
    builds = [machine.start(), other.start()]
    ends = [build.communicate(timeout=300)[1] for build in builds]
    assert sorted(build.returncode for build in builds) == [0, 1]
    assert sum("another build is writing" in text for text in ends) == 1
    assert machine.digest() == local_digest


@pytest.mark.long
def test_rollouts_are_kept_in_the_store_and_lie_on_the_machine(
    machine: Machine, other: Machine, tmp_path: Path
) -> None:
    assert machine.build("-q").returncode == 0
    answer = "<think> It is known. </think>\n<answer> nobody </answer>"
    with LlmServer(lambda _: answer) as server:
        machine.env["OPENAI_API_KEY"] = "sk-made-up"
        arguments: list[str | Path] = [
            "--llm",
            "m",
            "--base-url",
            server.url,
            "-n",
            "2",
            "--samples",
            "2",
            "-o",
            tmp_path / "mine",
        ]
        for _ in range(2):
            done = machine.run("rollouts", "--store", machine.url, *arguments, "--json", "-q")
            assert done.returncode == 0, done.stderr
        assert len(server.requests) == 2 * 2 * 2
    assert json.loads(done.stdout)["bands"]["unsolved"] == 4
    counted = other.run(
        "sql", "SELECT policy, count(*) AS n FROM rollouts GROUP BY ALL", "--store", other.url, "-f", "csv"
    )
    assert counted.stdout.splitlines()[1:] == ['"mine",8']
