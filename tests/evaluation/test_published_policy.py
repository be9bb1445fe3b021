"""A policy that was published plays as it did in its run: from the Hub, and from a copy of its repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")
pytest.importorskip("huggingface_hub", "2", reason="needs the Hub's client of the extra hub")

from huggingface_hub import constants

from stepsearch_data.core.errors import StepSearchError
from stepsearch_data.evaluation.weights import find_weights
from stepsearch_data.indexes import Choice
from stepsearch_data.release.policy import write_policy
from stepsearch_data.release.policy_card import Card
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer
from stepsearch_data.trainer.loading import load_model, load_policy
from stepsearch_data.trainer.recipe import Model, Recipe
from stepsearch_data.trainer.run_folder import RunInfo
from tests.conftest import run_cli
from tests.evaluation.learnt import FEW, ask, make_chats, rollouts, whole
from tests.hub_server import Files, Hub
from tests.release.conftest import TOKEN

POLICY = "ann/policy"


@pytest.fixture(scope="module")
def chats(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chats(store, tmp_path_factory.mktemp("chats"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of the Hub's client is the test's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def written(run: Path, folder: Path) -> Path:
    """What `publish --run` writes for the Hub."""
    (run / "checkpoint-000001" / "update.json").write_text('{"update": 1}')
    (run / "metrics.jsonl").write_text(json.dumps({"update": 1, "reward": 0.5}) + "\n")
    (run / "run.json").write_text(RunInfo(variant="paper").model_dump_json())
    return write_policy(run, folder, Card(POLICY, "v1")).folder


def files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["turns", "tools"])
def test_it_plays_as_its_run_does(hub: Hub, chats: Path, store: Path, tmp_path: Path, form: str) -> None:
    """In messages, and by the calls of a template of its own, which its repository has."""
    asked = {"limit": FEW, "choice": Choice(store=store)}
    ask(chats / form, **asked, output=tmp_path / "run")
    folder = written(chats / form, tmp_path / "published")
    repository = hub.repository(f"models/{POLICY}")
    commit = repository.commit(files(folder))
    repository.tags["v1"] = commit
    report = ask(f"{POLICY}@v1", **asked, output=tmp_path / "hub")
    assert whole(report)["em"] == 1
    assert rollouts(tmp_path / "hub") == rollouts(tmp_path / "run")
    assert (report.settings["model"], report.settings["commit"]) == (POLICY, commit)
    ask(folder, **asked, output=tmp_path / "copy")
    assert rollouts(tmp_path / "copy") == rollouts(tmp_path / "run")
    newer = repository.commit({**files(folder), "README.md": b"another card"})
    assert ask(f"{POLICY}@v1", **asked, output=tmp_path / "hub").settings["commit"] == commit
    with pytest.raises(StepSearchError, match=f"holds another evaluation: commit {commit} → {newer}"):
        ask(POLICY, **asked, output=tmp_path / "hub")


@pytest.mark.long
def test_its_rollouts_are_kept_in_a_store(hub: Hub, chats: Path, store: Path, tmp_path: Path) -> None:
    hub.repository(f"models/{POLICY}").commit(files(written(chats / "tools", tmp_path / "published")))
    shutil.copytree(store, tmp_path / "store")
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    how = ("--split", "train", "--limit", str(FEW), "--samples", "1", "--temperature", "0", "--quiet", "--json")
    done = run_cli("rollouts", POLICY, "--store", tmp_path / "store", *how, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert (found["policy"], found["rollouts"], found["pass_rate"]) == ("policy", FEW, 1)


def test_an_adapter_is_loaded_on_the_revision_of_its_base(hub: Hub, tmp_path: Path) -> None:
    """The newest base is another model than the one that it was trained on."""
    tokenizer = make_tokenizer(["a question", "an answer"])
    model = make_model(tokenizer, width=16, layers=1)
    tokenizer.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "base")
    base = hub.repository("models/ann/base")
    base.tags["r1"] = base.commit(files(tmp_path / "base"))
    wanted = {name: weight.clone() for name, weight in model.named_parameters()}
    lora = Model(path=str(tmp_path / "base"), revision="r1", lora_rank=2)
    adapter, _ = load_policy(lora.path, Recipe(model=lora))
    adapter.save_pretrained(tmp_path / "adapter")
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert told["revision"] == "r1"  # for those who load it without a recipe
    there = files(tmp_path / "adapter") | {
        "adapter_config.json": json.dumps({**told, "base_model_name_or_path": "ann/base"}).encode(),
        "recipe.toml": b"[model]\npath = 'ann/base'\nrevision = 'r1'\nlora_rank = 2\n",
    }
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    model.save_pretrained(tmp_path / "base")
    base.commit(files(tmp_path / "base"))
    hub.repository(f"models/{POLICY}").commit(there)
    weights = find_weights(POLICY)
    loaded = load_model(weights.location, weights.revision)
    found = {name.replace(".base_layer", ""): weight for name, weight in loaded.named_parameters()}
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
