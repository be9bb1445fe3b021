"""The card: YAML that the Hub's client and `datasets` read, Markdown that no text of the data breaks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean

import datasets
import pytest
import yaml
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard
from pydantic import ValidationError

from stepsearch_data.release.dataset import CONFIGS
from stepsearch_data.release.record import read_record
from stepsearch_data.release.write import ReleaseSettings
from tests import rows
from tests.llm_server import LlmServer
from tests.oracle import Oracle
from tests.releases import build, release

SECTIONS = (
    "Quick start",
    "A trajectory",
    "Configs and splits",
    "Schema",
    "Example row",
    "How it was made",
    "Models, prompts and search engines",
    "Filtering and decontamination",
    "Statistics",
    "Cost",
    "Intended use",
    "Limitations",
    "Licences and attribution",
    "Versions",
    "Reproduce",
    "Citation",
)
HOSTILE = "</pre>\n---\nlicense: mit\n```\n# Title ![x](http://e.example/x) <script>alert(1)</script> | $name \u202etxt"


def card_of(folder: Path) -> DatasetCard:
    return DatasetCard.load(folder / "README.md")


def outside_of_code(text: str) -> str:
    """The card with its code blocks emptied."""
    return re.sub(r"^(`{3,})\w*\n.*?^\1$", "(code)", text, flags=re.MULTILINE | re.DOTALL)


def test_the_hubs_client_reads_the_yaml(sample_release: Path) -> None:
    data = card_of(sample_release).data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["size_categories"] == ["n<1K"]
    assert data["pretty_name"] == "data"
    assert [config["config_name"] for config in data["configs"]] == [config.name for config in CONFIGS]
    assert [config for config in data["configs"] if config.get("default")] == [data["configs"][0]]
    assert all(
        data[name] for name in ("language", "annotations_creators", "language_creators", "source_datasets", "tags")
    )


def test_dataset_info_goes_round_through_datasets(sample_release: Path) -> None:
    card = card_of(sample_release)
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    record = read_record(sample_release)
    for config in CONFIGS:
        info, splits = infos[config.name], record.configs[config.name]
        assert info.features == datasets.Features.from_arrow_schema(config.schema.remove_metadata())
        assert {name: split.num_examples for name, split in info.splits.items()} == {
            n: s.rows for n, s in splits.items()
        }
        assert info.download_size == sum(record.files[path].bytes for split in splits.values() for path in split.files)
        assert info.dataset_size == sum(split.bytes for split in splits.values())
    again = yaml.safe_load(
        yaml.safe_dump([{"config_name": name, **info._to_yaml_dict()} for name, info in infos.items()])
    )
    assert again == card.data.to_dict()["dataset_info"]


def test_all_sections_are_there_and_no_placeholder_is_left(sample_release: Path) -> None:
    text = card_of(sample_release).text
    assert re.findall(r"^## (.+)$", outside_of_code(text), re.MULTILINE) == list(SECTIONS)
    assert "$" not in outside_of_code(text)
    assert "\n\n\n" not in outside_of_code(text)


def test_gates_that_looked_at_nothing_are_named(sample_release: Path) -> None:
    text = card_of(sample_release).text
    assert "- `eval_overlap`: not checked\n- `eval_single_hop`: not checked" in text


def test_every_column_is_described(sample_release: Path) -> None:
    lines = card_of(sample_release).text.splitlines()
    for config in CONFIGS:
        for name in config.row.model_fields:
            assert any(re.match(rf"\| `{name}(\[\])*` \| \S+( or null)? \| \S", line) for line in lines), name


def test_the_numbers_are_those_of_the_files(sample_release: Path) -> None:
    text, record = card_of(sample_release).text, read_record(sample_release)
    for config, splits in record.configs.items():
        counts = " | ".join(f"{splits[name].rows:,}" if name in splits else "–" for name in ("train", "validation"))
        assert re.search(rf"^\| `{config}` \| .+ \| {counts} \|$", text, re.MULTILINE)
    (train, validation) = (split.rows for split in record.configs["trajectories"].values())
    released = re.findall(r"^\| (?:hotpotqa|musique) \| \d+ \| \d+ \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert (sum(int(t) for t, _ in released), sum(int(v) for _, v in released)) == (train, validation)
    assert record.store in text


def test_a_picture_comes_first_and_the_report_is_beside_it(sample_release: Path) -> None:
    text = card_of(sample_release).text
    linked = re.findall(r"\]\(([^):]+)\)", outside_of_code(text))
    assert linked[:2] == ["trajectories.png", "report.html"]
    assert [(sample_release / name).is_file() for name in linked] == [True] * len(linked)
    assert text.index("(trajectories.png)") < text.index("## Quick start") < text.index("(report.html)")


def test_the_first_trajectory_is_shown_to_people(sample_release: Path) -> None:
    (block,) = re.findall(r"^```text\n(.*?)^```", card_of(sample_release).text, re.MULTILINE | re.DOTALL)
    loaded = datasets.load_dataset(str(sample_release), "trajectories", split="train", streaming=True)
    first = next(iter(loaded))
    assert block.splitlines()[0] == first["question"]
    assert [step["query"] in block for step in first["rounds"]] == [True] * len(first["rounds"])
    assert block.splitlines()[-1] == f"Answer  {first['answer']}"


def test_difficulty_and_rewards_are_those_of_the_files(sample_release: Path) -> None:
    loaded = datasets.load_dataset(str(sample_release), "trajectories", streaming=True)
    rows = [row for split in loaded.values() for row in split]
    for source in ("hotpotqa", "musique"):
        of = [row for row in rows if row["source"] == source]
        counts = " | ".join(str(sum(row["difficulty"] == name for row in of)) for name in ("easy", "medium", "hard"))
        steps = [step["step_reward"] for row in of for step in row["rounds"]]
        means = (mean(row["key_reward"] for row in of), mean(steps), mean(row["answer_reward"] for row in of))
        line = f"| {source} | {counts} | {' | '.join(f'{value:.2f}' for value in means)} |"
        assert line in card_of(sample_release).text


def test_the_example_row_is_the_first_one_as_json(sample_release: Path) -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", card_of(sample_release).text, re.MULTILINE | re.DOTALL)
    loaded = datasets.load_dataset(str(sample_release), "trajectories", split="train", streaming=True)
    first = next(iter(loaded))
    shown = json.loads(block)
    assert shown["question"] == first["question"]
    assert shown.keys() == first.keys()
    assert shown["rollout"].startswith(first["rollout"][:150])


@pytest.fixture(scope="module")
def hostile_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose texts would be markup, YAML and HTML if they could."""
    folder = tmp_path_factory.mktemp("hostile")
    paragraphs = [
        {"title": f"{title} {HOSTILE}", "text": f"{text} {HOSTILE}", "supporting": title != "Bologna"}
        for title, text in (rows.OPERA, rows.COMPOSER, rows.DISTRACTOR)
    ]
    question = f"{rows.QUESTION} {HOSTILE}"
    file = rows.write_lines(folder / "mine.jsonl", [rows.jsonl("q1", question=question, paragraphs=paragraphs)])
    store = build(folder / "store", sources=[f"jsonl={file}"])
    release(store, folder / "release", licences={"jsonl": "mit"})
    return folder / "release"


