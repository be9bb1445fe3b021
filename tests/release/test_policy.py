"""A run's policy on a Hub on loopback, by the real client: its files and its card, and nothing of this machine."""

from __future__ import annotations

import json
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepsearch_data import templates
from stepsearch_data.pipeline.store import Store
from stepsearch_data.trainer.recipe import Model, Recipe, load_recipe
from stepsearch_data.trainer.run_folder import Best, RunInfo
from tests.hub_server import Fault, Files, Hub
from tests.release.conftest import BOB, READ, Command, Said

POLICY = "ann/policy"
WORDING = (Path(templates.__path__[0]) / "musique.txt").read_bytes()


@pytest.fixture
def run(tmp_path: Path, small_store: Path) -> Path:
    """What `train` leaves: two checkpoints, of which the older one is the best, metrics and a recipe."""
    folder = tmp_path / "runs" / "steppo"
    for update in (10, 20):
        policy = folder / f"checkpoint-{update:06}" / "policy"
        policy.mkdir(parents=True)
        (policy / "config.json").write_text('{"model_type": "llama"}')
        (policy / "model.safetensors").write_bytes(b"weights %d" % update)
        (policy / "tokenizer.json").write_text("{}")
        (policy.parent / "update.json").write_text(json.dumps({"update": update}))
        (policy.parent / "state").mkdir()
        (policy.parent / "state" / "optimizer.bin").write_bytes(b"not for others")
    lines = [{"update": at, "reward": at / 20, "kl": 0.0, "searches": 2.0} for at in range(1, 21)]
    lines[9]["eval_em"], lines[19]["eval_em"] = 0.5, 0.25
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = Recipe(store=small_store, output=folder, template="paper", model=Model(path="base/model"))
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    info = RunInfo(variant="paper", store=Store(small_store).digest(), held_out=40)
    (folder / "run.json").write_text(info.model_dump_json())
    (folder / "best.json").write_text(Best(update=10, eval_em=0.5).model_dump_json())
    return folder


@pytest.fixture
def push(command: Command, run: Path) -> Command:
    def pushed(*arguments: str | Path, **how: Any) -> Said:
        return command("publish", POLICY, "--run", run, "--yes", "--patience", "1", *arguments, **how)

    return pushed


def on_hub(hub: Hub) -> Files:
    return {path: data for path, data in hub.repositories[f"models/{POLICY}"].head.items() if path != ".gitattributes"}


def front_matter(card: bytes) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.decode().split("---\n")[1])
    return found


