"""The lock of a store at a URL: one owner at a time, and the end of one that was killed."""

from __future__ import annotations

import time

import pytest

from stepsearch_data.core.errors import StoreError
from stepsearch_data.pipeline import lease as module
from stepsearch_data.pipeline.lease import KEY, Lease
from stepsearch_data.remote import objects as objects_module
from stepsearch_data.remote.objects import Changed, Objects
from tests.object_server import Broken, ObjectServer


@pytest.fixture
def objects(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Objects:
    monkeypatch.setattr(module, "SECONDS", 1.0)
    monkeypatch.setattr(module, "RENEW", 0.3)
    monkeypatch.setattr(objects_module, "RETRIES", 0)
    return Objects(f"{bucket}/store")


def killed(lease: Lease) -> None:
    """End an owner as kill -9 does: it renews nothing and gives nothing back."""
    lease._ended.set()
    lease._thread.join()


def test_a_second_owner_is_refused_and_told_who_has_the_lock(objects: Objects) -> None:
    one, other = Lease(objects, "/one"), Lease(objects, "/other")
    one.take()
    with pytest.raises(StoreError, match=r"another build is writing s3://.*/store \(process \d+ on ") as error:
        other.take()
    assert "if it was killed, its lock ends in " in error.value.hint
    one.end()
    other.take()
    other.end()


def test_a_lock_lives_as_long_as_its_owner(objects: Objects) -> None:
    one = Lease(objects, "/one")
    one.take()
    time.sleep(2.0)
    with pytest.raises(StoreError, match="another build is writing"):
        Lease(objects, "/other").take()
    one.check()
    one.end()


def test_a_lock_of_a_killed_build_ends(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Lease(objects, "/dead")
    dead.take()
    killed(dead)
    with monkeypatch.context() as longer:
        longer.setattr(module, "SECONDS", 60.0)  # more than a busy machine takes from one line to the next
        with pytest.raises(StoreError, match="another build is writing"):
            Lease(objects, "/other").take()
    time.sleep(2.1)  # the server tells whole seconds
    other = Lease(objects, "/other")
    other.take()
    with pytest.raises(StoreError, match="could not be renewed"):
        dead.check()
    other.end()


def test_an_owner_that_seems_silent_but_is_alive_keeps_the_lock(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Lease(objects, "/one")
    one.take()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 1_000)  # the clock of this machine is wrong
    with pytest.raises(StoreError, match="another build is writing"):
        Lease(objects, "/other").take()
    one.end()


def test_the_same_folder_takes_over_at_once(objects: Objects) -> None:
    """Its local lock is free, so the build that had this one is dead."""
    dead = Lease(objects, "/one")
    dead.take()
    killed(dead)
    again = Lease(objects, "/one")
    again.take()
    with pytest.raises(Changed):
        dead._write(dead._tag)
    again.end()


def test_an_owner_who_lost_the_lock_notices_and_does_not_give_it_back(objects: Objects) -> None:
    one = Lease(objects, "/one")
    one.take()
    other = Lease(objects, "/one")
    other.take()
    time.sleep(0.5)
    with pytest.raises(StoreError, match="could not be renewed"):
        one.check()
    one.end()
    other.check()
    other.end()


def test_a_server_that_fails_for_a_while_costs_no_lock(objects: Objects, objects_server: ObjectServer) -> None:
    one = Lease(objects, "/one")
    one.take()
    faults = iter([Broken(status=500)])
    objects_server.fault = lambda _method, _path: next(faults, None)
    time.sleep(0.8)
    one.check()
    one.end()


def test_what_aws_s3_sync_copied_of_a_local_lock_is_no_owner(objects: Objects) -> None:
    objects.write(KEY, b"", None)
    one = Lease(objects, "/one")
    one.take()
    one.end()


def test_a_server_that_ignores_conditions_is_refused(objects: Objects, objects_server: ObjectServer) -> None:
    objects_server.ignores_conditions = True
    try:
        with pytest.raises(StoreError, match="ignores conditions of writes"):
            Lease(objects, "/one").take()
    finally:
        objects_server.ignores_conditions = False
