"""The folder of an evaluation: what it gives back, and what it refuses."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.evaluation.measure import row_of
from stepsearch_data.evaluation.policy import Played
from stepsearch_data.evaluation.rollout_file import RolloutFolder
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.search_env import Episode, Task

SETTINGS = {"model": "m", "engine": {"name": "bm25"}}
TASK = Task("q1", "Who?", "Who?", ("Ada",), support_docs=(Paragraph("T", "a text"),), source="musique", hops=2)


def row(task: Task, *, refused: str = "", text: str = "<answer> Ada </answer>") -> dict[str, Any]:
    return row_of(Played(Episode(task, [], text=text, ended="answer"), 3, refused))


def write(folder: Path, *rows: dict[str, Any], **settings: Any) -> None:
    with RolloutFolder(folder, {**SETTINGS, **settings}) as opened:
        opened.append(rows)


def test_rows_are_given_back_once_and_as_they_were(tmp_path: Path) -> None:
    again = replace(TASK, sample=2)
    write(tmp_path, row(TASK), row(TASK, text="<answer> Bo </answer>"), row(again))
    with RolloutFolder(tmp_path, SETTINGS) as opened:
        found = [opened.take_earlier(task) for task in (again, TASK, TASK, TASK, replace(TASK, question="Where?"))]
        opened.append([row(replace(TASK, id="q2"))])
    assert [each and each["prediction"] for each in found] == ["Ada", "Ada", "Bo", None, None]
    assert found[0] == row(again)
    assert len((tmp_path / "rollouts.jsonl").read_text().splitlines()) == 4


def test_refused_and_cut_rows_are_dropped_and_the_others_found(tmp_path: Path) -> None:
    write(tmp_path, row(TASK, refused="content policy"), row(replace(TASK, sample=2)), row(TASK, refused="again"))
    path = tmp_path / "rollouts.jsonl"
    with path.open("a") as file:
        file.write('{"id": "cut o')
    before = path.read_bytes()
    for dry in (True, False):
        with RolloutFolder(tmp_path, SETTINGS, dry=dry) as opened:
            assert opened.take_earlier(TASK) is None
            assert opened.take_earlier(replace(TASK, sample=2)) == row(replace(TASK, sample=2))
        assert (path.read_bytes() == before) is dry
    assert [json.loads(line)["sample"] for line in path.read_text().splitlines()] == [2]


@pytest.mark.parametrize(
    ("now", "name"),
    [({"answers": ("Bo",)}, "target"), ({"support_docs": (Paragraph("T", "another"),)}, "support_docs")],
)
def test_a_question_with_another_answer_is_not_measured_by_the_old_one(
    tmp_path: Path, now: dict[str, Any], name: str
) -> None:
    write(tmp_path, row(TASK))
    with (
        RolloutFolder(tmp_path, SETTINGS) as opened,
        pytest.raises(ConfigError, match=f"holds rollouts of q1 with another {name}"),
    ):
        opened.take_earlier(replace(TASK, **now))


def test_a_file_may_ask_a_question_twice_and_one_is_refused(tmp_path: Path) -> None:
    other = replace(TASK, answers=("Bo",))
    write(tmp_path, row(TASK, refused="no"), row(other), digest="of a file")
    with RolloutFolder(tmp_path, {**SETTINGS, "digest": "of a file"}) as opened:
        assert [opened.take_earlier(task) for task in (TASK, other)] == [None, row(other)]


def test_settings_keep_the_most_samples(tmp_path: Path) -> None:
    for samples in ({"samples": 4}, {"samples": 2}, {}):
        write(tmp_path, **samples)
        assert json.loads((tmp_path / "settings.json").read_text()) == {**SETTINGS, "samples": 4}


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """It has the digest of the store's manifest, which any build changes."""
    write(tmp_path, row(TASK), digest="of a manifest")
    with RolloutFolder(tmp_path, SETTINGS) as opened:
        assert opened.take_earlier(TASK) == row(TASK)
    with pytest.raises(ConfigError, match="holds another evaluation: digest None → of a file"):
        write(tmp_path, digest="of a file")


def test_a_rehearsal_needs_no_engine_and_no_folder(tmp_path: Path) -> None:
    write(tmp_path / "there", row(TASK))
    with RolloutFolder(tmp_path / "there", {**SETTINGS, "engine": {}}, dry=True) as opened:
        assert opened.take_earlier(TASK)
    with RolloutFolder(tmp_path / "none", SETTINGS, dry=True) as opened:
        assert opened.take_earlier(TASK) is None
    assert not (tmp_path / "none").exists()


def test_only_places_of_rows_are_held_in_memory(tmp_path: Path) -> None:
    count, text = 300, "x" * 100_000
    write(tmp_path, *(row(replace(TASK, id=str(at)), text=text, refused="" if at else "no") for at in range(count)))
    tracemalloc.start()
    with RolloutFolder(tmp_path, SETTINGS) as opened:
        assert opened.take_earlier(replace(TASK, id="7"))
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(text) < count * len(text) / 10


def test_a_folder_has_one_writer_and_any_number_of_rehearsals(tmp_path: Path) -> None:
    """Two would play, and pay, the same rollouts."""
    with RolloutFolder(tmp_path, SETTINGS):
        with pytest.raises(ConfigError, match="another evaluation is writing"), RolloutFolder(tmp_path, SETTINGS):
            pass
        with RolloutFolder(tmp_path, SETTINGS, dry=True) as rehearsed:
            assert rehearsed.take_earlier(TASK) is None
    write(tmp_path, row(TASK))


def test_a_folder_that_grows_goes_on_with_one_of_an_evaluation(tmp_path: Path) -> None:
    write(tmp_path, row(TASK), questions="store:train")
    with pytest.raises(ConfigError, match="questions store:train → store:test"):
        write(tmp_path, questions="store:test")
    with RolloutFolder(tmp_path, SETTINGS) as opened:
        assert opened.take_earlier(TASK) == row(TASK)
    assert json.loads((tmp_path / "settings.json").read_text()) == SETTINGS


def test_a_server_may_move(tmp_path: Path) -> None:
    write(tmp_path, row(TASK), base_url="http://localhost:8000/v1")
    with RolloutFolder(tmp_path, {**SETTINGS, "base_url": "http://localhost:8001/v1"}) as opened:
        assert opened.take_earlier(TASK) == row(TASK)
