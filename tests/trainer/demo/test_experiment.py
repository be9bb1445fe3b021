"""The demo's trainings: a little world, a few updates."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra train")

import torch

from stepsearch_data.core.errors import TrainError
from stepsearch_data.trainer.data import load_examples
from stepsearch_data.trainer.demo import experiment
from stepsearch_data.trainer.demo.experiment import SIZES, STARTS, Job, cold, jobs, make_world, parts, run
from tests.trainer.test_steppo_trainer import metrics
from tests.trainer.tiny import load

SIZE = replace(SIZES["quick"], rollouts=16, eval_every=1, held_out=8)
WEAK = replace(STARTS["weak"], right=1.0, updates=2, steps=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("demo")
    make_world(folder, questions=120, facts=60)
    return folder


def test_what_is_held_out_are_other_compositions_of_the_same_facts(folder: Path) -> None:
    train, held_out = parts(make_world(folder), 8)
    assert len(held_out) == 8
    assert not {each.question for each in train} & {each.question for each in held_out}
    facts = {paragraph for each in train for paragraph in each.gold}
    known = [paragraph in facts for each in held_out for paragraph in each.gold]
    assert sum(known) / len(known) > 0.9  # in a world as small as this one, not all


def test_no_held_out_chain_is_a_part_of_one_to_train_on(folder: Path) -> None:
    train, held_out = parts(make_world(folder), 8)
    chains = ["".join(f"|{step.gold[0].text}|" for step in each.steps) for each in train]
    asked = ["".join(f"|{step.gold[0].text}|" for step in each.steps) for each in held_out]
    assert not [chain for chain in asked if any(chain in trained for trained in chains)]
    everything = list(load_examples(make_world(folder), "train"))
    assert len(train) < len(everything) - len(held_out)  # without this rule some would be


def test_a_folder_holds_one_world(folder: Path) -> None:
    with pytest.raises(TrainError, match="holds another world"):
        make_world(folder, seed=2)


def test_variants_begin_with_the_same_rollouts_and_differ_by_their_rewards(folder: Path) -> None:
    steppo, outcome = (Job(folder, WEAK, variant, 0, SIZE) for variant in ("StePPO", "outcome only"))
    for job in (steppo, outcome):
        assert not job.is_done
        assert run(job, load) == job.output
        assert job.is_done
    (start, first, *_), (same, other, *_) = metrics(steppo.output), metrics(outcome.output)
    assert start["eval_em"] == same["eval_em"]
    for name in ("em", "key", "gain", "searches", "own_tokens"):
        assert first[name] == other[name]
    assert first["reward"] != other["reward"]
    assert [row["update"] for row in metrics(steppo.output)] == [0, 1, 2]
    assert json.loads((steppo.output / "run.json").read_text())["start"] == "weak"


def test_a_training_that_stopped_within_its_schedule_goes_on_as_if_it_had_not(folder: Path) -> None:
    whole = run(Job(folder, WEAK, "gain+key", 0, SIZE), load)
    expected = metrics(whole)
    whole.rename(folder / "whole")
    half = Job(folder, WEAK, "gain+key", 0, replace(SIZE, until=1))
    run(half, load)
    assert half.is_done
    assert not replace(half, size=SIZE).is_done
    assert metrics(half.output) == expected[:2]
    run(replace(half, size=SIZE), load)
    assert metrics(half.output) == expected


def test_a_cold_start_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cold(folder, WEAK, 0, SIZE.held_out)
    before = (made / "model.safetensors").read_bytes()
    monkeypatch.setattr(experiment, "cold_start", partial(pytest.fail, "trained again"))
    assert cold(folder, WEAK, 0, SIZE.held_out) == made
    assert (made / "model.safetensors").read_bytes() == before


def test_a_larger_size_adds_to_a_smaller_one(tmp_path: Path) -> None:
    """So that `make train` is a part of the whole experiment, and its runs are not repeated."""
    small, full = ({job.output: replace(job, size=SIZE) for job in jobs(tmp_path, SIZES[n])} for n in SIZES)
    assert small.items() <= full.items()
    assert len(small) == 3
    assert SIZES["quick"].budgets == range(20, 41, 20)
    seeds = {(job.start.name, job.sft_seed) for job in full.values()}
    assert len(seeds) == 16  # eight a start
    assert SIZES["full"].budgets == range(20, 81, 20)
