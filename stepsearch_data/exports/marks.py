"""What a reader says of trajectories, for programs and for tools in which people label texts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from stepsearch_data.exports import schema
from stepsearch_data.exports.reading import examples
from stepsearch_data.pipeline.marks import LONGEST_NOTE
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.rows import Mark
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.template import Template

Row = dict[str, Any]
_TEXTS = ("source", "question", "answer", "trajectory")
JSONL = pa.schema(
    [(name, schema.TEXT) for name in ("question_id", "mark", "note", "marked_at")] + [(n, schema.TEXT) for n in _TEXTS]
)
ARGILLA = pa.schema([(name, schema.TEXT) for name in ("id", *_TEXTS, "mark", "note")])
_RESULT = pa.struct(
    [
        *((name, schema.TEXT) for name in ("from_name", "to_name", "type")),
        ("value", pa.struct([("choices", pa.list_(schema.TEXT)), ("text", pa.list_(schema.TEXT))])),
    ]
)
LABEL_STUDIO = pa.schema(
    [
        ("data", pa.struct([(name, schema.TEXT) for name in ("question_id", *_TEXTS)])),
        ("annotations", pa.list_(pa.struct([("result", pa.list_(_RESULT))]))),
    ]
)
_LABELS = """<View>
  <Header value="$question"/>
  <Text name="answer" value="$answer"/>
  <Text name="trajectory" value="$trajectory"/>
  <Choices name="mark" toName="trajectory" choice="single" showInline="true">
    <Choice value="good"/>
    <Choice value="bad"/>
  </Choices>
  <TextArea name="note" toName="trajectory" rows="3" maxSubmissions="1" placeholder="Why?"/>
</View>
"""
_ASKED = "Is this search trajectory good or bad: do its searches follow from the question, and lead to the answer?"


@dataclass(frozen=True)
class Marked:
    """A trajectory, and what a reader says of it. One of both may be missing: a mark outlives its question."""

    example: Example | None
    mark: Mark | None


def marked(store: Store, manifest: Manifest, *, everything: bool) -> Iterator[Marked]:
    """Yield what is marked in the order of the store, then marks without a trajectory; `everything`: the others too."""
    marks = store.marks()
    for example in examples(store, manifest, everything=True, with_rejected=False):
        mark = marks.pop(example.question_id, None)
        if mark or everything:
            yield Marked(example, mark)
    for mark in marks.values():
        yield Marked(None, mark)


def _texts(example: Example, template: Template) -> Row:
    """Return the columns `_TEXTS`."""
    return {
        "source": example.source,
        "question": example.question,
        "answer": example.answers[0],
        "trajectory": template.response(example),
    }


def jsonl(one: Marked, template: Template) -> list[Row]:
    """Make a row, of which `mark --import` reads id, mark and note; they are null where nothing is said."""
    texts = _texts(one.example, template) if one.example else dict.fromkeys(_TEXTS)
    if one.mark:
        return [{**one.mark.model_dump(), **texts}]
    unmarked = {"question_id": one.example.question_id if one.example else ""}
    return [{**dict.fromkeys(JSONL.names), **unmarked, **texts}]


def argilla(one: Marked, template: Template) -> list[Row]:
    """Make a record whose keys are those of the settings beside it: a mark becomes a suggestion, or a response."""
    if one.example is None:
        return []
    said = {"mark": one.mark.mark or None, "note": one.mark.note or None} if one.mark else {"mark": None, "note": None}
    return [{"id": one.example.question_id, **_texts(one.example, template), **said}]


def label_studio(one: Marked, template: Template) -> list[Row]:
    """Make a task, with a reader's mark as its annotation."""
    if one.example is None:
        return []
    data = {"question_id": one.example.question_id, **_texts(one.example, template)}
    mark, note = (one.mark.mark, one.mark.note) if one.mark else ("", "")
    said = [("mark", "choices", {"choices": [mark]})] if mark else []
    said += [("note", "textarea", {"text": [note]})] if note else []
    result = [{"from_name": name, "to_name": "trajectory", "type": kind, "value": value} for name, kind, value in said]
    return [{"data": data, "annotations": [{"result": result}] if result else []}]


def label_config(_: Mapping[str, str], __: Template) -> dict[str, bytes]:
    """Return the file of Label Studio's labelling interface."""
    return {"config.xml": _LABELS.encode()}


def argilla_settings(_: Mapping[str, str], __: Template) -> dict[str, bytes]:
    """Return the file of the settings of an Argilla dataset, as `rg.Settings.from_json` reads it."""
    fields = [
        _argilla("text", name, required=True, use_markdown=False) for name in ("question", "answer", "trajectory")
    ]
    labels = [{"value": value, "text": value, "description": None} for value in ("good", "bad")]
    questions = [
        _argilla("label_selection", "mark", required=True, options=labels, visible_options=None),
        _argilla("text", "note", required=False, use_markdown=False),
    ]
    terms = {"name": "source", "title": "source", "visible_for_annotators": True}
    settings = {
        "guidelines": f"{_ASKED} A note says why, in at most {LONGEST_NOTE:,} characters.",
        "fields": fields,
        "questions": questions,
        "metadata": [{**terms, "settings": {"type": "terms", "values": None}}],
        "vectors": [],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
    }
    return {"settings.json": orjson.dumps(settings, option=orjson.OPT_INDENT_2) + b"\n"}


def _argilla(kind: str, name: str, *, required: bool, **settings: Any) -> Row:
    return {"name": name, "title": name, "required": required, "settings": {"type": kind, **settings}}


def load_argilla(files: Mapping[str, str]) -> str:
    """Return Python that makes the dataset and logs the records."""
    path = next(iter(files.values()))
    settings = path.rpartition("/")[0] or "."
    return (
        f'ds = rg.Dataset("stepsearch", settings=rg.Settings.from_json({f"{settings}/settings.json"!r})); ds.create(); '
        f'ds.records.log(datasets.load_dataset("json", data_files={path!r}, split="train"))'
    )


def load_label_studio(files: Mapping[str, str]) -> str:
    """Return Python that makes the project and imports the tasks."""
    path = next(iter(files.values()))
    config = f"{path.rpartition('/')[0] or '.'}/config.xml"
    return (
        f'project = ls.projects.create(title="stepsearch", label_config=open({config!r}).read()); '
        f"ls.projects.import_tasks(project.id, request=json.load(open({path!r})))"
    )


def load_jsonl(files: Mapping[str, str]) -> str:
    """Return the command that reads the marks into a store."""
    return f"stepsearch-data mark --import {shlex.quote(next(iter(files.values())))}"
