"""What a release says of its making, and that its run file makes the same store again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.files import digest_of
from stepsearch_data.pipeline.store import Store
from stepsearch_data.release.lineage import Origin, combined, run_file
from stepsearch_data.release.record import read_record
from tests import rows
from tests.conftest import Run
from tests.releases import build, release


def test_every_input_and_stage_is_named_by_digest(sample_release: Path) -> None:
    record, store = read_record(sample_release), Store(sample_release / "store")
    lineage, manifest = record.lineage, store.manifest()
    assert record.store == store.digest()
    assert [source["digest"] for source in lineage["sources"]] == list(
        manifest.stages["load"].fingerprint["inputs"].values()
    )
    assert lineage["corpus"]["sha256"] == digest_of(next(sample_release.glob("store/stages/corpus-*/passages.parquet")))
    assert lineage["stages"].keys() == manifest.stages.keys()
    for name, stage in lineage["stages"].items():
        assert manifest.stages[name].folder == f"stages/{name}-{stage['fingerprint']}"
        assert stage["outputs"] == {key: output.digest for key, output in manifest.stages[name].outputs.items()}
    assert lineage["engines"]["bm25"]["k1"] == 1.2
    assert (lineage["models"], lineage["prompts"], lineage["files"], lineage["cost"]) == ({}, {}, {}, [])


def test_the_command_and_the_run_file_of_a_release_make_the_same_store_again(
    sample_release: Path, tmp_path: Path, cli: Run
) -> None:
    record = read_record(sample_release)
    assert (sample_release / "run.toml").read_text() == record.run_file
    shutil.copyfile(sample_release / "run.toml", tmp_path / "run.toml")
    _, *arguments = record.command.replace("run.toml", str(tmp_path / "run.toml")).split()
    built = cli(*arguments)
    assert built.returncode == 0, built.stderr
    assert Store(tmp_path / "store").digest() == record.store


@pytest.mark.long
def test_a_run_file_keeps_settings_that_are_not_the_defaults_and_engines_of_a_name(tmp_path: Path, cli: Run) -> None:
    file = rows.write_lines(tmp_path / "mine.jsonl", [rows.jsonl("q1")])
    engines = ('engines.use=["soft", "chargram"]', "engines.soft.kind='bm25'", "engines.soft.k1=0.5")
    own = ("filter.rule=1", "filter.valid='gold-or-answer'", "pairs.kinds=['missed']", "quality.seed=7")
    store = build(tmp_path / "store", *engines, *own, sources=[f"jsonl={file}"])
    release(store, tmp_path / "release", licences={"jsonl": "mit"})
    again = tmp_path / "again"
    again.mkdir()
    shutil.copyfile(tmp_path / "release/run.toml", again / "run.toml")
    shutil.copyfile(file, again / "source-1.jsonl")
    built = cli("build", "--config", again / "run.toml")
    assert built.returncode == 0, built.stderr
    assert Store(again / "store").digest() == store.digest()


@pytest.mark.parametrize(
    ("commit", "source"),
    [
        ("hotpotqa/hotpot_qa@abc:distractor/validation", "hotpotqa=hf:hotpotqa/hotpot_qa@abc:distractor/validation"),
        ("me/mine@abc:/train", "hotpotqa=hf:me/mine@abc:train"),
    ],
)
def test_a_dataset_of_the_hub_is_named_at_its_commit(commit: str, source: str, sample_store: Path) -> None:
    origin = Origin("source 1 (hotpotqa)", "hotpotqa", commit, "cc-by-sa-4.0", "official")
    assert f'"{source}",\n' in run_file(Store(sample_store).manifest(), [origin])


def test_no_key_and_no_address_of_a_model_is_in_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    settings: Any = ("llm.base_url='http://models.example:1/v1'", "load.limit=4")
    release(build(tmp_path / "store", *settings), tmp_path / "release")
    for path in (tmp_path / "release").rglob("*"):
        assert path.is_dir() or not any(secret in path.read_bytes() for secret in (b"sk-very", b"models.example"))


@pytest.mark.parametrize(
    ("licences", "strictest"),
    [
        (["apache-2.0"], "apache-2.0"),
        (["apache-2.0", "cc-by-4.0"], "cc-by-4.0"),
        (["cc-by-4.0", "cc-by-sa-4.0", "apache-2.0"], "cc-by-sa-4.0"),
        (["mit", "cc-by-4.0"], "cc-by-4.0"),
        (["cc-by-nc-4.0"], "cc-by-nc-4.0"),
        (["cc-by-nc-4.0", "cc-by-sa-4.0"], "other"),
        (["apache-2.0", "other"], "other"),
        ([], "other"),
    ],
)
def test_texts_passed_on_together_are_under_the_strictest_licence_that_covers_all(
    licences: list[str], strictest: str
) -> None:
    assert combined(licences) == strictest


def own(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts are its own: no other source has its paragraphs or its question."""
    return json.loads(json.dumps(row).replace("Seville", f"Seville {name}").replace("Rossini", f"Rossini {name}"))  # type: ignore[no-any-return]


