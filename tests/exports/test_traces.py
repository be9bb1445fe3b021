"""Rollouts as sessions of the Hub's trace viewer and as trajectories of Harbor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from datasets import load_dataset
from datasets.packaged_modules.json.json import AGENT_TRACES_FEATURES, parse_traces_info

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.exports.reading import Played
from stepsearch_data.exports.traces import Turn, atif, chat, session, session_lines, turns_of
from stepsearch_data.rewards import in_tags
from stepsearch_data.templates.files import load_template
from tests.conftest import run_cli
from tests.exports.conftest import Export, complete, path_of, played, rows_of, soup, table, turn, with_quality

SEARCH = "<think>Who?</think>\n<search>barber opera</search>\n<information>Doc 1<## Title: T ##> Rossini.</information>"
TEMPLATE = load_template("musique")


def said(turns: list[Turn]) -> list[tuple[str, str, str, str | None]]:
    """Who speaks or which query is asked, and the texts of each turn."""
    by = {True: "own", False: "environment"}
    return [(each.search.query if each.search else by[each.own], each.thought, each.text, each.shown) for each in turns]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("", [("own", "", "", None)]),
        ("No idea.", [("own", "", "No idea.", None)]),
        (
            f"{SEARCH}\n<observation>It is he.</observation>\n<think>Done.</think>\n<answer> Rossini </answer>",
            [
                ("barber opera", "Who?", "", "Doc 1<## Title: T ##> Rossini."),
                ("own", "It is he.\nDone.", "Rossini", None),
            ],
        ),
        (
            "<plan>One</plan>First: <search>a</search><search>b</search>",
            [("a", "One", "First:", None), ("b", "", "", None)],
        ),
        (
            "Hm.<warning>Search or answer.</warning><answer>x</answer>",
            [("own", "", "Hm.", None), ("environment", "", "Search or answer.", None), ("own", "", "x", None)],
        ),
        (
            "<search>a</search> wait <information>late</information>",
            [("a", "", "", None), ("own", "", "wait", None), ("environment", "", "late", None)],
        ),
        ("<think>cut <search>a", [("own", "cut", "<search>a", None)]),
    ],
    ids=["empty", "text", "whole", "unanswered", "warned", "late", "cut"],
)
def test_a_rollout_is_split_into_turns(response: str, expected: Any) -> None:
    assert said(turns_of(played(response))) == expected


def test_what_the_environment_wrote_is_never_the_policys() -> None:
    """Where that is known: its words need no tags, and its documents may hold any."""
    before, warning, after = "Hm. ", "My previous action is invalid.", " <search>a</search>"
    shown = "<information>x </information> <search>b</search> </information>"
    text = before + warning + after + shown + "<answer>c</answer>"
    starts = [len(before), len(before + warning + after)]
    places = [[starts[0], starts[0] + len(warning)], [starts[1], starts[1] + len(shown)]]
    assert said(turns_of(played(text, places))) == [
        ("own", "", "Hm.", None),
        ("environment", "", warning, None),
        ("a", "", "", "x </information> <search>b</search>"),
        ("own", "", "c", None),
    ]


def test_calls_that_are_no_search_are_text_and_what_they_returned_is_a_message() -> None:
    def called(number: int, name: str, **arguments: str) -> dict[str, Any]:
        return {"id": str(number), "function": {"name": name, "arguments": orjson.dumps(arguments).decode()}}

    text, places = in_tags(
        [
            {"role": "assistant", "tool_calls": [called(1, "search", query="a"), called(2, "search", query="b")]},
            *({"role": "tool", "tool_call_id": str(at), "content": f"[1] T{at} (id d{at})\nx"} for at in (1, 2)),
            {"role": "assistant", "tool_calls": [called(3, "open", id="d1")]},
            {"role": "tool", "tool_call_id": "3", "content": "The whole text."},
            {"role": "assistant", "content": "<answer>c</answer>"},
        ]
    )
    messages = chat(played(text, [list(place) for place in places or ()]))
    assert [(each["role"], each["content"]) for each in messages[1:]] == [
        ("assistant", ""),
        ("tool", "Doc 1<## Title: T1 ##> \nx"),
        ("assistant", ""),
        ("tool", "Doc 1<## Title: T2 ##> \nx"),
        ("assistant", 'open({"id":"d1"})'),
        ("user", "The whole text."),
        ("assistant", "c"),
    ]
    assert {call["function"]["name"] for each in messages for call in each.get("tool_calls", ())} == {"search"}


def test_any_text_has_its_searches_and_no_other_words() -> None:
    rng = Random(7)
    searches = 0
    for _ in range(1_000):
        one = played(*soup(rng))
        turns = turns_of(one)
        assert [each.search for each in turns if each.search] == list(one.turns)
        searches += len(one.turns)
        for each in turns:
            said = (each.thought, each.text, each.shown or "")
            assert all(line in one.rollout.response for text in said for line in text.split("\n"))
            assert each.own or (each.search is None and each.shown is None)
    assert searches > 500


def test_a_session_has_only_the_fields_of_the_format_in_its_messages() -> None:
    (row,) = session(played(f"{SEARCH}<answer>Rossini</answer>"), TEMPLATE)
    header, messages = row["session"], row["messages"]
    assert (header["type"], header["harness"], header["id"]) == ("session", "stepsearch-data", "/p/1")
    assert header["name"] == "Who? (p 1: wrong)"
    assert [line["type"] for line in messages] == ["message"] * 4
    call = {"id": "search-1", "function": {"name": "search", "arguments": '{"query":"barber opera"}'}}
    assert [line["message"] for line in messages] == [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "", "model": "p", "reasoningContent": "Who?", "toolCalls": [call]},
        {"role": "tool", "toolCallId": "search-1", "content": "Doc 1<## Title: T ##> Rossini."},
        {"role": "assistant", "content": "Rossini", "model": "p"},
    ]
    assert header["turns"] == [turn(1, "barber opera").model_dump(exclude={"question_id", "policy", "sample"})]


def test_a_document_cannot_end_a_line() -> None:
    """The Hub's reader ends lines where `str.splitlines` does."""
    (row,) = session(played(SEARCH.replace("Rossini", "a\x85b\u2028c\u2029d\x0be\n")), TEMPLATE)
    lines = session_lines(row).decode().splitlines()
    assert [orjson.loads(line) for line in lines] == [row["session"], *row["messages"]]


