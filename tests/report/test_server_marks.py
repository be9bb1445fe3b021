"""What the server of `view` lets its reader mark, and what it lets nobody else do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from stepsearch_data.pipeline.marks import Change, write_marks
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.shapes import Record, Summary
from tests.conftest import run_cli
from tests.report.holds import check
from tests.report.test_server import Viewer

ASKED = "2hop__811040_270741"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def marked(sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Viewer]]:
    store = Store.open(Path(shutil.copytree(sample_store, tmp_path_factory.mktemp("marked") / "store")))
    with Viewer(store.root) as running:
        yield store, running


@pytest.fixture(autouse=True)
def _nothing_is_marked(marked: tuple[Store, Viewer]) -> None:
    (marked[0].root / "marks.jsonl").unlink(missing_ok=True)


def put(viewer: Viewer, body: Any, question_id: str = ASKED, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    address = f"{viewer.url}api/mark/{quote(question_id, safe='')}"
    request = Request(address, data, {**JSON, **named}, method="PUT")
    try:
        with urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_mark_is_kept_and_shown_in_its_trajectory_the_list_and_the_filters(marked: tuple[Store, Viewer]) -> None:
    store, viewer = marked
    shown = viewer.get(f"api/trajectory/{ASKED}").json()
    check(shown, Record)
    assert shown["mark"] == {"mark": "", "note": ""}
    assert put(viewer, {"mark": "bad"}) == (200, {"mark": "bad", "note": ""})
    assert put(viewer, {"note": " <b> "}) == (200, {"mark": "bad", "note": "<b>"})
    assert viewer.get(f"api/trajectory/{ASKED}").json()["mark"] == {"mark": "bad", "note": "<b>"}
    assert [(row["id"], row["marks"]) for row in viewer.list(marks=["bad", "good"])["rows"]] == [
        (ASKED, ["bad", "note"])
    ]
    assert viewer.list(marks="none")["total"] == 69
    summary = viewer.get("api/summary").json()
    check(summary, Summary)
    assert summary["facets"]["marks"] == ["bad", "none", "note"]
    (table,) = summary["marked"]
    assert table["rows"] == [["bad", 1], ["note", 1]]
    assert table["links"] == [{"trajectories": "#/t?marks=bad"}, {"trajectories": "#/t?marks=note"}]
    assert [(mark.mark, mark.note) for mark in store.marks().values()] == [("bad", "<b>")]


def test_marks_of_other_programs_are_seen_and_outlive_a_build(marked: tuple[Store, Viewer]) -> None:
    store, viewer = marked
    write_marks(store, {ASKED: Change(mark="good"), "gone": Change(mark="bad")})
    assert [row["id"] for row in viewer.list(marks=["good", "bad"])["rows"]] == [ASKED]
    assert run_cli("build", "--quiet", "--force", "--from", "quality", "--store", store.root).returncode == 0
    assert viewer.list(marks="good")["total"] == 1
    write_marks(store, {ASKED: Change(mark="")})
    assert viewer.list(marks="none")["total"] == 70
    assert viewer.get("api/summary").json()["facets"]["marks"] == ["none"]
    assert viewer.get("api/summary").json()["marked"] == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{", {}, 400, "JSON"),
        ({"mark": "worse"}, {}, 400, "mark: Input should be 'good', 'bad' or ''"),
        ({"rating": 5}, {}, 400, "rating"),
        ({"note": "x" * 10_001}, {}, 400, "at most 10000 characters"),
        (b"[" * 200_000, {}, 413, "Maximum request body size"),
        ({"mark": "bad"}, {"Content_Type": "text/plain"}, 415, "send application/json"),
        ({"mark": "bad"}, {"Origin": "http://evil.example"}, 403, "only the page itself"),
        ({"mark": "bad"}, {"Origin": "http://127.0.0.1:1"}, 403, "only the page itself"),
        ({"mark": "bad"}, {"Origin": "null"}, 403, "only the page itself"),
        ({"mark": "bad"}, {"Host": "evil.example"}, 403, "ask for"),
    ],
)
def test_what_is_no_mark_of_this_page_changes_nothing(
    marked: tuple[Store, Viewer], body: Any, headers: dict[str, str], status: int, said: str
) -> None:
    store, viewer = marked
    code, told = put(viewer, body, **headers)
    assert (code, said in told["detail"]) == (status, True), told
    assert store.marks() == {}


def test_the_page_itself_may_mark_also_through_a_tunnel(marked: tuple[Store, Viewer]) -> None:
    _, viewer = marked
    assert put(viewer, {"mark": "bad"}, Origin=viewer.url.rstrip("/"))[0] == 200
    assert put(viewer, {"mark": "good"}, Host="localhost:9000", Origin="http://localhost:9000")[0] == 200


def test_another_page_gets_no_leave_to_ask(marked: tuple[Store, Viewer]) -> None:
    """A browser asks first whether a page may send JSON elsewhere; only the page's own server needs no such leave."""
    _, viewer = marked
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}
    reply = viewer.get(f"api/mark/{ASKED}", "OPTIONS", **asked)
    assert reply.status in (403, 405)
    assert not [name for name in reply.headers if name.startswith("Access-Control")]


def test_only_what_has_a_trajectory_is_marked(marked: tuple[Store, Viewer]) -> None:
    store, viewer = marked
    assert put(viewer, {"mark": "bad"}, "no/body <b>") == (
        404,
        {"detail": "there is no trajectory of question no/body <b>"},
    )
    assert store.marks() == {}


def test_a_file_that_cannot_be_written_is_said(marked: tuple[Store, Viewer]) -> None:
    store, viewer = marked
    (store.root / "marks.jsonl").symlink_to("elsewhere")
    code, told = put(viewer, {"mark": "bad"})
    assert (code, "cannot write" in told["detail"]) == (503, True)
    assert viewer.get("api/summary").status == 200
