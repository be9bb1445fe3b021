"""Objects come and go whole, a write has a condition, and every failure is one line without credentials."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.remote import objects as module
from stepsearch_data.remote.objects import Changed, Objects, address
from tests.object_server import CREDENTIALS, Broken, ObjectServer

MOST = 1_000


@pytest.fixture
def objects(bucket: str) -> Objects:
    return Objects(f"{bucket}/place")


def told(error: pytest.ExceptionInfo[StoreError]) -> str:
    """What the user reads: one line and a hint, without credentials."""
    text = f"{error.value.message} {error.value.hint}"
    assert "\n" not in text
    assert not [value for value in list(CREDENTIALS.values())[:2] if value in text]
    return text


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        (Path("s3://bucket/a/b"), "s3://bucket/a/b"),
        ("gs://bucket", "gs://bucket"),
        ("az://container//a/", "az://container/a"),
        ("store", ""),
        ("/s3/bucket", ""),
        ("s3:bucket", ""),
        ("hf:user/name", ""),
        ("https://host/a", ""),
    ],
)
def test_a_url_is_told_from_a_path(location: str | Path, url: str) -> None:
    assert address(location) == url


def test_a_url_with_a_password_is_refused() -> None:
    with pytest.raises(ConfigError, match="a user, a password") as error:
        Objects("s3://me:Passw0rd@bucket/place")
    assert "Passw0rd" not in str(error.value)


@pytest.mark.parametrize(
    "place", ["UPPER!/a", "b\0/a", "bucket/../a", "bucket/a/..", "bucket/./a", "bucket/a\nb", ".b/a"]
)
def test_a_url_that_names_no_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="is no place for objects"):
        Objects(f"s3://{place}")
    Objects("s3://bucket/..a/b../.c/é x")


def test_a_key_of_a_stranger_that_is_no_path_is_refused(objects: Objects, objects_server: ObjectServer) -> None:
    place = objects.url.removeprefix("s3://")
    with urlopen(Request(f"{objects_server.endpoint}/{place}/stages//etc/passwd", method="PUT", data=b"x")):
        pass
    with pytest.raises(StoreError, match="invalid path"):
        objects.listed("stages")


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError, match="needs the package obstore") as error:
        Objects("s3://bucket").read("a", MOST)
    assert "stepsearch-data[cloud]" in error.value.hint


def test_an_object_is_read_with_its_version(objects: Objects) -> None:
    assert objects.read("a", MOST) is None
    tag = objects.write("a", b"one", None)
    found = objects.read("a", MOST)
    assert found
    assert (found.data, found.tag) == (b"one", tag)


def test_of_two_writers_that_read_the_same_one_fails(objects: Objects) -> None:
    first = objects.write("a", b"one", None)
    with pytest.raises(Changed):
        objects.write("a", b"two", None)
    second = objects.write("a", b"two", first)
    with pytest.raises(Changed):
        objects.write("a", b"three", first)
    assert objects.read("a", MOST) == objects.read("a", MOST)
    assert objects.head("a")["e_tag"] == second["e_tag"]  # type: ignore[index]  # it is there


def test_a_write_that_is_gone_is_not_made_anew(objects: Objects) -> None:
    tag = objects.write("a", b"one", None)
    objects.delete(["a"])
    with pytest.raises(Changed):
        objects.write("a", b"two", tag)


def test_a_write_whose_answer_was_lost_is_recognised(objects: Objects, objects_server: ObjectServer) -> None:
    tag = objects.write("a", b"one", None)
    faults = iter([Broken(status=500, done=True)])
    objects_server.fault = lambda _method, _path: next(faults, None)
    again = objects.write("a", b"two", tag)
    assert objects_server.asked("PUT") == ["place/a"] * 3
    found = objects.read("a", MOST)
    assert found
    assert (found.data, found.tag) == (b"two", again)


def test_a_large_file_goes_in_parts_and_comes_back_whole(
    objects: Objects, objects_server: ObjectServer, tmp_path: Path
) -> None:
    data = bytes(range(256)) * (2 * module.CHUNK // 256) + b"end"
    (tmp_path / "file").write_bytes(data)
    objects.upload(tmp_path / "file", "folder/file é")
    assert len(objects_server.asked("PUT")) == 3
    objects.download("folder/file é", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert {key: meta["size"] for key, meta in objects.listed().items()} == {"folder/file é": len(data)}
    assert objects.listed("fold") == {}
    assert b"".join(objects.chunks("folder/file é")) == data


def test_what_is_missing_is_told_from_a_bucket_that_is_missing(objects: Objects) -> None:
    with pytest.raises(FileNotFoundError):
        list(objects.chunks("a"))
    nowhere = Objects("s3://no-such-bucket/place")
    acts: list[Callable[[], object]] = [
        lambda: nowhere.read("a", MOST),
        lambda: nowhere.write("a", b"", None),
        nowhere.listed,
    ]
    for act in acts:
        with pytest.raises(StoreError, match="there is no bucket no-such-bucket") as error:
            act()
        told(error)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Broken(status=500), "cannot be used: 500, InternalError"),
        (Broken(status=503, code="SlowDown"), "cannot be used: 503, SlowDown"),
        (Broken(status=403, code="AccessDenied"), "refuses these credentials (403, AccessDenied)"),
        (Broken(status=403, code="InvalidAccessKeyId"), "refuses these credentials (403, InvalidAccessKeyId)"),
        (Broken(delay=2), "cannot be used: "),
    ],
    ids=str,
)
def test_a_server_that_fails_is_told_in_one_line(
    broken: Broken, said: str, objects: Objects, objects_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.write("a", b"one", None)
    monkeypatch.setattr(module, "RETRIES", 1)
    monkeypatch.setattr(module, "READ_TIMEOUT", timedelta(seconds=0.5))
    objects_server.fault = lambda _method, _path: broken
    failing = Objects(objects.url)
    acts: list[Callable[[], object]] = [
        lambda: failing.read("a", MOST),
        lambda: failing.write("a", b"two", {"e_tag": '"1"'}),
        failing.listed,
        lambda: list(failing.chunks("a")),
    ]
    for act in acts:
        with pytest.raises(StoreError) as error:
            act()
        assert said in told(error)


def test_a_failure_that_passes_is_not_noticed(objects: Objects, objects_server: ObjectServer) -> None:
    objects.write("a", b"one", None)
    faults = iter([Broken(status=500), Broken(status=503)])
    objects_server.fault = lambda _method, _path: next(faults, None)
    assert objects.read("a", MOST)


def test_an_answer_that_is_cut_is_asked_for_again(
    objects: Objects, objects_server: ObjectServer, tmp_path: Path
) -> None:
    data = b"0123456789" * 100_000
    (tmp_path / "file").write_bytes(data)
    objects.upload(tmp_path / "file", "a")
    cuts = iter([Broken(cut=True)])
    objects_server.fault = lambda method, _path: next(cuts, None) if method == "GET" else None
    objects.download("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_nobody_listening_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(module, "RETRIES", 1)
    with pytest.raises(StoreError, match="cannot be used: error sending request") as error:
        Objects(bucket).read("a", MOST)
    assert "AWS_ENDPOINT_URL" in told(error)


def test_an_object_that_is_too_large_is_not_read(objects: Objects) -> None:
    objects.write("a", b"0123456789", None)
    with pytest.raises(StoreError, match="more than 9 bytes"):
        objects.read("a", 9)


def test_azure_without_an_account_says_which_variables_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StoreError, match="there are no credentials for az://container/place") as error:
        Objects("az://container/place").read("a", MOST)
    assert "AZURE_STORAGE_ACCOUNT_KEY" in told(error)