def kept(store: Path) -> list[dict[str, Any]]:
    return table(store, "rollouts").to_dicts()


@pytest.fixture(params=["traces", "atif"])
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


Row = dict[str, Any]
ABOUT: dict[str, Callable[[Row], Row]] = {"traces": lambda row: row["session"], "atif": lambda row: row["extra"]}
TURNS: dict[str, Callable[[Row], list[Row]]] = {
    "traces": lambda row: row["session"]["turns"],
    "atif": lambda row: [step["extra"] for step in row["steps"] if "extra" in step],
}


@pytest.fixture
def judged(sample_store: Path, tmp_path: Path) -> Path:
    """A store whose gates passed a played question into each split, and failed the others."""
    first = complete(sample_store)["question_id"].to_list()
    judged = [(key, "train" if at else "validation", at < 2) for at, key in enumerate(first[:3])]
    return with_quality(sample_store, tmp_path / "judged", judged)


def test_every_rollout_is_there_with_the_numbers_of_the_store(form: str, export: Export, sample_store: Path) -> None:
    rollouts, turns = kept(sample_store), table(sample_store, "rollout_turns").to_dicts()
    found = rows_of(export(form))
    assert len(found) == len(rollouts) > 60
    for row, rollout in zip(found, rollouts, strict=True):
        for name in rollout.keys() - {"response", "observations"}:
            assert ABOUT[form](row)[name] == rollout[name], name
        own = [each for each in turns if all(each[key] == rollout[key] for key in ("question_id", "policy", "sample"))]
        assert TURNS[form](row) == [
            {name: value for name, value in each.items() if name not in ("question_id", "policy", "sample")}
            for each in own
        ]
    first = rollouts[0]["question_id"]
    assert [ABOUT[form](row)["pass_rate"] for row in found if ABOUT[form](row)["question_id"] == first] == [0.5, 0.5]


def test_a_trajectory_is_what_the_format_asks_for(export: Export, sample_store: Path) -> None:
    """Harbor's own models check it in test_trace_readers.py, where they are installed."""
    rollouts = kept(sample_store)
    for row, rollout in zip(rows_of(export("atif")), rollouts, strict=True):
        assert row["schema_version"] == "ATIF-v1.7"
        assert row["agent"]["model_name"] == rollout["policy"]
        assert [step["step_id"] for step in row["steps"]] == [*range(1, len(row["steps"]) + 1)]
        assert row["final_metrics"]["total_steps"] == len(row["steps"])
        assert {step["source"] for step in row["steps"][1:]} == {"agent"}
        asked = [call for step in row["steps"] for call in step.get("tool_calls", [])]
        answered = [result for step in row["steps"] for result in step.get("observation", {"results": []})["results"]]
        assert [call["tool_call_id"] for call in asked] == [result["source_call_id"] for result in answered]
        assert len({call["tool_call_id"] for call in asked}) == len(asked) == rollout["searches"]
        for result in answered:
            assert result["content"] in rollout["response"]
        assert row["steps"][-1]["message"] == rollout["answer"] or not rollout["right"]
    names = [row["trajectory_id"] for row in rows_of(export("atif"))]
    assert len(set(names)) == len(names)


def test_tokens_are_told_where_they_are_known() -> None:
    counted = played("<answer>x</answer>")
    known = Played(**{**vars(counted), "rollout": counted.rollout.model_copy(update={"own_tokens": 7})})
    assert [row["final_metrics"] for one in (counted, known) for row in atif(one, TEMPLATE)] == [
        {"total_steps": 2},
        {"total_steps": 2, "total_completion_tokens": 7},
    ]


