"""A build runs what is not current, says why, and leaves a store that is whole."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest
from pydantic import Field

from stepsearch_data.core.errors import ConfigError, QueryError, StoreError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.pipeline.context import StageContext, TooManyRejects
from stepsearch_data.schemas.rows import Row
from stepsearch_data.schemas.tables import Table
from tests.pipeline.tiny import COUNT, COUNTS, LOAD, NUMBERS, SIGN, SIGNS, STAGES, SignConfig, World
from tests.tree import tree

ALL = ["load", "sign", "count"]


def test_a_new_store_runs_every_stage(world: World) -> None:
    assert world.planned() == dict.fromkeys(ALL, ("never run",))
    assert world.ran() == ALL
    assert world.rows(COUNTS) == [(-1, 1), (0, 1), (1, 3)]


def test_a_second_build_runs_nothing_and_changes_nothing(world: World) -> None:
    world.ran()
    before = tree(world.store.root)
    assert world.planned() == dict.fromkeys(ALL, ())
    assert world.ran() == []
    assert tree(world.store.root) == before


def test_a_plan_touches_nothing(world: World) -> None:
    world.planned()
    assert not world.store.root.exists()


def test_a_changed_config_is_named_and_runs_what_follows(world: World) -> None:
    world.ran()
    changed = SignConfig(flip=True)
    assert world.planned(sign=changed) == {
        "load": (),
        "sign": ("config.flip: False → True",),
        "count": ("signs will be rebuilt by sign",),
    }
    assert world.ran(sign=changed) == ["sign", "count"]
    assert world.rows(COUNTS) == [(-1, 3), (0, 1), (1, 1)]


def test_equal_output_of_a_stage_leaves_what_follows_current(world: World) -> None:
    world.ran()
    assert world.ran(sign=SignConfig(note="no row depends on me")) == ["sign"]
    world.source.write_text("10 20 -30 0 50")
    assert world.ran(sign=SignConfig(note="no row depends on me")) == ["load", "sign"]


def test_a_changed_source_is_named(world: World) -> None:
    world.ran()
    world.source.write_text("1 2 3")
    (reason,) = world.planned()["load"]
    assert reason.startswith("inputs.source 1 (jsonl): ")
    assert world.ran() == ALL
    assert world.rows(COUNTS) == [(1, 3)]


def test_the_place_of_a_source_does_not_matter(world: World) -> None:
    world.ran()
    world.source = world.source.rename(world.source.with_name("moved.txt"))
    assert world.ran() == []


def test_new_code_runs_again(world: World) -> None:
    world.ran()
    newer = (LOAD, replace(SIGN, version=2), COUNT)
    assert world.planned(stages=newer)["sign"] == ("version: 1 → 2",)
    assert world.ran(stages=newer) == ["sign"]


class Reworded(Row):
    """The same numbers."""

    value: int = Field(description="a number, told in other words")


def test_a_column_described_in_other_words_reruns_nothing(world: World) -> None:
    world.ran()
    before = tree(world.store.root)
    numbers = Table("numbers", Reworded, rows_per_group=NUMBERS.rows_per_group)
    reworded = (replace(LOAD, writes=(numbers,)), replace(SIGN, reads=(numbers,)), COUNT)
    assert world.planned(stages=reworded) == {"load": (), "sign": (), "count": ()}
    assert world.ran(stages=reworded) == []
    assert tree(world.store.root) == before


def test_a_missing_file_is_rebuilt(world: World) -> None:
    world.ran()
    output = world.store.manifest().output("signs")
    assert output is not None
    world.store.path(output).unlink()
    assert world.planned()["sign"] == ("signs is missing from the store, or cut",)
    assert world.ran() == ["sign"]
    assert len(world.rows(SIGNS)) == 5
    assert world.ran() == []


def test_force_runs_what_is_chosen(world: World) -> None:
    world.ran()
    before = world.store.digest()
    assert world.planned(only=["sign"], force=True) == {"sign": ("--force",)}
    assert world.ran(only=["sign"], force=True) == ["sign"]
    assert world.store.digest() == before


@pytest.mark.parametrize(
    "options",
    [{}, {"sign": SignConfig(flip=True)}, {"force": True}, {"only": ["sign"], "force": True}, {"only": ["count"]}],
)
def test_a_plan_and_its_build_agree(world: World, options: dict[str, Any]) -> None:
    """The plan names every stage that runs, and no other as long as rows change."""
    world.ran()
    planned = [name for name, reasons in world.planned(**options).items() if reasons]
    assert world.ran(**options) == planned


def test_stages_can_be_built_one_by_one(world: World) -> None:
    for name in ALL:
        assert world.ran(only=[name]) == [name]
    assert world.planned() == dict.fromkeys(ALL, ())


def test_without_a_source_the_loaded_rows_stay(world: World) -> None:
    world.ran()
    world.source.unlink()
    assert world.ran(sources=()) == []
    assert world.ran(sources=(), sign=SignConfig(flip=True)) == ["sign", "count"]
    with pytest.raises(ConfigError, match="load must run again, but no source was given"):
        world.ran(sources=(), force=True)


def test_a_stage_whose_input_is_missing_says_which_stage_makes_it(world: World) -> None:
    world.ran(only=["load"])
    with pytest.raises(ConfigError, match="count reads signs, which is not in the store yet") as caught:
        world.ran(only=["count"])
    assert caught.value.hint == "build it first: stepsearch-data build --from sign --to count"


def test_rejects_are_counted_and_kept(world: World) -> None:
    world.source.write_text("1 2 three 4 5 6")
    outcome = world.job().run(Reporter(quiet=True))[0]
    assert outcome.rejects == 1
    assert world.sql("SELECT stage, source, position, reason, raw FROM rejects") == [
        {"stage": "load", "source": "jsonl", "position": 3, "reason": "not a number", "raw": "three"}
    ]


def test_too_many_rejects_stop_the_build_before_anything_is_committed(world: World) -> None:
    world.source.write_text("1 two three")
    with pytest.raises(TooManyRejects, match=r"2 of 3 rows .* \(2 × not a number\); the first is row 2"):
        world.ran()
    assert world.store.manifest().stages == {}
    assert world.ran(max_reject_share=1) == ALL


def test_a_stage_that_raises_leaves_the_store_as_it_was(world: World) -> None:
    world.ran()
    before = tree(world.store.root)

    def break_down(context: StageContext) -> None:
        context.writer(SIGNS).write(NUMBERS.to_arrow([]))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        world.ran(stages=(LOAD, replace(SIGN, run=break_down, version=2), COUNT))
    assert tree(world.store.root) == before


def test_what_was_finished_before_a_failure_stays(world: World) -> None:
    def break_down(context: StageContext) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        world.ran(stages=(*STAGES[:2], replace(COUNT, run=break_down)))
    assert list(world.store.manifest().stages) == ["load", "sign"]
    assert world.ran() == ["count"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left to write the store"),
        (OSError(errno.EIO, "Input/output error"), "cannot write the store .*: Input/output error"),
    ],
)
def test_a_disk_that_fails_is_one_clear_error(world: World, fault: OSError, message: str) -> None:
    def fail(context: StageContext) -> None:
        raise fault

    with pytest.raises(StoreError, match=message):
        world.ran(stages=(replace(LOAD, run=fail), SIGN, COUNT))


def test_every_run_of_a_stage_is_logged(world: World) -> None:
    world.ran()
    world.ran(only=["sign"], force=True)
    log = list(world.store.read_log("builds"))
    assert [record["stage"] for record in log] == [*ALL, "sign"]
    assert {"finished", "seconds", "peak_rss_bytes", "folder"} < set(log[0])


def test_a_stage_without_work_writes_empty_tables_and_is_not_mentioned(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    def never(context: StageContext) -> None:
        raise AssertionError("it has no work")

    stages = (LOAD, replace(SIGN, run=never, only_with=NUMBERS), replace(COUNT, only_with=SIGNS))
    world.source.write_text("")
    for told in (["load"], ["load"]):  # it is neither told of when it runs nor when it is current
        outcomes = world.job(stages=stages).run(Reporter())
        assert [outcome.stage for outcome in outcomes] == ALL
        assert [line.split()[0] for line in capfd.readouterr().err.splitlines()] == told
    assert world.rows(SIGNS) == world.rows(COUNTS) == []
    world.source.write_text("7")
    assert world.ran() == ALL


def test_an_optional_stage_is_left_out_until_one_of_its_settings_is_given(world: World) -> None:
    """What reads its tables does without them. Where no setting wants them any more, they go."""

    def counted(context: StageContext) -> None:
        assert (SIGNS in context.inputs) == bool(world.store.manifest().output(SIGNS.name))

    stages = (LOAD, replace(SIGN, optional=True), replace(COUNT, run=counted))
    assert world.ran(stages=stages) == ["load", "count"]
    assert world.planned(stages=stages) == {"load": (), "count": ()}
    wanted = SignConfig(flip=True)
    assert world.ran(stages=stages, sign=wanted) == ["sign", "count"]
    world.source.write_text("7")
    assert world.ran(stages=stages, sign=wanted) == ["load", "sign", "count"]
    (files,) = (world.store.root / "stages").glob("sign-*")
    assert [name for name, reasons in world.planned(stages=stages).items() if reasons] == ["count"]
    assert world.ran(stages=stages) == ["count"]
    assert world.store.manifest().stages.keys() == {"load", "count"}
    assert not files.exists()
    with pytest.raises(QueryError):
        world.sql("SELECT * FROM signs")
    assert world.ran(stages=stages) == []
