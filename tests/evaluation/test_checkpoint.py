"""`eval` of a checkpoint: a tiny model that knows eight trajectories by heart plays them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.evaluation.setup import Options, set_up
from stepsearch_data.evaluation.weights import find_checkpoint
from stepsearch_data.indexes import Choice
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.config import Chat
from stepsearch_data.trainer.data import demonstration, load_examples, subsample
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer
from tests.conftest import run_cli
from tests.evaluation.learnt import FEW, KNOWN, TEMPLATE, ask, learn, make_chats, rollouts, save, whole, write_recipe


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, whose newest checkpoint has learnt the drawn questions by heart and the older one nothing."""
    template = load_template(str(TEMPLATE))
    examples = subsample(load_examples(Store.open(store), "train"), KNOWN)
    tokenizer = make_tokenizer(text for each in examples for text, _ in demonstration(each, template))
    model = make_model(tokenizer, width=32, layers=2)
    folder = tmp_path_factory.mktemp("run")
    save(folder / "checkpoint-000009", model, tokenizer)
    learn(model, tokenizer, examples, template, Chat(), 80)
    save(folder / "checkpoint-000010", model, tokenizer)
    write_recipe(folder, store, str(TEMPLATE), Chat(), max_length=400)
    return folder


def test_the_newest_checkpoint_of_a_run_plays_what_it_has_learnt(run: Path, store: Path, tmp_path: Path) -> None:
    report = ask(run, output=tmp_path)
    found = whole(report)
    assert (found["em"], found["support_recall"], found["format_errors"]) == (1, 1, 0)
    assert found["ended"]["answer"] == 1
    assert report.settings["model"] == str(run / "checkpoint-000010" / "policy")
    assert found["own_tokens"] * KNOWN == report.usage["own_tokens"]
    template = load_template(str(TEMPLATE))
    golds = [demonstration(each, template)[1:] for each in subsample(load_examples(Store.open(store), "train"), KNOWN)]
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [row["response"] for row in rows] == ["".join(text for text, _ in parts) for parts in golds]


