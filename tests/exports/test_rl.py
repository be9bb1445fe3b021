"""Formats for reinforcement learning, read back as their trainers read them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

import stepsearch_data.templates
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.exports.rl import stepsearch
from stepsearch_data.templates.examples import Example, Paragraph, Search, Step
from stepsearch_data.templates.files import load_template
from tests.exports.conftest import Export, complete, path_of, rows_of, table

FOLDER = Path(stepsearch_data.templates.__file__).parent
BUILT_IN = {"nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle"}  # scorers' closed lists
RELEASED = {"musique": "musi", "hotpotqa": "hotpot", "2wiki": "hot_dataset", "jsonl": "musi"}


def keys_in(store: Path, question_id: str) -> list[list[str]]:
    rounds = table(store, "rounds").filter(question_id=question_id)
    return [[query, *others] for query, others in rounds.select("query", "alternatives").rows()]


def gold_in(store: Path, question_id: str) -> list[str]:
    """Ids of a question's gold passages, in order of first use."""
    hops = table(store, "sub_questions").filter(question_id=question_id)["gold_passage_ids"].to_list()
    return list(dict.fromkeys(passage_id for ids in hops for passage_id in ids))


def as_the_release_reads(row: Any) -> tuple[list[str], list[list[str]], list[str]]:
    """The columns by which the reference code takes targets, keys and gold paragraphs out of a row."""
    truth = row["reward_model"]["ground_truth"]
    documents = row["extra_info"]["support_docs"]
    return (
        list(truth["target"]),
        [list(keys) for keys in truth["search_keys"]],
        [documents[at]["paragraph_text"] for at in range(len(documents))],
    )


def test_the_release_finds_in_its_rows_what_the_store_holds(
    export: Export, sample_store: Path, texts: dict[str, tuple[str, str]]
) -> None:
    frame = pd.read_parquet(path_of(export("stepsearch")))
    wholes = complete(sample_store).to_dicts()
    assert len(frame) == len(wholes)
    for (_, row), whole in zip(frame.iterrows(), wholes, strict=True):
        target, keys, gold = as_the_release_reads(row)
        assert target == [whole["answer"], *whole["answer_aliases"]]
        assert keys == keys_in(sample_store, whole["question_id"])
        assert len(keys) == whole["hops"]
        assert gold == [texts[passage_id][1] for passage_id in gold_in(sample_store, whole["question_id"])]
        assert row["prompt"][0]["content"].endswith(f"Question: {whole['question']}")


def test_rows_have_the_releases_columns_and_no_others(export: Export) -> None:
    for at, row in enumerate(rows_of(export("stepsearch", "paper"))):
        assert list(row) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
        assert [message["role"] for message in row["prompt"]] == ["user"]
        assert (row["ability"], row["reward_model"]["style"]) == ("fact-reasoning", "rule")
        assert set(row["reward_model"]["ground_truth"]) == {"target", "search_keys"}
        assert set(row["extra_info"]) == {"split", "index", "support_docs"}
        assert (row["extra_info"]["split"], row["extra_info"]["index"]) == ("train", at)


@pytest.mark.parametrize(("source", "name"), RELEASED.items())
def test_the_releases_scripts_find_the_rows_of_each_source(source: str, name: str) -> None:
    """`eval/metrics.py` counts supporting documents where it is `musi`, `sample_parquet.py` drops unknown names."""
    gold = Paragraph("Rossini", "Rossini was born in Pesaro.")
    step = Step(1, "gold", "Who?", "Pesaro", Search("rossini", (gold,), good=True), ("rossini",), (gold,))
    example = Example(0, "train", "q1", source, "Where?", ("Pesaro",), 1, (step,))
    (row,) = stepsearch(example, load_template("musique"))
    assert row["data_source"] == name


def test_search_r1_reads_targets_and_nothing_else(export: Export) -> None:
    frame = pd.read_parquet(path_of(export("search-r1")))
    for at, row in frame.iterrows():
        assert list(row["reward_model"]["ground_truth"]) == ["target"]
        assert row["extra_info"] == {"split": "train", "index": at}
        assert row["data_source"] in BUILT_IN


@pytest.mark.parametrize("form", ["stepsearch", "search-r1"])
def test_trainers_that_read_tags_refuse_a_tool(form: str, export: Export) -> None:
    with pytest.raises(ConfigError, match=f"the trainer of {form} reads tags, and template tools calls a tool"):
        export(form, "tools")


def test_verl_reads_a_tools_arguments(export: Export, hub_cache: str) -> None:
    """Its agent loop takes `tools_kwargs[NAME]["create_kwargs"]` out of `extra_info`."""
    file = str(path_of(export("verl", "tools")))
    rows = datasets.load_dataset("parquet", data_files=file, cache_dir=hub_cache)["train"]
    for row in rows:
        extra = row["extra_info"]
        assert row["data_source"].removeprefix("searchR1_") in BUILT_IN
        assert row["data_source"].startswith("searchR1_")
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert (extra["need_tools_kwargs"], row["agent_name"]) == (True, "tool_agent")
        assert extra["tools_kwargs"] == {
            "search": {
                "create_kwargs": {
                    "ground_truth": row["reward_model"]["ground_truth"],
                    "data_source": row["data_source"],
                    "question": extra["question"],
                    "support_docs": extra["support_docs"],
                }
            }
        }


def test_verl_without_a_tool_has_no_tool_columns(export: Export) -> None:
    for row in rows_of(export("verl")):
        assert "agent_name" not in row
        assert set(row["extra_info"]) == {"split", "index", "question", "support_docs"}
        assert set(row["reward_model"]["ground_truth"]) == {"target", "search_keys"}


def test_the_tools_name_is_the_templates(export: Export, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text((FOLDER / "tools.txt").read_text().replace('"name": "search"', '"name": "lookup"'))
    row = rows_of(export("verl", str(file)))[0]
    assert list(row["extra_info"]["tools_kwargs"]) == ["lookup"]


def test_grpo_hands_every_column_to_the_rewards(export: Export, sample_store: Path, hub_cache: str) -> None:
    file = str(path_of(export("trl-grpo")))
    rows = datasets.load_dataset("parquet", data_files=file, cache_dir=hub_cache)["train"]
    assert set(rows.column_names) == {
        *("prompt", "question_id", "data_source", "target", "search_keys", "support_docs")
    }
    assert rows["search_keys"][0] == keys_in(sample_store, rows["question_id"][0])


def test_the_package_for_verifiers_holds_its_rows(export: Export, sample_store: Path) -> None:
    """`tests/environments/test_verifiers.py` installs one and has it played."""
    path = path_of(export("verifiers", "tools"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == rows_of(export("trl-grpo", "tools"))
    assert tomllib.loads((path.parent / "pyproject.toml").read_text())["project"]["name"] == "stepsearch-questions"
    compile((path.parent / "__init__.py").read_text(), "__init__.py", "exec")
