from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import pytest

from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.listing import COLUMNS
from stepsearch_data.report.shapes import Record, Rejects, Summary
from tests.conftest import Run
from tests.report.holds import check
from tests.report.reading import elements


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Viewer:
    """`stepsearch-data view` as a process of its own, until the block ends."""

    def __init__(self, store: Path) -> None:
        command = (sys.executable, "-W", "error", "-m", "stepsearch_data", "view", "--port", "0", "--store", store)
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.url = ""

    def __enter__(self) -> Self:
        assert self.process.stderr
        said = self.process.stderr.readline()
        found = re.search(r"http://\S+/", said)
        assert found, said
        self.url = found[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> tuple[int, str]:
        """Exit code, and what it said at the end."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20), self.process.stderr.read() if self.process.stderr else ""

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        request = Request(self.url + path, method=method, headers=headers)
        try:
            with urlopen(request, timeout=30) as response:
                return Reply(response.status, dict(response.headers), response.read())
        except HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers), error.read())

    def list(self, **asked: Any) -> Any:
        reply = self.get(f"api/trajectories?{urlencode(asked, doseq=True)}")
        assert reply.status == 200, reply
        return reply.json()


@pytest.fixture(scope="module")
def viewer(rich: Store) -> Iterator[Viewer]:
    with Viewer(rich.root) as running:
        yield running


def test_the_page_asks_its_own_server_and_nobody_else(viewer: Viewer) -> None:
    page = viewer.get("")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in page.headers
    data = {element.attributes.get("id"): element.text for element in elements(page.body.decode())}
    assert json.loads(data["mode"]) == {"mode": "remote"}
    assert "summary" not in data
    assert "index" not in data


def test_the_overview_is_that_of_the_store(viewer: Viewer, rich: Store) -> None:
    summary = viewer.get("api/summary").json()
    check(summary, Summary)
    assert summary["store"] == rich.digest()


@pytest.mark.long
def test_rejected_rows_are_listed_with_their_position_and_reason(hostile: Store) -> None:
    with Viewer(hostile.root) as running:
        rejects = running.get("api/rejects").json()
    check(rejects, Rejects)
    reason = "the answer occurs in none of the paragraphs"
    reject = {"stage": "load", "source": "jsonl", "position": 2, "id": "q2", "reason": reason}
    assert rejects == {"total": 1, "rows": [reject]}


def test_trajectories_are_filtered_sorted_and_paged_by_the_server(viewer: Viewer) -> None:
    whole = viewer.list(limit=500)
    assert whole["total"] == len(whole["rows"]) == 74
    assert list(whole["rows"][0]) == list(COLUMNS)
    searched = viewer.list(limit=500, text="o")
    assert list(searched["rows"][0]) == [*COLUMNS, "texts"]
    some = viewer.list(source=["musique"], hops=[3, 4], reward_min=0.1, text="o THE", sort="-reward", limit=2)
    expected = [
        row
        for row in searched["rows"]
        if row["source"] == "musique" and row["hops"] in {3, 4} and row["reward"] >= 0.1 and said(row, "o", "the")
    ]
    assert some["total"] == len(expected) > 2
    assert [row["reward"] for row in some["rows"]] == sorted((row["reward"] for row in expected), reverse=True)[:2]
    assert viewer.list(offset=70)["rows"] == whole["rows"][70:]


def said(row: dict[str, Any], *words: str) -> bool:
    text = f"{row['question']} {row['answer']} {row['id']} {row['texts']}".lower()
    return all(word in text for word in words)


def test_the_whole_list_comes_as_a_file(viewer: Viewer) -> None:
    asked = urlencode({"hops": 3, "sort": "-reward"})
    expected = viewer.list(hops=3, sort="-reward", limit=500)["rows"]
    for kind, start in (("csv", b"id,question,answer,"), ("jsonl", b'{"id":"'), ("parquet", b"PAR1")):
        reply = viewer.get(f"api/trajectories.{kind}?{asked}")
        assert reply.status == 200
        assert reply.headers["Content-Disposition"] == f'attachment; filename="trajectories.{kind}"'
        assert reply.body.startswith(start)
    lines = viewer.get(f"api/trajectories.jsonl?{asked}").body.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [row["id"] for row in expected]


def test_every_row_leads_to_its_trajectory(viewer: Viewer) -> None:
    for row in viewer.list(limit=5)["rows"]:
        record = viewer.get(f"api/trajectory/{quote(row['id'], safe='')}").json()
        check(record, Record)
        assert {name: record[name] for name in ("id", "question", "hops")} == {
            name: row[name] for name in ("id", "question", "hops")
        }


def test_an_id_may_hold_anything(hostile: Store) -> None:
    with Viewer(hostile.root) as running:
        (row,) = running.list()["rows"]
        assert row["id"] == "q/1 <b>"
        assert running.get(f"api/trajectory/{quote(row['id'], safe='')}").json()["id"] == row["id"]


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("api/trajectories?sort=nothing", 400, "sort: there is no column 'nothing'"),
        ("api/trajectories?limit=0x10", 400, "limit: '0x10' is not a number"),
        ("api/trajectories?passed=maybe", 400, "passed: expected true or false"),
        ("api/trajectories?text=%ff%00%fe&x=1", 400, "unknown: x"),
        ("api/trajectories?policy.x=right", 400, "policy.x: there is no policy 'x'"),
        ("api/trajectories?queries.x=1", 400, "unknown: queries.x"),
        ("api/trajectories.csv?x=1", 400, "unknown: x"),
        ("api/trajectories.xlsx", 404, "Not Found"),
        ("api/trajectory/nobody%3Cb%3E", 404, "there is no trajectory of question nobody<b>"),
        ("../../etc/passwd", 404, "Not Found"),
        ("api/nothing", 404, "Not Found"),
    ],
)
def test_bad_requests_are_answered_in_words(viewer: Viewer, path: str, status: int, detail: str) -> None:
    reply = viewer.get(path)
    assert (reply.status, reply.json()) == (status, {"detail": detail})
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_there_is_nothing_to_write(viewer: Viewer, method: str) -> None:
    assert viewer.get("api/summary", method).status == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example:80", "localhost@evil:1"])
def test_a_name_that_was_made_to_point_here_is_refused(viewer: Viewer, host: str) -> None:
    reply = viewer.get("api/summary", Host=host)
    assert (reply.status, list(reply.json())) == (403, ["detail"])


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1"])
def test_a_tunnel_to_this_machine_is_not(viewer: Viewer, host: str) -> None:
    assert viewer.get("api/summary", Host=host).status == 200


@pytest.mark.long
def test_a_build_that_goes_on_is_seen(sample: Store, tmp_path: Path, cli: Run) -> None:
    store = tmp_path / "store"
    shutil.copytree(sample.root, store)
    with Viewer(store) as running:
        assert running.list()["total"] == 70
        first = running.get("api/summary").json()
        build = ("build", "--quiet", "--store", store, "--set", "load.limit=5")
        assert cli(*build, "--to", "queries").returncode == 0
        assert running.list()["total"] == 0
        assert "earlier inputs" in running.get("api/summary").json()["notes"][0]
        assert running.get("api/trajectory/anything").status == 404
        assert cli(*build).returncode == 0
        assert 0 < running.list()["total"] <= 10
        assert running.get("api/summary").json()["store"] != first["store"]
        assert running.stop() == (0, "")


def test_a_store_that_is_damaged_meanwhile_is_said_and_the_server_goes_on(sample: Store, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(sample.root, store)
    with Viewer(store) as running:
        (rounds,) = store.glob("stages/trajectories-*/rounds.parquet")
        whole = rounds.read_bytes()
        rounds.write_bytes(whole[:500] + b"\0" * 5000 + whole[5500:])
        (row,) = running.list(limit=1)["rows"]
        broken = running.get(f"api/trajectory/{row['id']}")
        assert (broken.status, "cannot be read" in broken.json()["detail"]) == (503, True)
        rounds.write_bytes(whole)
        manifest = (store / "manifest.json").read_bytes()
        (store / "manifest.json").write_text("{}")
        broken = running.get("api/summary")
        assert (broken.status, "not a store's manifest" in broken.json()["detail"]) == (503, True)
        (store / "manifest.json").write_bytes(manifest)
        store.rename(tmp_path / "elsewhere")
        broken = running.get("api/summary")
        assert (broken.status, "cannot be read" in broken.json()["detail"]) == (503, True)
        (tmp_path / "elsewhere").rename(store)
        assert running.get("api/summary").status == 200


def test_a_port_that_is_taken_is_a_clear_error(sample: Store, cli: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = cli("view", "--store", sample.root, "--port", str(port), "--no-open")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: port {port} of 127.0.0.1 is taken\nhint: ")


def test_a_store_with_nothing_to_show_is_a_clear_error(tmp_path: Path, cli: Run) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 2, "stages": {}}')
    refused = cli("view", "--store", tmp_path, "--port", "0")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {tmp_path} has no questions to show\nhint: stepsearch-data build")
