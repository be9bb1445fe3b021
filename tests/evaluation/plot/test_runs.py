from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import TrainError
from stepsearch_data.evaluation.plot.runs import load_runs
from stepsearch_data.trainer.run_folder import RunInfo
from tests.evaluation.plot.runs import evaluated, write_run


def test_a_run_is_what_its_run_json_says(tmp_path: Path) -> None:
    about = {"variant": "steppo", "start": "weak", "sft_seed": 1, "seed": 7, "began": "today"}
    write_run(tmp_path / "whatever", evaluated(u0=0.1), about)
    runs, notes = load_runs([tmp_path])
    assert runs[0].info == RunInfo(variant="steppo", start="weak", sft_seed=1, seed=7)
    assert not notes


@pytest.mark.parametrize(
    ("folder", "variant", "seed"),
    [("steppo-seed3", "steppo", 3), ("steppo-12", "steppo", 12), ("no-key_seed1", "no-key", 1), ("mine", "mine", 0)],
)
def test_without_run_json_its_folder_names_it(tmp_path: Path, folder: str, variant: str, seed: int) -> None:
    write_run(tmp_path / folder, evaluated(u0=0.1))
    assert load_runs([tmp_path / folder])[0][0].info == RunInfo(variant=variant, seed=seed)


def test_runs_come_in_the_order_given_and_below_that_of_their_numbers(tmp_path: Path) -> None:
    for name in ("a-10", "a-2", "b-1"):
        write_run(tmp_path / name[0] / name, evaluated(u0=0.1))
    runs, _ = load_runs([tmp_path / "b", tmp_path / "a", tmp_path])
    assert [run.path.name for run in runs] == ["b-1", "a-2", "a-10"]


def test_a_half_written_last_line_is_left_out_with_a_word(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", evaluated(u0=0.1, u1=0.2))
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"update":2,"eval_e')
    runs, notes = load_runs([folder])
    assert [line["update"] for line in runs[0].lines] == [0, 1]
    assert notes == [f"{folder}: the last line of metrics.jsonl is half-written and left out"]


def test_an_empty_run_is_left_out_with_a_word(tmp_path: Path) -> None:
    empty, full = write_run(tmp_path / "a", []), write_run(tmp_path / "b", evaluated(u0=0.1))
    runs, notes = load_runs([tmp_path])
    assert [run.path for run in runs] == [full]
    assert notes == [f"{empty} has no metrics yet and is left out"]
    with pytest.raises(TrainError, match="has metrics yet"):
        load_runs([empty])


def test_the_last_line_of_an_update_counts(tmp_path: Path) -> None:
    write_run(tmp_path / "r", [*evaluated(u0=0.1, u1=0.2), *evaluated(u1=0.3)])
    _, em = load_runs([tmp_path])[0][0].points("eval_em", "updates")
    assert em.tolist() == [0.1, 0.3]


def test_rollouts_and_tokens_are_counted_up_to_each_line(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"update": 0, "eval_em": 0.1},
        {"update": 1, "rollouts": 4, "own_tokens": 10.0},
        {"update": 2, "rollouts": 4, "own_tokens": 12.5, "eval_em": 0.2},
        {"update": 3, "rollouts": 2, "own_tokens": 20.0, "eval_em": None},
    ]
    run = load_runs([write_run(tmp_path / "r", lines)])[0][0]
    assert run.points("eval_em", "updates")[0].tolist() == [0, 2]
    assert run.points("eval_em", "rollouts")[0].tolist() == [0, 8]
    assert run.points("eval_em", "tokens")[0].tolist() == [0, 90]
    assert run.points("own_tokens", "tokens")[0].tolist() == [40, 90, 130]


@pytest.mark.parametrize("rollouts", [{}, {"rollouts": "8"}, {"rollouts": None}, {"rollouts": [8]}])
def test_lines_that_do_not_count_rollouts_are_refused_for_that_axis(tmp_path: Path, rollouts: dict[str, Any]) -> None:
    run = load_runs([write_run(tmp_path / "r", [{"update": 1, "eval_em": 0.1, **rollouts}])])[0][0]
    with pytest.raises(TrainError, match="has no 'rollouts'"):
        run.points("eval_em", "rollouts")


@pytest.mark.parametrize(
    ("metrics", "about", "complaint"),
    [
        (b"[1]\n", None, r"metrics.jsonl, line 1, holds no update"),
        (b'{"update":1}\n{"loss":2}\n', None, r"line 2, holds no update"),
        (b'{"update":"1"}\n', None, "holds no update"),
        (b'{"update":1}\n', b"{", "does not say what the run is"),
        (b'{"update":1}\n', b'{"start":"weak"}', "does not say what the run is"),
    ],
)
def test_files_that_are_something_else_are_an_error(
    tmp_path: Path, metrics: bytes, about: bytes | None, complaint: str
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(metrics)
    if about:
        (tmp_path / "run.json").write_bytes(about)
    with pytest.raises(TrainError, match=complaint):
        load_runs([tmp_path])


def test_folders_without_runs_and_two_that_say_the_same_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="is not a folder"):
        load_runs([tmp_path / "nowhere"])
    with pytest.raises(TrainError, match=r"no metrics\.jsonl"):
        load_runs([tmp_path])
    for name in ("a", "b"):
        write_run(tmp_path / name, evaluated(u0=0.1), {"variant": "steppo", "seed": 3})
    with pytest.raises(TrainError, match="are both variant steppo, seed 3"):
        load_runs([tmp_path])


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json"])
def test_a_fifo_is_no_file_of_a_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"update":1}\n')
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(TrainError, match=name):
        load_runs([tmp_path])
