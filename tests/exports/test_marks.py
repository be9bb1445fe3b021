"""Marks as files: what is in them, that they come back, and that the tools' own rules hold for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import polars as pl
import pytest

from stepsearch_data.core.errors import StoreError
from stepsearch_data.pipeline.marks import Change, read_changes, write_marks
from stepsearch_data.pipeline.store import Store
from tests.exports.conftest import NOTE, Export, complete, path_of, rows_of, table, with_quality

FORMS = {"marks-jsonl": "marks", "argilla": "records", "label-studio": "tasks"}


@pytest.fixture
def marked(sample_store: Path) -> pl.DataFrame:
    """The two trajectories that are marked: bad with a note, and good."""
    return table(sample_store, "trajectories").head(2)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_marked_is_exported_also_where_it_fails_a_gate(
    form: str, export: Export, sample_store: Path, marked: pl.DataFrame, tmp_path: Path
) -> None:
    first, second = marked["question_id"]
    judged = with_quality(sample_store, tmp_path / "judged", [(first, "", False), (second, "train", True)])
    for store in (sample_store, judged):
        written = export(form, store=store)
        assert [(path.stem, count) for path, count in written.rows.items()] == [(FORMS[form], 2)]
        assert ids(rows_of(written, FORMS[form])) == [first, second]
    everything = export(form, everything=True)
    assert ids(rows_of(everything, FORMS[form])) == table(sample_store, "trajectories")["question_id"].to_list()


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row.get("data", row).get("question_id") or row["id"] for row in rows]


def test_marks_come_back_from_json_lines_also_of_questions_that_are_gone(
    export: Export, sample_store: Path, marked: pl.DataFrame, tmp_path: Path
) -> None:
    store = Store(with_quality(sample_store, tmp_path / "copy", []))
    write_marks(store, {"gone": Change(mark="good", note="it was here")})
    written = export("marks-jsonl", store=store.root, everything=True)
    bad, good, *others, gone = rows_of(written, "marks")
    assert (bad["mark"], bad["note"], good["mark"], gone["question_id"]) == ("bad", NOTE.strip(), "good", "gone")
    assert bad["trajectory"] == marked["rollout"][0]
    assert gone["question"] is others[0]["mark"] is None
    before = store.marks()
    (store.root / "marks.jsonl").unlink()
    write_marks(store, read_changes(path_of(written, "marks")))
    assert [(mark.mark, mark.note) for mark in store.marks().values()] == [(m.mark, m.note) for m in before.values()]


def test_a_store_without_marks_says_how_to_mark(export: Export, sample_store: Path, tmp_path: Path) -> None:
    store = with_quality(sample_store, tmp_path / "copy", [])
    (store / "marks.jsonl").unlink()
    with pytest.raises(StoreError, match="no trajectory is marked") as caught:
        export("argilla", store=store)
    assert "--all" in caught.value.hint
    assert len(rows_of(export("argilla", store=store, everything=True), "records")) > len(complete(store))


def test_records_have_the_names_of_their_settings(export: Export, marked: pl.DataFrame) -> None:
    """Argilla takes a record's keys by the names of fields, questions and metadata, and leaves out what is null."""
    written = export("argilla", everything=True)
    path = path_of(written, "records")
    settings = orjson.loads((path.parent / "settings.json").read_bytes())
    names = {part: [each["name"] for each in settings[part]] for part in ("fields", "questions", "metadata")}
    assert names == {
        "fields": ["question", "answer", "trajectory"],
        "questions": ["mark", "note"],
        "metadata": ["source"],
    }
    labels = {option["value"] for option in settings["questions"][0]["settings"]["options"]}
    records = rows_of(written, "records")
    for record in records:
        assert record.keys() == {"id", *(name for of in names.values() for name in of)}
        assert all(record[name] for name in names["fields"])
        assert record["mark"] in {None, *labels}
    assert [(record["mark"], record["note"]) for record in records[:3]] == [
        ("bad", NOTE.strip()),
        ("good", None),
        (None, None),
    ]
    assert f"{path.parent}/settings.json" in written.load
    compile(written.load, "load", "exec")


def test_tasks_fit_their_labelling_interface(export: Export) -> None:
    """Label Studio takes a result by the name and type of a control, and of the object that it is about."""
    written = export("label-studio", everything=True)
    path = path_of(written, "tasks")
    config = ET.parse(path.parent / "config.xml").getroot()
    shown = {tag.attrib["value"].removeprefix("$") for tag in config if tag.tag in {"Header", "Text"}}
    controls = {tag.attrib["name"]: tag for tag in config if "toName" in tag.attrib}
    choices = {choice.attrib["value"] for choice in controls["mark"]}
    tasks = rows_of(written, "tasks")
    for task in tasks:
        assert all(task["data"][name] for name in shown)
        for annotation in task["annotations"]:
            for result in annotation["result"]:
                control = controls[result["from_name"]]
                assert (result["to_name"], result["type"]) == (control.attrib["toName"], control.tag.lower())
                assert set(result["value"].get("choices", ())) <= choices
    told = [[result["value"] for of in task["annotations"] for result in of["result"]] for task in tasks[:3]]
    assert told == [[{"choices": ["bad"]}, {"text": [NOTE.strip()]}], [{"choices": ["good"]}], []]
    compile(written.load, "load", "exec")
