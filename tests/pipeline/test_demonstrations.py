"""Questions by templates are refused wherever rows leave a store, unless somebody asks for them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import stepsearch_data as ssd
from stepsearch_data.core.errors import StoreError
from stepsearch_data.environments import EnvironmentConfig
from stepsearch_data.evaluation.questions import questions_of_store
from stepsearch_data.pipeline.demonstrations import TEMPLATE, refuse_templates
from stepsearch_data.schemas.tables import QUESTIONS
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.data import load_examples
from tests.builders import question
from tests.conftest import Run
from tests.releases import build, release


def write(folder: Path, *notes: list[str]) -> Path:
    questions = [question(f"q{number}", notes=of) for number, of in enumerate(notes)]
    pq.write_table(QUESTIONS.to_arrow(questions), folder / "questions.parquet")
    return folder / "questions.parquet"


def test_other_notes_and_no_questions_are_fine(tmp_path: Path) -> None:
    refuse_templates(write(tmp_path, [], ["extremely short"]))
    refuse_templates(write(tmp_path))


def test_the_error_says_how_many_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="2 questions were written by templates") as refused:
        refuse_templates(write(tmp_path, [TEMPLATE], [], ["short", TEMPLATE]))
    assert "--llm MODEL" in refused.value.hint
    assert "--allow-templates" in refused.value.hint


@pytest.mark.long
def test_exports_environments_and_releases_refuse_them_unless_asked(tmp_path: Path, cli: Run) -> None:
    store = build(tmp_path / "store", "mine.questions=20", sources=["corpus=sample"])
    export = ("export", "--store", store.root, "--quiet", "--format")
    for form in ("trl-sft", "marks-jsonl"):
        refused = cli(*export, form, "--output", tmp_path / form)
        assert refused.returncode == 1
        assert "20 questions were written by templates" in refused.stderr
        assert not list((tmp_path / form).glob("*"))
    assert cli(*export, "corpus", "--output", tmp_path / "corpus").returncode == 0  # it has no questions
    assert cli(*export, "trl-sft", "--output", tmp_path / "sft", "--allow-templates").returncode == 0
    assert ssd.open(store.root).export("trl-sft", tmp_path / "api", allow_templates=True).rows
    with pytest.raises(StoreError, match="20 questions were written by templates") as played:
        EnvironmentConfig(str(store.root)).tasks()
    assert "allow_templates = true" in played.value.hint
    with pytest.raises(StoreError, match="written by templates"):
        list(load_examples(store, "train"))
    assert EnvironmentConfig(str(store.root), allow_templates=True).tasks()
    assert list(questions_of_store(store, "train", load_template("tools"), None).tasks)
    publish = (
        "publish",
        "ann/data",
        "--store",
        store.root,
        "--dry-run",
        "--patience",
        "0.1",
        "--license",
        "corpus=mit",
    )
    assert "written by templates" in cli(*publish).stderr
    with pytest.raises(StoreError, match="written by templates"):
        release(store, tmp_path / "release", licences={"corpus": "mit"})
    release(store, tmp_path / "release", licences={"corpus": "mit"}, allow_templates=True)
