"""A release with traces: kept rollouts in the columns of the Hub's trace viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import orjson
import polars as pl
import pyarrow.parquet as pq
import pytest
from datasets.packaged_modules.json.json import AGENT_TRACES_FEATURES, parse_traces_info
from huggingface_hub import DatasetCard

from stepsearch_data.core.errors import PublishError
from stepsearch_data.core.progress import Meter
from stepsearch_data.exports.export import export, find_format
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.record import read_record
from stepsearch_data.templates.files import load_template
from stepsearch_data.trajectory import read_trajectories
from tests.hub_server import Hub
from tests.release.conftest import REPO, Command
from tests.releases import build, release

KEPT = ("question_id", "policy", "sample", "right", "f1", "answer", "gold_found", "licence", "split_group")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that keeps a right and a wrong rollout of each gold trajectory."""
    folder = tmp_path_factory.mktemp("played")
    texts = [(each.question_id, each.rollout) for each in read_trajectories(build(folder / "store", "load.limit=12"))]
    rows = [{"id": name, "response": text} for name, rollout in texts for text in (rollout, "Hm.")]
    (folder / "mine.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return build(folder / "store", "load.limit=12", f'rollouts.policies=["mine={folder / "mine.jsonl"}"]')


@pytest.fixture(scope="module")
def released(played: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traces") / "release"
    release(played, folder, traces=True)
    return folder


def rows(folder: Path, config: str, split: str = "train") -> list[dict[str, Any]]:
    files = read_record(folder).configs[config][split].files
    return [row for file in files for row in pq.read_table(folder / file).to_pylist()]


def test_datasets_loads_them_as_it_loads_sessions(released: Path, tmp_path: Path) -> None:
    """The same columns and types; each row is a rollout of the config beside it."""
    loaded = datasets.load_dataset(str(released), "traces", split="train", cache_dir=str(tmp_path))
    assert loaded.features == AGENT_TRACES_FEATURES
    rollouts = rows(released, "rollouts")
    assert len(loaded) == len(rollouts) == read_record(released).configs["traces"]["train"].rows > 10
    for row, rollout in zip(loaded, rollouts, strict=True):
        assert row["num_tool_calls"] == len(rollout["turns"])
        calls = [call for message in row["messages"] for call in message.get("tool_calls", [])]
        assert [call["function"]["arguments"]["query"] for call in calls] == [t["query"] for t in rollout["turns"]]
        _, session_id, prompt, _, users, _ = parse_traces_info(row["trace"].splitlines())
        assert (session_id, prompt, users) == (row["session_id"], row["prompt"], row["num_user_messages"])


def test_its_metadata_are_all_numbers_of_the_rollout(released: Path) -> None:
    for row, rollout in zip(rows(released, "traces"), rows(released, "rollouts"), strict=True):
        about = json.loads(row["metadata"])
        assert {name: about[name] for name in KEPT} == {name: rollout[name] for name in KEPT}
        assert about["turns"] == rollout["turns"]


def test_a_trace_is_the_file_that_an_export_writes(released: Path, played: Store, tmp_path: Path) -> None:
    export(played, find_format("traces"), load_template("musique"), tmp_path, Meter(None, "export"))
    for split in ("train", "validation"):
        files = [path.read_text() for path in sorted((tmp_path / split).rglob("*.jsonl"))]
        assert [json.loads(row["trace"]) for row in rows(released, "traces", split)] == files


def test_others_read_the_files_too(released: Path) -> None:
    path = next((released / "data" / "traces").glob("train-*.parquet"))
    found = pl.read_parquet(path)
    assert found["prompt"].to_list() == [row["prompt"] for row in rows(released, "traces")]


def test_the_card_says_so(released: Path, played: Store, tmp_path: Path) -> None:
    card = DatasetCard.load(released / "README.md")
    data = card.data.to_dict()
    assert data["tags"][-1] == "agent-traces"
    assert [config["config_name"] for config in data["configs"]][-2:] == ["rollouts", "traces"]
    info = datasets.info.DatasetInfosDict.from_dataset_card_data(card.data)["traces"]
    assert info.features == AGENT_TRACES_FEATURES
    assert info.splits["train"].num_examples == len(rows(released, "traces"))
    assert "`traces` are the rollouts once more" in card.text
    assert "Calls of other tools are text." in card.text
    assert "Data Studio" not in card.text  # nobody has tried it
    assert "Of `traces`, it is in `metadata`." in card.text
    release(played, tmp_path / "release")
    without = DatasetCard.load(tmp_path / "release" / "README.md")
    assert "agent-traces" not in without.data.tags
    assert "traces" not in without.text.replace("agent-traces", "")
    assert not (tmp_path / "release" / "data" / "traces").exists()


@pytest.mark.long
def test_publish_counts_and_sends_them(hub: Hub, publish: Command, played: Store, tmp_path: Path) -> None:
    plain = publish("--dry-run", store=played.root)
    assert "data/traces" not in plain.out
    said = publish("--dry-run", "--traces", store=played.root)
    assert said.code == 0, said.text
    assert ["add", "data/traces", "2"] in [line.split()[:3] for line in said.out.splitlines()]
    assert publish("--traces", store=played.root).code == 0
    sent = [path for path in hub.repositories[REPO].head if path.startswith("data/traces/")]
    assert sent == [f"data/traces/{split}-00000-of-00001.parquet" for split in ("train", "validation")]
    assert set(sent) < set(read_record(tmp_path / "release").digests)
    assert publish(store=played.root, tag="v1.1.0").code == 0
    assert not [path for path in hub.repositories[REPO].head if path.startswith("data/traces/")]


def test_a_store_without_rollouts_has_no_traces(hub: Hub, publish: Command, tmp_path: Path) -> None:
    said = publish("--traces")
    assert said.code == 1
    assert "there are no traces: the store keeps no rollouts" in said.err
    assert "hint: play some: stepsearch-data rollouts --help" in said.err
    assert not (tmp_path / "release").exists()
    assert hub.repositories == {}


def test_rollouts_of_no_released_question_make_no_traces(tmp_path: Path) -> None:
    store = build(tmp_path / "store", "load.limit=4")
    (tmp_path / "mine.jsonl").write_bytes(b'{"id": "nobody", "response": "no"}\n')
    kept = (f'rollouts.policies=["mine={tmp_path / "mine.jsonl"}"]', "run.max_reject_share=1")
    store = build(tmp_path / "store", "load.limit=4", *kept)
    with pytest.raises(PublishError, match="no rollout is of a question that is released") as caught:
        release(store, tmp_path / "release", traces=True)
    assert caught.value.hint == "publish without --traces"
    assert not (tmp_path / "release").exists()
