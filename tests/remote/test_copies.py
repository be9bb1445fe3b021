"""A copy is fetched once for each version of an object."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepsearch_data.remote.copies import copy_of
from stepsearch_data.remote.objects import Objects
from tests.object_server import ObjectServer


@pytest.fixture
def objects(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Objects:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Objects(bucket)


def test_a_copy_is_fetched_once(objects: Objects, objects_server: ObjectServer) -> None:
    objects.write("folder/rows.jsonl.gz", b"one", None)
    copies = [copy_of(f"{objects.url}/folder/rows.jsonl.gz") for _ in range(2)]
    assert copies[0]
    assert copies[0] == copies[1]
    assert (copies[0].name, copies[0].read_bytes()) == ("rows.jsonl.gz", b"one")
    assert objects_server.asked("GET") == ["folder/rows.jsonl.gz"]


def test_a_new_version_is_fetched_and_the_old_one_stays_for_its_readers(objects: Objects) -> None:
    tag = objects.write("rows.jsonl", b"one", None)
    before = copy_of(f"{objects.url}/rows.jsonl")
    objects.write("rows.jsonl", b"two", tag)
    after = copy_of(f"{objects.url}/rows.jsonl")
    assert before
    assert after
    assert (before.read_bytes(), after.read_bytes()) == (b"one", b"two")


def test_of_nothing_there_is_no_copy(objects: Objects, tmp_path: Path) -> None:
    assert copy_of(f"{objects.url}/rows.jsonl") is None
    assert list(tmp_path.iterdir()) == []
