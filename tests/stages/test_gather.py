"""gather: without composed questions, `questions` has the very bytes of `loaded`."""

from __future__ import annotations

from pathlib import Path

from stepsearch_data.stages import gather
from tests.builders import question
from tests.stages.conftest import RunStage


def test_all_loaded_questions_come_in_their_order(run_stage: RunStage) -> None:
    loaded = [question(f"q{number}") for number in (3, 1, 2)]
    assert run_stage(gather.STAGE, loaded=loaded)["questions"] == loaded


def test_a_store_without_documents_has_questions_of_the_same_bytes(sample_store: Path) -> None:
    (loaded,), (questions,) = (sample_store.glob(f"stages/*/{name}.parquet") for name in ("loaded", "questions"))
    assert loaded.read_bytes() == questions.read_bytes()
