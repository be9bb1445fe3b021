"""Datasets on the Hub, read by the real clients from a real server on loopback."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.sources import hub
from tests.conftest import Run
from tests.hub_server import Hub, User, running_hub
from tests.rows import Row, hotpotqa, jsonl, line, musique, two_wiki

TOKEN = "hf_thisIsASecretThatNobodyMaySee"
Build = Callable[..., CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[Hub]:
    with running_hub() as running:
        running.users[TOKEN] = User("ann")
        yield running


@pytest.fixture
def build(cli: Run, server: Hub, store: Path, tmp_path: Path) -> Build:
    """`stepsearch-data VERB --source …` on the server's datasets; whatever it prints holds no token."""

    def run(*sources: str, verb: str = "build", endpoint: str = server.endpoint, **env: str) -> CompletedProcess[str]:
        done = cli(
            *(verb, "--to", "load", "--store", store),
            *(f"--source={source}" for source in sources),
            env={
                "HF_ENDPOINT": endpoint,
                "HF_HUB_DISABLE_XET": "1",
                "HF_UPDATE_DOWNLOAD_COUNTS": "0",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HOME": str(tmp_path / "hf"),
                "HF_TOKEN": TOKEN,
                **env,
            },
        )
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def column(store: Path, table: str, name: str) -> list[Any]:
    (file,) = store.glob(f"stages/load-*/{table}.parquet")
    values: list[Any] = pq.read_table(file)[name].to_pylist()
    return values


def ids(store: Path) -> list[str]:
    return column(store, "loaded", "question_id")


def columns(records: list[Any], *names: str) -> dict[str, list[Any]]:
    """The Hub's record of lists."""
    return {name: [record[at] for record in records] for at, name in enumerate(names)}


def on_the_hub(row: Row) -> Row:
    """HotpotQA's row as its Hub copy writes it."""
    return {
        "id": row["_id"],
        **{name: row[name] for name in ("question", "answer", "type", "level")},
        "supporting_facts": columns(row["supporting_facts"], "title", "sent_id"),
        "context": columns(row["context"], "title", "sentences"),
    }


def parquet(rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def lines(rows: list[Row]) -> bytes:
    return b"\n".join(map(line, rows)) + b"\n"


HOTPOT = [on_the_hub(hotpotqa(f"hotpot-{number}")) for number in range(3)]
FILES = {"data/validation-00000-of-00001.parquet": parquet(HOTPOT)}


# Files


@pytest.mark.long
def test_a_file_of_a_repository_is_read_as_a_local_one(build: Build, server: Hub, store: Path, tmp_path: Path) -> None:
    rows = lines([musique(f"q{number}") for number in range(3)])
    server.repository("ann/data").commit({"raw/train.jsonl": rows})
    assert build("musique=hf://datasets/ann/data@main/raw/train.jsonl").returncode == 0
    assert ids(store) == ["q0", "q1", "q2"]
    (tmp_path / "train.jsonl").write_bytes(rows)
    told = build(f"musique={tmp_path / 'train.jsonl'}", verb="explain")
    assert "current" in told.stdout


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("hf://datasets/ann/data/none.jsonl", "cannot fetch hf://datasets/ann/data/none.jsonl from the Hub"),
        ("hf://datasets/ann/none/train.jsonl", "cannot read ann/none on the Hub"),
        ("hf://datasets/ann", "expected hf://datasets/USER/NAME/PATH"),
    ],
)
def test_a_file_that_is_not_there_is_told(build: Build, server: Hub, location: str, said: str) -> None:
    server.repository("ann/data").commit({"train.jsonl": b""})
    done = build(f"musique={location}")
    assert done.returncode != 0
    assert said in done.stderr


# Rows


CARD = b"""---
configs:
- config_name: fullwiki
  data_files: [{split: validation, path: full.jsonl}]
- config_name: distractor
  data_files: [{split: validation, path: distractor.jsonl}]
---
"""