def test_texts_of_the_data_end_no_block_and_begin_none(hostile_release: Path) -> None:
    card = card_of(hostile_release)
    assert card.data.to_dict()["license"] == "mit"
    outside = outside_of_code(card.text)
    assert re.findall(r"^## (.+)$", outside, re.MULTILINE) == list(SECTIONS)
    for sign in ("<script", "e.example", "</pre>", "\u202e"):
        assert sign not in outside
    assert "\u202e" not in card.text
    assert "alert(1)" in card.text


def test_a_hostile_release_loads_as_any_other(hostile_release: Path, tmp_path: Path) -> None:
    (row,) = datasets.load_dataset(str(hostile_release), split="train", cache_dir=str(tmp_path)).to_list()
    assert row["question"].endswith(HOSTILE)


@pytest.mark.parametrize(
    "field", [{"name": "a/b\nlicense: mit"}, {"name": "a/b`"}, {"name": "a/b", "version": "v1\n---"}]
)
def test_names_and_versions_that_could_be_markup_are_refused(field: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ReleaseSettings.model_validate(field)


@pytest.mark.long
def test_models_prompts_and_what_they_cost_are_told(
    sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up-123456789abc")
    asked = ("decompose.llm=mock", "queries.llm=mock", "load.limit=4", f"llm.replay={tmp_path / 'replay.sqlite'}")
    with LlmServer(Oracle(sample_store)) as server:
        priced = ("llm.prices={mock=[1000.0, 1000.0]}", f"llm.base_url={server.url}")
        release(build(tmp_path / "store", *asked, *priced), tmp_path / "release")
    card, lineage = card_of(tmp_path / "release"), read_record(tmp_path / "release").lineage
    assert lineage["models"] == {"decompose": "mock", "queries": "mock"}
    assert "You split multi-hop questions into the single searches" in card.text
    assert all(sha in card.text for prompts in lineage["prompts"].values() for sha in prompts.values())
    paid = lineage["cost"][0]
    assert paid["calls"] >= 4
    assert paid["cost"] == pytest.approx((paid["prompt_tokens"] + paid["completion_tokens"]) / 1000)
    assert f"| decompose | mock | {paid['calls']} | {paid['prompt_tokens']:,} |" in card.text
    assert "machine-generated" in card.data.to_dict()["language_creators"]
    assert "written by a language model" in card.text