def test_the_newest_policy_and_its_card_are_one_commit(hub: Hub, push: Command, run: Path, small_store: Path) -> None:
    said = push("--tag", "v1.0.0")
    assert said.code == 0, said.text
    assert said.out.splitlines()[-2:] == [
        f"{hub.endpoint}/{POLICY}/tree/v1.0.0",
        f'AutoModelForCausalLM.from_pretrained("{POLICY}", revision="v1.0.0")',
    ]
    repository, files = hub.repositories[f"models/{POLICY}"], on_hub(hub)
    assert repository.messages == ["initial commit", "Policy v1.0.0"]
    assert repository.tags == {"v1.0.0": repository.branches["main"]}
    drawn = {"curves.png"} if find_spec("vl_convert") else set()
    assert files.keys() - drawn == {
        *("config.json", "model.safetensors", "tokenizer.json"),
        *("README.md", "metrics.jsonl", "recipe.toml", "training.json"),
    }
    assert files["model.safetensors"] == b"weights 20"
    assert files["metrics.jsonl"] == (run / "metrics.jsonl").read_bytes()
    for place in (str(run.parents[1]), str(small_store)):
        assert not [path for path, data in files.items() if place.encode() in data]
    card = front_matter(files["README.md"])
    assert (card["base_model"], card["license"], card["library_name"]) == ("base/model", "unknown", "transformers")
    (result,) = card["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "exact_match", "value": 0.25, "name": "exact match (95 %: 0.142 to 0.402)"}]
    text = files["README.md"].decode()
    assert f"SHA-256 `{Store(small_store).digest()}`" in text
    assert "after update 20" in text
    assert "stepsearch-data eval ann/policy" in text


def test_its_recipe_can_be_read_again(hub: Hub, push: Command, run: Path, tmp_path: Path) -> None:
    assert push().code == 0
    (tmp_path / "recipe.toml").write_bytes(on_hub(hub)["recipe.toml"])
    told = load_recipe(tmp_path / "recipe.toml")
    kept = Recipe.model_validate_json((run / "recipe.json").read_bytes())
    same = {"store", "output"}
    assert told.model_dump(exclude=same) == kept.model_dump(exclude=same)
    assert told.store == tmp_path / kept.store.name


@pytest.mark.long
def test_the_best_policy_with_its_evaluation_and_its_data(
    hub: Hub, command: Command, push: Command, run: Path, small_store: Path, tmp_path: Path
) -> None:
    release = ("--tag", "v1", "--yes", "--patience", "1", "--store", small_store, "--output", tmp_path / "release")
    assert command("publish", "ann/data", *release).code == 0
    measured = {"questions": 100, "em": 0.14, "em_interval": [0.08, 0.21], "f1": 0.17, "f1_interval": [0.1, 0.25]}
    model = str(run / "checkpoint-000010" / "policy")
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "metrics.json").write_text(
        json.dumps({"settings": {"model": model}, "by_source": {"musique": measured}})
    )
    other = push("--evaluation", tmp_path / "evals")
    assert (other.code, "is the evaluation of another policy" in other.err) == (1, True)
    said = push("--best", "--evaluation", tmp_path / "evals", "--data", "ann/data@v1")
    assert said.code == 0, said.text
    assert on_hub(hub)["model.safetensors"] == b"weights 10"
    card = front_matter(on_hub(hub)["README.md"])
    assert card["datasets"] == ["ann/data"]
    held_out, musique = card["model-index"][0]["results"]
    assert held_out["metrics"][0]["value"] == 0.5
    assert musique["dataset"] == {"name": "musique", "type": "ann/data"}
    assert [metric["name"] for metric in musique["metrics"]] == [
        "exact match (95 %: 0.080 to 0.210)",
        "F1 (95 %: 0.100 to 0.250)",
    ]


@pytest.mark.parametrize(
    "told", ["", "[]", '{"settings": {"model": 1}, "by_source": {}}', '{"settings": {"model": "m"}, "by_source": []}']
)
def test_what_is_no_evaluation_is_refused(hub: Hub, push: Command, tmp_path: Path, told: str) -> None:
    (tmp_path / "metrics.json").write_text(told)
    said = push("--evaluation", tmp_path)
    assert (said.code, "holds no finished evaluation" in said.err) == (1, True)
    assert not hub.repositories


def test_data_of_another_store_are_not_claimed(
    hub: Hub, command: Command, push: Command, other_store: Path, tmp_path: Path
) -> None:
    release = ("--yes", "--patience", "1", "--store", other_store, "--output", tmp_path / "release")
    assert command("publish", "ann/data", *release).code == 0
    said = push("--data", "ann/data")
    assert (said.code, "ann/data is not the release of the store" in said.err) == (1, True)
    assert f"models/{POLICY}" not in hub.repositories


def test_again_it_changes_nothing_and_another_policy_replaces_it(hub: Hub, push: Command) -> None:
    assert push().code == 0
    again = push()
    assert (again.code, "all of it is there already" in again.out) == (0, True)
    repository = hub.repositories[f"models/{POLICY}"]
    assert len(repository.commits) == 2
    repository.commit({**repository.head, "model-00002.safetensors": b"of an earlier one"})
    assert push("--best").code == 0
    assert on_hub(hub)["model.safetensors"] == b"weights 10"
    assert "model-00002.safetensors" not in on_hub(hub)


def test_what_somebody_else_has_there_stays(hub: Hub, push: Command) -> None:
    hub.repository(f"models/{POLICY}").commit({"model.safetensors": b"another"})
    said = push()
    assert (said.code, "holds data that no release wrote: model.safetensors" in said.err) == (1, True)
    assert on_hub(hub) == {"model.safetensors": b"another"}


