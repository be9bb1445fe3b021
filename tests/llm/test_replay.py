from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from stepsearch_data.core.errors import StoreError
from stepsearch_data.llm.chat import CallMessage, Message, Reply, Request, ToolRequest, TurnRequest, Usage
from stepsearch_data.llm.replay import Replay
from stepsearch_data.remote import cache as remote_cache
from stepsearch_data.remote.cache import WINDOW_REPLIES, WINDOW_SECONDS, rescue

REPLY = Reply("text", "stop", Usage(10, 2), latency=0.3, attempts=2)
REQUEST = Request("mock", (Message("user", "Hi"),))

_WRITER = """
import sys
from pathlib import Path
from stepsearch_data.llm.chat import Reply
from stepsearch_data.llm.replay import Replay
path, name, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
cache = Replay(path)
for n in range(number):
    cache.put(f"{name}-{n}", Reply(f"reply {n}"))
    print(n, flush=True)
cache.close()
"""


def writer(path: Path, name: str, number: int) -> subprocess.Popen[str]:
    """A process that keeps so many replies, and says each number once it is kept."""
    command = [sys.executable, "-W", "error", "-c", _WRITER, str(path), name, str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def committed(path: Path, digest: str) -> bool:
    """Whether another process would find the reply."""
    with closing(Replay(path)) as cache:
        return cache.get(digest) is not None


def test_a_reply_comes_back_as_it_was_and_marked_as_cached(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "replay.sqlite"
    texts = {"a": "text", "b": "", "c": "“ünï” \0 𝄞\n", "d": "x" * 5_000_000}
    first = Replay(path)
    for digest, text in texts.items():
        first.put(digest, Reply(text, "length", Usage(3, 4), latency=9.0, attempts=5))
    first.close()
    second = Replay(path)
    for digest, text in texts.items():
        assert second.get(digest) == Reply(text, "length", Usage(3, 4), latency=0.0, attempts=0, cached=True)
    assert second.get("e") is None
    second.close()


def test_a_pending_reply_is_there_at_once_and_the_first_one_stays(tmp_path: Path) -> None:
    cache = Replay(tmp_path / "replay.sqlite")
    cache.put("a", REPLY)
    kept = replace(REPLY, latency=0.0, attempts=0, cached=True)
    assert cache.get("a") == kept
    cache.flush()
    cache.put("a", Reply("another"))
    cache.flush()
    assert cache.get("a") == kept
    cache.close()


@pytest.mark.parametrize("reasoning", ["", "hm"])
def test_calls_of_tools_are_kept_with_their_reply(reasoning: str, tmp_path: Path) -> None:
    call = {"id": "c7", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    cache = Replay(tmp_path / "replay.sqlite")
    cache.put("a", Reply("", "tool_calls", reasoning=reasoning, calls=[call]))
    assert cache.get("a") == Reply("", "tool_calls", attempts=0, cached=True, reasoning=reasoning, calls=[call])
    cache.close()


def test_a_request_with_tools_has_a_name_of_its_own() -> None:
    """And those without keep theirs: their replies were paid for."""
    named = REQUEST.digest("http://x")
    assert named == "92690cdccac84954a3766e3c5c282dae6dd9e48b50f342f220f25fe1175f9bc4"
    said = (*REQUEST.messages, CallMessage("tool", "found", tool_call_id="c7"))
    others = [ToolRequest("mock", REQUEST.messages), ToolRequest("mock", said), ToolRequest("mock", said, tools=({},))]
    assert len({named, *(other.digest("http://x") for other in others)}) == 4


def test_replies_are_committed_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_cache, "WINDOW_SECONDS", 1e9)
    path = tmp_path / "replay.sqlite"
    ours = Replay(path)
    for n in range(WINDOW_REPLIES - 1):
        ours.put(str(n), REPLY)
    assert not committed(path, "0")
    ours.put("last", REPLY)
    assert committed(path, "0")
    assert committed(path, "last")
    ours.put("more", REPLY)
    assert not committed(path, "more")
    monkeypatch.setattr(remote_cache, "WINDOW_SECONDS", 0.0)
    ours.put("late", REPLY)
    assert committed(path, "late")
    ours.put("end", REPLY)
    ours.close()
    assert committed(path, "end")


@pytest.mark.parametrize(
    "other",
    [
        Request("other", (Message("user", "Hi"),)),
        Request("mock", (Message("system", "Hi"),)),
        Request("mock", (Message("user", "Hi"), Message("assistant", "Ho"))),
        Request("mock", (Message("user", "Hi"),), {"type": "object"}),
        Request("mock", (Message("user", "Hi"),), temperature=0.1),
        Request("mock", (Message("user", "Hi"),), max_tokens=1),
        Request("mock", (Message("user", "Hi"),), sample=1),
        TurnRequest("mock", (Message("user", "Hi"),)),
    ],
)
def test_everything_that_decides_a_reply_is_in_the_digest(other: Request) -> None:
    assert REQUEST.digest("http://a/v1") != other.digest("http://a/v1")


def test_a_digest_never_changes_or_paid_replies_would_be_paid_again() -> None:
    digest = "ad33ee434be14cc32359e0737b50b1500ece84d597b14efe30f70910800cd3d0"
    assert Request("mock", (Message("user", "Hi"),), {"type": "object"}, 0.5, 7, 2).digest("http://a/v1") == digest


def test_where_a_turn_stops_and_whether_it_is_raw_is_in_its_digest() -> None:
    turn = TurnRequest("mock", (Message("user", "Hi"),), stop=("</search>",))
    others = [replace(turn, stop=()), replace(turn, raw=True)]
    assert len({request.digest("http://a/v1") for request in [turn, *others]}) == 3


def test_the_digest_names_the_endpoint_and_no_order_of_keys() -> None:
    one = Request("mock", (), {"a": 1, "b": {"c": 2, "d": 3}})
    two = Request("mock", (), {"b": {"d": 3, "c": 2}, "a": 1})
    assert one.digest("http://a/v1") == two.digest("http://a/v1") != one.digest("http://b/v1")
    assert len(one.digest("")) == 64


def test_several_processes_share_one_file_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    processes = [writer(path, name, 300) for name in "abcd"]
    for process in processes:
        _, complaints = process.communicate(timeout=60)
        assert (process.returncode, complaints) == (0, "")
    cache = Replay(path)
    for name in "abcd":
        for n in range(300):
            reply = cache.get(f"{name}-{n}")
            assert reply is not None
            assert reply.text == f"reply {n}"
    cache.close()


def test_many_may_open_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    for n in range(25):
        path, ready = tmp_path / f"{n}.sqlite", threading.Barrier(6)

        def open_it(_: int, path: Path = path, ready: threading.Barrier = ready) -> None:
            ready.wait()
            Replay(path).close()

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(open_it, range(6)))


def test_a_killed_process_loses_one_window_at_most(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    process = writer(path, "a", 1_000_000)
    assert process.stdout
    assert process.stderr
    with process, process.stdout, process.stderr:
        while int(process.stdout.readline()) < 1_000:
            pass
        process.kill()
        *_, last = ["1000", *process.stdout.read().splitlines(keepends=True)]
    cache = Replay(path)
    kept = 0
    while cache.get(f"a-{kept}"):
        kept += 1
    assert kept >= (int(last) if last.endswith("\n") else 1_000) - WINDOW_REPLIES
    cache.put("b", REPLY)  # and the file is as good as ever
    cache.close()


def test_a_full_disk_is_said_and_nothing_is_lost_once_there_is_room(tmp_path: Path) -> None:
    cache = Replay(tmp_path / "replay.sqlite")
    cache._db.execute("PRAGMA max_page_count = 8")
    cache.put("a", Reply("x" * 100_000))
    with pytest.raises(StoreError, match="full") as full:
        cache.flush()
    assert "free some space" in full.value.hint
    cache._db.execute("PRAGMA max_page_count = 1000")
    cache.close()
    assert committed(tmp_path / "replay.sqlite", "a")


def test_a_file_that_is_locked_for_good_is_said(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    cache = Replay(path)
    cache._db.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    cache.put("a", REPLY)
    with pytest.raises(StoreError, match=r"another process keeps the replay cache .*replay.sqlite locked") as locked:
        cache.flush()
    assert "llm.replay" in locked.value.hint
    begun = time.monotonic()
    with pytest.raises(StoreError, match="locked"):
        cache.flush()
    assert time.monotonic() - begun < 1  # those who come after do not wait as long again
    other.execute("ROLLBACK")
    other.close()
    cache.close()  # and goes on once it is free


def test_a_file_that_is_locked_from_the_start_is_said_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_cache, "LOCKED_SECONDS", 0.2)
    path = tmp_path / "replay.sqlite"
    cache = Replay(path)
    other = sqlite3.connect(path, isolation_level=None)
    cache.close()
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"another process keeps the replay cache .* locked"):
        Replay(path)
    assert time.monotonic() - begun < 2
    other.close()


def test_what_is_no_cache_is_named(tmp_path: Path) -> None:
    no_database, folder = tmp_path / "text.sqlite", tmp_path / "folder"
    no_database.write_text("hello " * 1000)
    folder.mkdir()
    for path in (no_database, folder, no_database / "below"):
        with pytest.raises(StoreError, match="cannot open the replay cache") as fault:
            Replay(path)
        assert "llm.replay" in fault.value.hint
    assert no_database.read_text().startswith("hello")


def test_a_reply_does_not_wait_for_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        replay = Replay(tmp_path / "replay.sqlite")
        replay.put("one", Reply("1"))
        await asyncio.sleep(2 * WINDOW_SECONDS)
        assert committed(tmp_path / "replay.sqlite", "one")
        replay.close()

    asyncio.run(main())


@pytest.mark.parametrize("amid_a_write", [False, True])
def test_a_signal_rescues_what_is_pending(tmp_path: Path, amid_a_write: bool) -> None:
    cache = Replay(tmp_path / "replay.sqlite")
    cache.put("a", REPLY)
    if amid_a_write:
        cache._db.execute("BEGIN IMMEDIATE")
    rescue()
    assert committed(tmp_path / "replay.sqlite", "a")
    cache.close()
    rescue()


def test_a_signal_after_a_cache_that_could_not_be_closed_well_is_no_trouble(tmp_path: Path) -> None:
    cache = Replay(tmp_path / "replay.sqlite")
    cache.put("a", REPLY)
    cache._db.close()
    rescue()
