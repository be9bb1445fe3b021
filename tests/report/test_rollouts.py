"""Rollouts of policies beside the gold trajectories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.pipeline.questions import QuestionRows
from stepsearch_data.pipeline.store import Store
from stepsearch_data.report.lookup import Lookup
from stepsearch_data.report.records import records
from stepsearch_data.report.rollouts import Rollouts, Tally, kept
from stepsearch_data.report.shapes import Record
from stepsearch_data.schemas.tables import ROLLOUTS
from tests.builders import question, rollout
from tests.conftest import Run
from tests.releases import build
from tests.report.holds import check

BLIND = "<think> I know it. </think>\n<answer> Atlantis </answer>"


@pytest.fixture(scope="module")
def gold(sample: Store) -> list[Record]:
    return list(records(sample, sample.manifest()))


def line(record: Record, response: str) -> str:
    """A row as `eval` writes it."""
    row = {
        "id": record["id"],
        "response": response,
        "target": [record["answer"], *record["aliases"]],
        "search_keys": [[each["query"]] for each in record["rounds"]],
        "support_docs": [{"title": title, "paragraph_text": text} for title, text in record["gold"]],
    }
    return json.dumps(row)


def text(record: Record) -> str:
    """The gold trajectory as a rollout."""
    return "\n".join(f"<{part['kind']}> {part['text']} </{part['kind']}>" for part in record["segments"])


@pytest.fixture
def files(gold: list[Record], tmp_path: Path) -> list[str]:
    """A policy that does as the store does, and one that answers at once; the second knows other questions too."""
    folder = tmp_path / "steppo"
    folder.mkdir()
    (folder / "rollouts.jsonl").write_text("\n".join(line(each, text(each)) for each in gold))
    lines = [line(gold[0], BLIND), "no JSON", "", line({**gold[0], "id": "elsewhere"}, BLIND)]
    (tmp_path / "blind.jsonl").write_text("\n".join(lines))
    return [str(folder), f"who knows={tmp_path / 'blind.jsonl'}"]


def test_a_rollout_stands_beside_its_trajectory(sample: Store, gold: list[Record], files: list[str]) -> None:
    found = list(records(sample, sample.manifest(), Rollouts(files)))
    for each, own in zip(found, gold, strict=True):
        check(each, Record)
        assert {**each, "rollouts": []} == own
        same = each["rollouts"][0]
        assert same["policy"] == "steppo"
        assert (same["right"], same["format_ok"], same["answer"]) == (True, True, own["answer"])
        assert [r["query"] for r in same["rounds"]] == [r["query"] for r in own["rounds"]]
        assert [r["gain"] for r in same["rounds"]] == pytest.approx([r["gain"] for r in own["rounds"]], abs=1e-6)
        assert [[d["title"] for d in r["documents"]] for r in same["rounds"]] == [
            [d["title"] for d in r["documents"]] for r in own["rounds"]
        ]
        assert any(d["gold"] for r in same["rounds"] for d in r["documents"])
        assert [part for part in same["segments"] if part["kind"] != "text"] == [
            part for part in own["segments"] if part["kind"] != "text"
        ]


def test_one_that_searches_for_nothing_is_shown_as_it_is(sample: Store, gold: list[Record], files: list[str]) -> None:
    _, blind = Rollouts(files).of(gold[0]["id"])
    assert (blind["policy"], blind["right"], blind["answer"]) == ("who knows", False, "Atlantis")
    assert blind["rounds"] == []
    assert not blind["format_ok"]  # it has no search
    assert [part["kind"] for part in blind["segments"]] == ["think", "answer"]
    assert [each["policy"] for each in Rollouts(files).of(gold[1]["id"])] == ["steppo"]
    assert Rollouts(files).of("nobody") == []


def test_a_conversation_that_calls_a_tool_is_shown_by_rounds(gold: list[Record], tmp_path: Path) -> None:
    record, messages = gold[0], []
    for each in record["rounds"]:
        function = {"name": "search", "arguments": json.dumps({"query": each["query"]})}
        messages.append({"role": "assistant", "tool_calls": [{"type": "function", "function": function}]})
        shown = (f"[{document['rank']}] {document['title']}\n{document['text']}" for document in each["documents"])
        messages.append({"role": "tool", "content": "\n".join(shown)})
    messages.append({"role": "assistant", "content": f"<answer> {record['answer']} </answer>"})
    (tmp_path / "calls.jsonl").write_text(json.dumps({**json.loads(line(record, "")), "response": messages}))
    (found,) = Rollouts([str(tmp_path / "calls.jsonl")]).of(record["id"])
    assert (found["right"], found["format_ok"]) == (True, True)
    assert [each["gain"] for each in found["rounds"]] == pytest.approx([each["gain"] for each in record["rounds"]])
    assert [part["round"] for part in found["segments"]] == [0, 0, 1, 1, None]


def test_a_question_is_found_by_id_with_its_rollouts(sample: Store, files: list[str]) -> None:
    shown = Rollouts(files)
    lookup = Lookup(sample, sample.manifest(), shown)
    for each in list(records(sample, sample.manifest(), shown))[:5]:
        assert lookup.find(each["id"]) == each


def test_policies_are_judged_and_what_is_not_shown_is_said(gold: list[Record], files: list[str]) -> None:
    shown, known = Rollouts(files), {each["id"] for each in gold}
    assert shown.policies == ["steppo", "who knows"]
    assert shown.right(known) == {each["id"]: [True, False if each is gold[0] else None] for each in gold}
    tally = shown.tally(gold[0]["id"])
    assert tally["steppo"].searches == len(gold[0]["rounds"])
    assert tally["who knows"][:2] == (1, 0)
    assert shown.notes(known) == [
        "who knows: rollouts of questions that have no trajectory here: 1.",
        "who knows: lines that are not rollouts with an id: 1.",
    ]
    assert not Rollouts().right(known)
    assert not Rollouts().notes(known)


@pytest.mark.long
def test_those_that_the_store_keeps_are_shown_as_those_of_a_file(
    gold: list[Record], files: list[str], tmp_path: Path
) -> None:
    store = build(tmp_path / "store", f'rollouts.policies=["kept={files[0]}"]')
    manifest = store.manifest()
    seen, shown = (Rollouts([files[0]]).with_kept(store, manifest) for _ in range(2))
    assert seen.policies == ["kept", "steppo"]
    for each in records(store, manifest, shown):
        own, given = each["rollouts"]
        assert {**own, "policy": "steppo"} == given
        told, scored = seen.tally(each["id"])["kept"], shown.tally(each["id"])["kept"]
        assert (told.keys, scored.keys) == (None, given["key_reward"])
        assert told._replace(keys=scored.keys) == pytest.approx(scored)
        assert seen.tally(each["id"])["steppo"] == shown.tally(each["id"])["steppo"] == scored
        assert Lookup(store, manifest, seen).find(each["id"]) == each
    known = {each["id"] for each in gold}
    assert seen.right(known) == shown.right(known) == {name: [True, True] for name in known}
    with pytest.raises(ConfigError, match="the store keeps rollouts of kept too"):
        Rollouts([f"kept={files[0]}"]).with_kept(store, manifest)


def test_those_that_the_store_keeps_are_as_right_as_it_says() -> None:
    """Of an unanswerable question, it scored them against what their file said."""
    unknown = "<answer> it cannot be known </answer>"
    stored = [rollout(response=unknown, right=True, f1=1.0), rollout(response="<answer> Pesaro </answer>", sample=2)]
    rows = kept(QuestionRows(question("q1", answerable=False), {ROLLOUTS: stored}))
    shown = Rollouts()
    assert [(each["right"], each["f1"]) for each in shown.of("q1", rows)] == [(True, 1.0), (False, 0.0)]
    assert shown.tally("q1")["mine"][:3] == (2, 1, 1.0)


def test_of_several_rollouts_most_must_be_right() -> None:
    assert [Tally(3, right, 0, 0, 0, 0, 0).is_right for right in range(4)] == [False, False, True, True]
    assert not Tally(2, 1, 0, 0, 0, 0, 0).is_right


def test_a_path_may_hold_an_equals_sign(files: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "lr=1e-6"
    folder.mkdir()
    (folder / "rollouts.jsonl").write_bytes((Path(files[0]) / "rollouts.jsonl").read_bytes())
    for given in (folder, folder / "rollouts.jsonl"):
        assert Rollouts([str(given)]).policies == ["lr=1e-6"]


def test_what_cannot_be_read_is_a_clear_error(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two files of rollouts have one name"):
        Rollouts([files[0], files[0]])
    with pytest.raises(SourceError, match=r"cannot read .*nowhere\.jsonl: No such file"):
        Rollouts([str(tmp_path / "nowhere.jsonl")])


def test_the_verb_takes_them(sample: Store, files: list[str], tmp_path: Path, cli: Run) -> None:
    given: list[Any] = [word for file in files for word in ("--rollouts", file)]
    done = cli("report", "--store", sample.root, "--output", tmp_path / "report", *given)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    again = cli("report", "--store", sample.root, "--output", tmp_path / "again", *given)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    assert "Policies beside the gold trajectories" in page
    refused = cli("report", "--store", sample.root, "--output", tmp_path / "other", "--rollouts", tmp_path / "none")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: cannot read ")
    assert not (tmp_path / "other.html").exists()
