"""Formats for supervised fine-tuning: the whole trajectory is there, and no observation is learnt."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from stepsearch_data.templates.files import load_template
from tests.exports.conftest import Export, Rows, complete, path_of, rows_of, table, without_nulls

CHAT = ("musique", "paper", "tools")


def queries_in(store: Path) -> list[list[str]]:
    """The queries of every complete trajectory, in order."""
    rounds = table(store, "rounds")
    return [rounds.filter(question_id=key)["query"].to_list() for key in complete(store)["question_id"]]


def test_prompts_and_completions_of_a_question_are_one_response(export: Export, sample_store: Path) -> None:
    """The last prompt and completion are the whole rollout, and every completion is the next prompt's continuation."""
    rows = iter(rows_of(export("trl-sft")))
    template = load_template("musique")
    for whole in complete(sample_store).to_dicts():
        turns = [next(rows) for _ in range(whole["hops"] + 1)]
        opening = template.opening(whole["question"])
        assert turns[0]["prompt"] == opening
        assert turns[-1]["prompt"] + turns[-1]["completion"] == opening + whole["rollout"]
        for turn, following in itertools.pairwise(turns):
            assert following["prompt"].startswith(turn["prompt"] + turn["completion"] + "\n<information>")
            assert following["prompt"].endswith("</information>\n")
    assert next(rows, None) is None


@pytest.mark.parametrize("template", ["musique", "paper"])
def test_a_completion_holds_what_the_model_writes_and_no_more(template: str, export: Export) -> None:
    for row in rows_of(export("trl-sft", template)):
        assert "<information>" not in row["completion"]
        assert row["completion"].endswith(("</search>", "</answer>"))


@pytest.mark.parametrize("form", ["trl-sft", "verl-sft"])
def test_chats_call_the_tool_with_the_rounds_queries(
    form: str, export: Export, sample_store: Path, hub_cache: str
) -> None:
    file = str(path_of(export(form, "tools")))
    loaded = datasets.load_dataset("parquet", data_files=file, cache_dir=hub_cache)["train"]
    rows: Rows = [without_nulls(row) for row in loaded]
    for row, queries in zip(rows, queries_in(sample_store), strict=True):
        messages = row["messages"]
        calls = [message["tool_calls"][0]["function"] for message in messages if "tool_calls" in message]
        assert calls == [{"name": "search", "arguments": {"query": query}} for query in queries]
        roles = [message["role"] for message in messages]
        assert roles == ["system", "user", *["assistant", "tool"] * len(queries), "assistant"]
        tools = json.loads(row["tools"]) if form == "trl-sft" else row["tools"]
        assert [tool["function"]["name"] for tool in tools] == ["search"]
        assert tools[0]["function"]["parameters"]["required"] == ["query"]


@pytest.mark.parametrize("template", CHAT)
def test_verl_reads_conversations_with_pandas(template: str, export: Export, sample_store: Path) -> None:
    """Its dataset learns the messages of the assistant: the documents are in none of them."""
    frame = pd.read_parquet(path_of(export("verl-sft", template)))
    assert len(frame) == len(complete(sample_store))
    for messages in frame["messages"]:
        wrote = [message for message in messages if message["role"] == "assistant"]
        others = [message["content"] for message in messages if message["role"] in {"tool", "user"}]
        assert all("Doc 1" not in message["content"] for message in wrote)
        assert all("Doc 1" in text or "[1]" in text for text in others[1:])
        assert "<answer>" in wrote[-1]["content"]


def accepted_by_llama_factory(row: dict[str, Any], columns: dict[str, str]) -> bool:
    """The rules of its sharegpt converter and of its call formatter (0.9.5).

    They say whose turn it may be, want an even number of turns, and JSON between the tags of a call.
    """
    turns = row[columns["messages"]]
    order = [("human", "observation"), ("gpt", "function_call")]
    for at, turn in enumerate(turns):
        if turn["from"] not in order[at % 2]:
            return False
        if turn["from"] == "function_call":
            (text,) = re.findall("<tool_call>(.*?)</tool_call>", turn["value"], re.DOTALL)
            call = json.loads(text)
            assert set(call) == {"name", "arguments"}
            assert isinstance(call["arguments"], dict)
    if "tools" in columns:
        (function,) = json.loads(row[columns["tools"]])
        assert set(function) >= {"name", "description", "parameters"}
    return len(turns) % 2 == 0 and all(name in row for name in columns.values())


@pytest.mark.parametrize("template", CHAT)
def test_llama_factory_accepts_every_row(template: str, export: Export, sample_store: Path) -> None:
    written = export("llama-factory", template)
    info = json.loads((path_of(written).parent / "dataset_info.json").read_text())
    assert list(info) == ["stepsearch_train"]
    entry = info["stepsearch_train"]
    assert (entry["file_name"], entry["formatting"]) == ("train.jsonl", "sharegpt")
    assert ("tools" in entry["columns"]) == (template == "tools")
    rows = rows_of(written)
    assert all(accepted_by_llama_factory(row, entry["columns"]) for row in rows)
    for row, queries in zip(rows, queries_in(sample_store), strict=True):
        wrote = [turn["value"] for turn in row["conversations"] if turn["from"] in {"gpt", "function_call"}]
        assert all(query in text for query, text in zip(queries, wrote, strict=False))


@pytest.mark.parametrize("template", CHAT)
def test_sharegpt_keeps_the_words_before_a_call(template: str, export: Export, hub_cache: str) -> None:
    file = str(path_of(export("sharegpt", template)))
    rows = datasets.load_dataset("json", data_files=file, cache_dir=hub_cache)["train"]
    for row in rows:
        speakers = [turn["from"] for turn in row["conversations"]]
        answers = "tool" if template == "tools" else "human"
        rounds = (len(speakers) - 2) // 2
        assert speakers == ["human", *["gpt", answers] * rounds, "gpt"]
        if template == "tools":
            first = row["conversations"][1]["value"]
            assert first.startswith("This takes ")
            call = json.loads(first.split("<tool_call>\n")[1].removesuffix("\n</tool_call>"))
            assert (call["name"], list(call["arguments"])) == ("search", ["query"])
            assert json.loads(row["tools"])[0]["function"]["name"] == "search"