def test_an_adapter_whose_base_is_gone_is_not_published(hub: Hub, push: Command, run: Path, tmp_path: Path) -> None:
    """Nobody could use it, and its configuration names a folder of this machine."""
    adapter = run / "checkpoint-000020" / "policy" / "adapter_config.json"
    adapter.write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "cold-start")}))
    said = push()
    assert (said.code, "is an adapter for" in said.err, "which is gone" in said.err) == (1, True, True)
    assert not hub.repositories


@pytest.mark.parametrize(
    ("template", "searches"), [("tools", "It calls the function `search`"), ("gone.txt", "It writes `<search>")]
)
def test_the_card_says_how_the_policy_searches(
    hub: Hub, push: Command, run: Path, template: str, searches: str
) -> None:
    recipe = Recipe.model_validate_json((run / "recipe.json").read_bytes())
    changed = {"template": template, "model": Model(path="gpt2")}
    (run / "recipe.json").write_text(recipe.model_copy(update=changed).model_dump_json())
    assert push().code == 0
    card = on_hub(hub)["README.md"]
    assert searches in card.decode()
    assert front_matter(card)["base_model"] == "gpt2"


def test_a_template_of_its_own_is_sent_with_it(hub: Hub, push: Command, run: Path, tmp_path: Path) -> None:
    """Under a name of ours, which no file of a model has; one that is gone is told of."""
    own = tmp_path / "config.json"
    own.write_bytes(WORDING)
    recipe = Recipe.model_validate_json((run / "recipe.json").read_bytes())
    (run / "recipe.json").write_text(recipe.model_copy(update={"template": str(own)}).model_dump_json())
    assert push().code == 0
    assert on_hub(hub)["template.txt"] == WORDING
    assert tomllib.loads(on_hub(hub)["recipe.toml"].decode())["template"] == "template.txt"
    assert "is not here" not in on_hub(hub)["README.md"].decode()
    own.unlink()
    assert push().code == 0
    assert "template.txt" not in on_hub(hub)
    assert "its template `config.json` is not here" in on_hub(hub)["README.md"].decode()


def test_a_dry_run_sends_nothing(hub: Hub, push: Command, run: Path) -> None:
    said = push("--dry-run")
    assert said.code == 0, said.text
    assert "ann/policy is made first" in said.out
    assert not hub.repositories
    assert (run.parent / "steppo.policy" / "README.md").is_file()


@pytest.mark.parametrize("token", [READ, BOB, "hf_nobodysTokenThatIsNotKnown"])
def test_a_token_that_may_not_write_is_refused_first(hub: Hub, push: Command, run: Path, token: str) -> None:
    said = push(token=token)
    assert said.code == 1
    assert token not in said.text
    assert not hub.repositories
    assert not (run.parent / "steppo.policy").exists()


def test_a_lost_answer_is_looked_up(hub: Hub, push: Command) -> None:
    hub.fail("commit", Fault(503, landed=True), times=9)
    assert push().code == 0
    assert on_hub(hub)["model.safetensors"] == b"weights 20"


def test_a_variable_that_names_a_store_does_not_matter(
    hub: Hub, push: Command, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPSEARCH_STORE", str(small_store))
    assert push().code == 0
    assert on_hub(hub)["model.safetensors"] == b"weights 20"


def test_it_is_private_where_it_is_to_be(hub: Hub, push: Command) -> None:
    assert push("--private").code == 0
    assert hub.repositories[f"models/{POLICY}"].token


def test_what_means_nothing_is_refused(push: Command, command: Command, small_store: Path, tmp_path: Path) -> None:
    for flag in (("--store", str(small_store)), ("--traces",), ("--allow-paths",)):
        said = push(*flag)
        assert (said.code, f"{flag[0]} means nothing with --run" in said.err) == (2, True)
    said = command("publish", POLICY, "--best", "--dry-run", "--store", small_store)
    assert (said.code, "--best means nothing without --run" in said.err) == (2, True)
    said = command("publish", POLICY, "--run", tmp_path / "none", "--dry-run")
    assert (said.code, "is not a folder" in said.err) == (2, True)
    said = command("publish", f"{POLICY}@v1", "--run", tmp_path / "none", "--dry-run")
    assert (said.code, "--tag v1" in said.err) == (2, True)
