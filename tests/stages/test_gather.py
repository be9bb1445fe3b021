"""gather: without composed questions, `questions` has the very bytes of `loaded`."""

from __future__ import annotations

from pathlib import Path

from stepsearch_data.schemas.rows import Question
from stepsearch_data.stages import gather
from tests.builders import composed, question, verdict
from tests.stages.conftest import RunStage


def test_all_loaded_questions_come_in_their_order(run_stage: RunStage) -> None:
    loaded = [question(f"q{number}") for number in (3, 1, 2)]
    assert run_stage(gather.STAGE, loaded=loaded, composed=[], verdicts=[])["questions"] == loaded


def test_composed_questions_follow_where_their_verdict_is_that_they_passed(run_stage: RunStage) -> None:
    loaded = [question("q1")]
    made = [composed(f"corpus__{name}") for name in ("unjudged", "passed", "failed")]
    made.append(composed("corpus__skipped", status="skipped"))
    verdicts = [verdict("q1", passed=False), verdict("corpus__passed"), verdict("corpus__failed", passed=False)]
    questions = run_stage(gather.STAGE, loaded=loaded, composed=made, verdicts=verdicts)["questions"]
    assert [each.question_id for each in questions] == ["q1", "corpus__passed"]  # a loaded one stays whatever is said
    assert {type(each) for each in questions} == {Question}


def test_a_store_without_documents_has_questions_of_the_same_bytes(sample_store: Path) -> None:
    (loaded,), (questions,) = (sample_store.glob(f"stages/*/{name}.parquet") for name in ("loaded", "questions"))
    assert loaded.read_bytes() == questions.read_bytes()