@pytest.mark.long
def test_rows_are_those_of_the_commit_that_the_fingerprint_names(
    server: Hub, build: Build, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namesake = tmp_path / "team" / "hotpot"  # a folder here is not the repository
    namesake.mkdir(parents=True)
    (namesake / "validation.jsonl").write_bytes(lines([hotpotqa("from the folder")]))
    repository = server.repository("team/hotpot", token=TOKEN)
    first = repository.commit(FILES)
    source = "hotpotqa=hf:team/hotpot@main:validation"
    built = build(source)
    assert built.returncode == 0, built.stderr
    assert ids(store) == [row["id"] for row in HOTPOT]
    fingerprint = json.loads((store / "manifest.json").read_text())["stages"]["load"]["fingerprint"]
    assert fingerprint["inputs"] == {"source 1 (hotpotqa)": f"team/hotpot@{first}:/validation"}
    files = [request for request in server.requests if "/resolve/" in request]
    assert files
    assert all(f"/resolve/{first}/" in request for request in files)

    again = build(source)
    assert again.returncode == 0
    assert re.search(r"load +current", again.stderr)

    second = repository.commit({**FILES, "README.md": b"# Changed"})
    explained = build(source, verb="explain")
    assert "inputs.source 1 (hotpotqa)" in explained.stdout
    assert first[:8] in explained.stdout
    assert second[:8] in explained.stdout


def test_dialects_configs_and_bad_rows(server: Hub, build: Build, store: Path) -> None:
    server.repository("team/hotpot").commit(
        {"README.md": CARD, "full.jsonl": lines(HOTPOT[:1]), "distractor.jsonl": lines(HOTPOT[1:])}
    )
    twin = musique("2hop__1", answerable=False)
    for step in twin["question_decomposition"]:
        step["paragraph_support_idx"] = None
    bad = musique("2hop__2", answer="Rome")
    some = [musique("2hop__1", answer_aliases=["Pesaro, Italy"]), twin, bad]
    more = [musique(f"2hop__{number}") for number in range(3, 6)]
    server.repository("team/musique").commit({"train.jsonl": lines(some + more)})
    nested = two_wiki("wiki")
    texts = {name: json.dumps(nested[name]) for name in ("context", "supporting_facts", "evidences")}
    server.repository("team/wiki").commit({"data/dev-00000-of-00001.parquet": parquet([nested | texts])})
    document = {"title": "Milan", "text": "Milan is a city."}
    own = [jsonl("own-1"), document, jsonl("own-2", answer_aliases=["P\u00e8saro"])]
    server.repository("team/own").commit({"train.jsonl": lines(own)})
    built = build(
        "hotpotqa=hf:team/hotpot:distractor/validation",
        "musique=hf:team/musique",
        "2wiki=hf:team/wiki:dev",
        "jsonl=hf:team/own",
    )
    assert built.returncode == 3, built.stderr
    assert ids(store) == [
        *("hotpot-1", "hotpot-2"),
        *("2hop__1", "2hop__1__unanswerable", "2hop__3", "2hop__4", "2hop__5"),
        *("wiki", "own-1", "own-2"),
    ]
    assert "Milan" in column(store, "paragraphs", "title")
    assert column(store, "rejects", "source") == ["musique"]
    assert column(store, "rejects", "position") == [3]
    assert column(store, "rejects", "question_id") == ["2hop__2"]
    assert column(store, "rejects", "reason") == ["the answer occurs in none of the paragraphs"]


# Faults


@pytest.mark.long
@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("team/nothing:validation", "Repository Not Found"),
        ("team/hotpot@nowhere:validation", "Revision Not Found"),
        ("team/hotpot:nonesuch", "nonesuch"),
        ("team/hotpot:nonesuch/validation", "nonesuch"),
    ],
    ids=["repository", "revision", "split", "config"],
)
def test_what_is_not_there_is_one_clear_line(server: Hub, build: Build, location: str, says: str) -> None:
    server.repository("team/hotpot").commit(FILES)
    failed = build(f"hotpotqa=hf:{location}")
    assert failed.returncode == 1
    error, hint = failed.stderr.splitlines()
    assert error.startswith("error: ")
    assert re.split("[@:]", location)[0] in error
    assert says in error
    assert hint.startswith("hint: ")


def test_private_repository_asks_for_a_token(server: Hub, build: Build) -> None:
    server.repository("team/private", token=TOKEN).commit(FILES)
    refused = build("hotpotqa=hf:team/private:validation", HF_TOKEN="")
    assert refused.returncode == 1
    assert "hint: set HF_TOKEN" in refused.stderr


def test_server_that_is_down_is_one_clear_line(build: Build) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        failed = build("hotpotqa=hf:team/hotpot", endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert failed.returncode == 1
    error, _ = failed.stderr.splitlines()
    assert error.startswith("error: cannot read team/hotpot on the Hub")
    assert "refused" in error.lower()


@pytest.mark.long
def test_wrong_format_names_the_right_source(server: Hub, build: Build) -> None:
    server.repository("team/hotpot").commit(FILES)
    failed = build("musique=hf:team/hotpot@main:validation")
    assert failed.returncode == 1
    assert "in the format of hotpotqa" in failed.stderr
    assert "--source hotpotqa=hf:team/hotpot@main:validation" in failed.stderr


# Locations


@pytest.mark.parametrize(
    ("location", "dataset"),
    [
        ("hf:team/data", ("team/data", None, None, "train")),
        ("hf:data", ("data", None, None, "train")),
        ("hf:team/data@v1.0", ("team/data", "v1.0", None, "train")),
        ("hf:team/data:dev", ("team/data", None, None, "dev")),
        ("hf:team/data@refs/convert/parquet:dev", ("team/data", "refs/convert/parquet", None, "dev")),
        ("hf:team/data@main:distractor/validation", ("team/data", "main", "distractor", "validation")),
    ],
)
def test_parse(location: str, dataset: tuple[str, str | None, str | None, str]) -> None:
    parsed = hub.parse(location)
    assert (parsed.repo, parsed.revision, parsed.config, parsed.split) == dataset


@pytest.mark.parametrize(
    "location", ["hf:", "hf:@main", "hf:team/data@", "hf:team/data:", "hf:a/b:c/d/e", "hf:a/b:c:d"]
)
def test_parse_refuses(location: str) -> None:
    with pytest.raises(ConfigError, match="expected hf:REPO"):
        hub.parse(location)