def sources(folder: Path, *kinds: str) -> list[str]:
    """A source of each kind, with a question and paragraphs of its own."""
    made = {"musique": rows.musique("2hop__1_2"), "2wiki": rows.two_wiki("w1"), "jsonl": rows.jsonl("j1")}
    made["hotpotqa"] = rows.hotpotqa("h1")
    names = {"musique": "Uno", "2wiki": "Due", "jsonl": "Tre", "hotpotqa": "Quattro"}
    files = {kind: rows.write_lines(folder / f"{kind}.jsonl", [own(names[kind], made[kind])]) for kind in kinds}
    return [f"{kind}={file}" for kind, file in files.items()]


def read(folder: Path, config: str) -> list[dict[str, Any]]:
    files = sorted((folder / "data" / config).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


LICENCES = {"musique": "cc-by-4.0", "hotpotqa": "cc-by-sa-4.0", "2wiki": "apache-2.0"}


@pytest.mark.parametrize("kind", list(LICENCES))
def test_a_release_of_one_public_dataset_has_its_licence_and_names_it(kind: str, tmp_path: Path) -> None:
    release(build(tmp_path / "store", sources=sources(tmp_path, kind)), tmp_path / "release")
    for config in ("trajectories", "sub_questions", "queries", "corpus"):
        assert {row["licence"] for row in read(tmp_path / "release", config)} == {LICENCES[kind]}
    card = DatasetCard.load(tmp_path / "release" / "README.md")
    assert card.data.license == LICENCES[kind]
    named = {"musique": "MuSiQue by Trivedi", "hotpotqa": "HotpotQA by Yang", "2wiki": "2WikiMultihopQA by Ho"}
    cited = {"musique": "@article{musique,", "hotpotqa": "{hotpotqa,", "2wiki": "{2wikimultihopqa,"}
    for other, text in (*named.items(), *cited.items()):
        assert (text in card.text) == (other == kind)
    assert "{stepsearch," in card.text


def test_a_row_that_shows_hotpotqas_text_is_under_its_licence_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    store = build(tmp_path / "store", sources=sources(tmp_path, "musique", "hotpotqa", "2wiki"))
    release(store, tmp_path / "release")
    of = {row["passage_id"]: row["sources"] for row in read(tmp_path / "release", "corpus")}
    for row in read(tmp_path / "release", "corpus"):
        assert row["licence"] == combined(LICENCES[kind] for kind in row["sources"])
    found = read(tmp_path / "release", "trajectories")
    assert len(found) == 3
    for row in found:
        documents = [document for step in row["rounds"] for document in (*step["documents"], *step["gold"])]
        shown = {row["source"]}.union(*(of[document["passage_id"]] for document in documents))
        assert row["licence"] == combined(LICENCES[kind] for kind in shown)
    assert {row["licence"] for row in found} == {"cc-by-sa-4.0"}  # all of them show a passage of each source
    assert {row["licence"] for row in read(tmp_path / "release", "queries")} == set(LICENCES.values())
    assert DatasetCard.load(tmp_path / "release/README.md").data.license == sorted(LICENCES.values())


def test_own_data_needs_a_word_on_its_licence(tmp_path: Path) -> None:
    store = build(tmp_path / "store", sources=sources(tmp_path, "jsonl"))
    with pytest.raises(ConfigError, match=r"source 1 \(jsonl\) is your own data") as refused:
        release(store, tmp_path / "release")
    assert "--license" in refused.value.hint
    with pytest.raises(ConfigError, match="not a licence identifier"):
        release(store, tmp_path / "release", licences={"jsonl": "my licence\n---"})
    assert not (tmp_path / "release").exists()
    release(store, tmp_path / "release", licences={"jsonl": "cc-by-nc-4.0"})
    assert {row["licence"] for row in read(tmp_path / "release", "trajectories")} == {"cc-by-nc-4.0"}


def test_a_licence_of_a_source_that_the_store_does_not_have_is_refused(tmp_path: Path) -> None:
    store = build(tmp_path / "store", sources=sources(tmp_path, "musique"))
    with pytest.raises(ConfigError, match="the store has no source jsonl") as refused:
        release(store, tmp_path / "release", licences={"jsonl": "mit"})
    assert "it has: musique" in refused.value.hint


def test_own_data_in_a_public_format_can_be_said_to_be_own(tmp_path: Path) -> None:
    store = build(tmp_path / "store", sources=sources(tmp_path, "musique"))
    release(store, tmp_path / "release", licences={"musique": "cc0-1.0"})
    assert {row["licence"] for row in read(tmp_path / "release", "corpus")} == {"cc0-1.0"}
    text = (tmp_path / "release/README.md").read_text()
    assert "The publisher's own data, given in the format musique: cc0-1.0" in text
    assert "MuSiQue by Trivedi" not in text


def test_the_sample_beside_public_data_keeps_to_the_stricter_licence(tmp_path: Path) -> None:
    (musique,) = sources(tmp_path, "musique")
    store = build(tmp_path / "store", "load.limit=3", sources=["musique=sample", musique])
    release(store, tmp_path / "release")
    assert {row["licence"] for row in read(tmp_path / "release", "trajectories")} == {"cc-by-4.0"}
    text = (tmp_path / "release/README.md").read_text()
    assert "The sample in musique's format" in text
    assert "MuSiQue by Trivedi" in text
