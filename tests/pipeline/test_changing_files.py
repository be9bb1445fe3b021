"""Files that change beside a store's tables: every machine sees what the others have added."""

from __future__ import annotations

import pytest

from stepsearch_data.core.errors import StoreError
from stepsearch_data.pipeline import changing_files
from stepsearch_data.pipeline.marks import Change, write_marks
from tests.object_server import ObjectServer
from tests.pipeline.machines import Machine, logged, put


def test_records_that_only_one_machine_has_are_kept(machine: Machine, objects_server: ObjectServer) -> None:
    """Machine a dies before it sends its log; b builds; then a goes on: what a has paid counts."""
    put(machine("a"), "1", log="load")
    dead = machine("a")
    dead.log("builds", {"stage": "paid by a"})
    put(machine("b"), "2", stage="corpus", table="words", log="paid by b")
    with machine("a").locked():
        assert logged(machine("a")) == ["load", "paid by b", "paid by a"]
    assert logged(machine("b")) == ["load", "paid by b", "paid by a"]
    with machine("a").locked():
        assert len(logged(machine("a"))) == 3


def test_a_log_that_others_change_all_the_time_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    put(machine("a"), "1")
    with monkeypatch.context() as patch:
        patch.setattr(changing_files, "_TRIES", 0)
        with pytest.raises(StoreError, match=r"others change marks\.jsonl of s3://"):
            write_marks(machine("a"), {"q1": Change(mark="good")})
    assert set(machine("a").marks()) == {"q1"}


def test_tries_are_shared(machine: Machine) -> None:
    with machine("a").locked():
        machine("a").try_again("decompose", ["q1"])
    assert machine("b").retries("decompose") == {"q1": 1}


def test_marks_of_all_machines_are_kept(machine: Machine) -> None:
    put(machine("a"), "1")
    write_marks(machine("a"), {"q1": Change(mark="good")})
    write_marks(machine("b"), {"q2": Change(mark="bad")})
    write_marks(machine("a"), {"q1": Change(note="see page 2")})
    for name in ("a", "b", "c"):
        marks = machine(name).marks()
        assert {id_: (mark.mark, mark.note) for id_, mark in marks.items()} == {
            "q1": ("good", "see page 2"),
            "q2": ("bad", ""),
        }


def test_a_page_sees_that_another_machine_has_marked_something(machine: Machine) -> None:
    put(machine("a"), "1")
    page = machine("b")
    seen = [page.marks_at()]
    for note in ("one", "two"):
        write_marks(machine("a"), {"q1": Change(note=note)})
        seen.append(page.marks_at())
    assert len(set(seen)) == 3


@pytest.mark.long
def test_a_mark_that_is_made_during_a_build_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    put(machine("a"), "1")
    monkeypatch.setattr(changing_files, "GLANCE", 0)
    with machine("a").locked():
        write_marks(machine("b"), {"q2": Change(mark="bad")})
        write_marks(machine("a"), {"q1": Change(mark="good")})
    assert set(machine("c").marks()) == {"q1", "q2"}