def test_the_readers_of_the_hub_know_a_session(export: Export, judged: Path, hub_cache: str) -> None:
    """`datasets`, whose code the Hub's viewer runs, tells sessions by the fields of the first file."""
    folder = path_of(export("traces", store=judged)).parent
    found = load_dataset(str(folder), streaming=True, cache_dir=hub_cache)
    assert {name: part.features for name, part in found.items()} == dict.fromkeys(
        ("train", "validation"), AGENT_TRACES_FEATURES
    )
    for file in sorted(folder.rglob("*.jsonl")):
        header, *messages = map(orjson.loads, file.read_bytes().splitlines())
        asked = messages[0]["message"]["content"]
        assert parse_traces_info(file.read_text().splitlines()) == ("pi", header["id"], asked, None, 1, 0)


@pytest.mark.parametrize("response", ["", "no", SEARCH], ids=["empty", "text", "search"])
def test_any_session_may_be_the_first(response: str, tmp_path: Path, hub_cache: str) -> None:
    """A policy that said nothing has a message all the same: without one, no session of the folder is known."""
    (row,) = session(played(response), TEMPLATE)
    (tmp_path / "a.jsonl").write_bytes(session_lines(row))
    file = str(tmp_path / "a.jsonl")
    found = load_dataset("json", data_files=file, split="train", streaming=True, cache_dir=hub_cache)
    assert found.features == AGENT_TRACES_FEATURES


def test_sessions_are_numbered_files_a_thousand_in_a_folder(
    export: Export, sample_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepsearch_data.exports.files._IN_FOLDER", 25)
    written = export("traces")
    count = len(kept(sample_store))
    folder = path_of(written)
    assert written.rows == {folder: count}
    assert written.load == f"hf upload USER/NAME {folder.parent} . --repo-type dataset"
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jsonl"))
    assert found == [f"{at // 25:04}/{at:07}.jsonl" for at in range(count)]


def test_splits_and_gates_are_those_of_the_questions(form: str, export: Export, judged: Path) -> None:
    assert {path.stem: count for path, count in export(form, store=judged).rows.items()} == {
        "train": 1,
        "validation": 2,
    }
    assert {path.stem for path in export(form, store=judged, split="train").rows} == {"train"}
    all_of_them = export(form, store=judged, everything=True)
    assert sum(all_of_them.rows.values()) == len(kept(judged))
    medium = export(form, store=judged, pass_rate="medium")
    assert {path.stem: count for path, count in medium.rows.items()} == {"validation": 2}


def test_an_earlier_export_is_replaced_whole(export: Export, judged: Path, sample_store: Path) -> None:
    """Of more sessions, of another split, and of another format in the same folder."""
    folder = path_of(export("traces", store=judged)).parent
    written = export("traces", store=judged, split="train")
    assert sorted(path.name for path in folder.iterdir()) == ["train", "validation"]
    assert len(rows_of(written)) == 1
    assert len(rows_of(export("traces"))) == len(kept(sample_store))
    assert [path.name for path in folder.iterdir()] == ["train"]
    shutil.move(folder, folder.with_name("verl-musique"))
    assert [path.name for path in path_of(export("verl")).parent.iterdir()] == ["train.parquet"]
    shutil.move(folder.with_name("verl-musique"), folder.with_name("atif-musique"))
    assert [path.name for path in path_of(export("atif")).parent.iterdir()] == ["train.jsonl"]
    shutil.move(folder.with_name("atif-musique"), folder)
    assert [path.name for path in path_of(export("traces")).parent.iterdir()] == ["train"]


@pytest.mark.parametrize("theirs", ["train/notes.txt", "train/0000/0000000.jsonl", "train"])
def test_a_folder_of_somebody_else_stays(theirs: str, export: Export, tmp_path: Path) -> None:
    path = tmp_path / "traces-musique" / theirs
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(ConfigError, match="train is there, and no export wrote it"):
        export("traces")
    assert path.read_text() == "mine"
    assert [file for file in (tmp_path / "traces-musique").rglob("*") if file.is_file()] == [path]


def test_a_folder_of_ours_with_something_else_stays(export: Export) -> None:
    folder = path_of(export("traces"))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no export wrote it"):
        export("traces")
    export_of_others = folder.parent.with_name("verl-musique")
    shutil.move(folder.parent, export_of_others)
    export("verl")
    assert (export_of_others / "train" / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def unplayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("unplayed") / "store"
    assert run_cli("build", "--store", store, "--limit", "4", "--quiet").returncode == 0
    return store


@pytest.mark.parametrize(
    ("form", "pass_rate"), [("atif", None), ("traces", None), ("curriculum", None), ("trl-grpo", "hard")]
)
def test_a_store_without_rollouts_says_how_to_keep_some(
    form: str, pass_rate: str | None, export: Export, unplayed: Path
) -> None:
    with pytest.raises(StoreError, match="the store keeps no rollouts") as caught:
        export(form, store=unplayed, pass_rate=pass_rate)
    assert caught.value.hint == "play some: stepsearch-data rollouts --help"


def test_an_origin_is_refused(form: str, export: Export) -> None:
    with pytest.raises(ConfigError, match="holds every kept rollout, whoever played it"):
        export(form, origin="teacher")