@pytest.fixture(scope="module")
def chats(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chats(store, tmp_path_factory.mktemp("chats"))


def test_a_run_in_tags_in_a_chat_is_played_in_one(chats: Path, tmp_path: Path) -> None:
    found = whole(ask(chats / "turns", limit=FEW, output=tmp_path))
    assert (found["em"], found["support_recall"], found["format_errors"], found["invalid_turns"]) == (1, 1, 0, 0)
    assert all(isinstance(row["response"], str) for row in rollouts(tmp_path))


def test_a_run_by_calls_is_played_by_calls(chats: Path, tmp_path: Path) -> None:
    found = whole(ask(chats / "tools", limit=FEW, output=tmp_path))
    assert (found["em"], found["support_recall"], found["format_errors"], found["invalid_turns"]) == (1, 1, 0, 0)
    for row in rollouts(tmp_path):
        calls = [call["function"] for message in row["response"] for call in message.get("tool_calls", ())]
        assert [json.loads(call["arguments"])["query"] for call in calls] == [each["query"] for each in row["searches"]]
        assert [message["role"] for message in row["response"]] == ["assistant", "tool"] * len(calls) + ["assistant"]
    scored = run_cli("score", tmp_path / "rollouts.jsonl", "--json")
    assert scored.returncode == 0, scored.stderr
    rewards = [json.loads(line) for line in scored.stdout.splitlines()]
    assert [len(each["information_gain"]) for each in rewards] == [len(row["searches"]) for row in rollouts(tmp_path)]
    assert all(each["search_key_score"] == 1 for each in rewards)


@pytest.mark.long
def test_rollouts_by_calls_are_kept_in_a_store(chats: Path, store: Path, tmp_path: Path) -> None:
    kept = tmp_path / "store"
    shutil.copytree(store, kept)
    asked = ("--store", kept, "--split", "train", "--limit", str(FEW), "--samples", "1", "--temperature", "0")
    done = run_cli("rollouts", chats / "tools", *asked, "--policy", "caller", "--quiet")
    assert done.returncode == 0, done.stderr
    sql = 'SELECT count(*), bool_and("right"), sum(searches) = (SELECT count(*) FROM rollout_turns) FROM rollouts'
    told = run_cli("sql", "--store", kept, sql, "-f", "csv").stdout.splitlines()
    assert told[1] == f"{FEW},true,true"


def test_a_checkpoint_without_a_chat_template_calls_nothing(run: Path) -> None:
    with pytest.raises(ConfigError, match="the template tools calls a tool, but the model has no chat template"):
        ask(run, template="tools")


def test_the_best_checkpoint_of_a_run_is_asked_where_it_is_wanted(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    with pytest.raises(ConfigError, match="names no best checkpoint") as refused:
        find_checkpoint(str(copy), best=True)
    assert "held-out questions" in refused.value.hint
    (copy / "best.json").write_text('{"update": 9, "eval_em": 0.5}')
    assert find_checkpoint(str(copy), best=True) == str(copy / "checkpoint-000009" / "policy")
    assert find_checkpoint(str(copy)) == str(copy / "checkpoint-000010" / "policy")
    asked = run_cli("eval", copy, "--best", "--split", "train", "--limit", "1", "--dry-run")
    assert asked.returncode == 0, asked.stderr
    (copy / "best.json").write_text('{"update": "soon"}')
    with pytest.raises(ConfigError, match="does not name a checkpoint: update: "):
        find_checkpoint(str(copy), best=True)
    with pytest.raises(ConfigError, match="--best chooses a checkpoint"):
        set_up(Options(llm="m", best=True))


def test_more_samples_are_other_rollouts(run: Path, tmp_path: Path) -> None:
    """Also where a run that goes on begins with the same prompts as the first one did."""
    policy = run / "checkpoint-000009"
    for samples in (2, 4):
        report = ask(policy, limit=2, samples=samples, temperature=1.0, output=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in rows] == [1, 2, 1, 2, 3, 4, 3, 4]
    assert len({(row["id"], row["response"]) for row in rows}) == len(rows) == whole(report)["rollouts"]
    assert whole(report)["questions"] == 2


def test_batches_change_nothing(run: Path, tmp_path: Path) -> None:
    one, many = ask(run, batch=1, output=tmp_path / "one"), ask(run, batch=5, output=tmp_path / "many")
    assert one.measures == many.measures
    assert (tmp_path / "one" / "rollouts.jsonl").read_bytes() == (tmp_path / "many" / "rollouts.jsonl").read_bytes()


def test_sampling_repeats_by_its_seed(run: Path, tmp_path: Path) -> None:
    def texts(name: str, seed: int) -> bytes:
        older = run / "checkpoint-000009"
        ask(older, temperature=1.0, seed=seed, output=tmp_path / name)
        return (tmp_path / name / "rollouts.jsonl").read_bytes()

    assert texts("a", 1) == texts("b", 1) != texts("c", 2)


def test_an_untrained_policy_is_told_of(run: Path) -> None:
    report = ask(run / "checkpoint-000009" / "policy")
    assert whole(report)["em"] == 0
    assert report.notes()[0].startswith("none of the 8 rollouts ends with an answer")


def test_what_was_played_is_not_played_again(run: Path, tmp_path: Path) -> None:
    first = ask(run, output=tmp_path, limit=3)
    rows = (tmp_path / "rollouts.jsonl").read_bytes()
    again = ask(run, output=tmp_path)
    assert (whole(first)["questions"], whole(again)["questions"]) == (3, KNOWN)
    assert (tmp_path / "rollouts.jsonl").read_bytes().startswith(rows)
    assert again.usage["own_tokens"] < whole(again)["own_tokens"] * KNOWN


def test_a_run_tells_what_it_was_trained_with_and_what_is_named_wins(run: Path, store: Path) -> None:
    report = ask(run, limit=1)
    assert report.settings["limits"] == {
        "max_turns": 5, "topk": 1, "max_length": 400, "max_new_tokens": 60, "max_obs_length": 600,
    }  # fmt: skip
    assert report.settings["template"].startswith(str(TEMPLATE))
    assert report.settings["questions"] == f"{store}:train"
    named = ask(run, limit=1, lengths={"max_turns": 0}, template="paper", choice=Choice(store=store))
    assert named.settings["limits"] == {**report.settings["limits"], "max_turns": 0}
    assert named.settings["template"].startswith("paper ")


def test_a_recipe_that_cannot_be_read(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").write_text('{"modle": 1}')
    with pytest.raises(StepSearchError, match=r"recipe\.json is not a recipe of this version"):
        ask(tmp_path / "run")


def test_weights_that_changed_are_another_policy(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    ask(tmp_path / "run", limit=1, output=tmp_path / "out")
    (tmp_path / "run" / "checkpoint-000010" / "policy" / "model.safetensors").touch()
    with pytest.raises(StepSearchError, match="holds another evaluation: stamp"):
        ask(tmp_path / "run", limit=1, output=tmp_path / "out")


def test_a_folder_that_is_no_language_model(store: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(StepSearchError, match="cannot load") as failed:
        ask(tmp_path, choice=Choice(store=store))
    assert "\n" not in failed.value.message


def test_memory_that_runs_out_is_explained(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = torch.nn.Embedding.forward

    def full(self: Any, tokens: Any) -> Any:
        if len(tokens) == 8:
            raise torch.OutOfMemoryError("no room")
        return embed(self, tokens)

    monkeypatch.setattr(torch.nn.Embedding, "forward", full)  # a device's memory cannot be filled in a test
    with pytest.raises(StepSearchError, match="does not hold 8 rollouts at once") as failed:
        ask(run)
    assert "--batch" in failed.value.hint


def test_the_verb_takes_a_run(run: Path) -> None:
    done = run_cli("eval", run, "--split", "train", "-n", str(KNOWN), "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:3] == ["all", "8", "1.000"]
    assert done.stderr == ""
