"""Whose weights are played, by which recipe: of a policy that was published, on a Hub on loopback or in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", "2", reason="needs the Hub's client of the extra hub")

from huggingface_hub import constants

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.evaluation.setup import Options, set_up
from stepsearch_data.evaluation.weights import find_weights
from stepsearch_data.indexes import Choice
from stepsearch_data.release.policy_card import recipe_text
from stepsearch_data.trainer.config import Chat, Limits
from stepsearch_data.trainer.recipe import Model, Recipe
from tests.hub_server import Files, Hub
from tests.release.conftest import BOB, TOKEN

POLICY = "ann/policy"
VARIABLES: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}
TRAINED = Recipe(
    store=Path("/home/ann/store"),
    template="paper",
    model=Model(path="ann/base", revision="r1", chat_turns=True, chat_template_kwargs=VARIABLES),
    limits=Limits(max_turns=2, topk=1, max_length=300),
)
WORDING = (Path(__file__).parents[2] / "stepsearch_data" / "templates" / "musique.txt").read_bytes()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the Hub's client."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(recipe: Recipe = TRAINED, **more: bytes) -> Files:
    return {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "recipe.toml": recipe_text(recipe).encode(),
        **{name.replace("_txt", ".txt"): data for name, data in more.items()},
    }


def published(hub: Hub, there: Files, **how: Any) -> str:
    return hub.repository(f"models/{POLICY}", **how).commit(there)


def played(location: str | Path, **options: Any) -> Any:
    return set_up(Options(checkpoint=str(location), **options))


def test_a_published_policy_is_played_as_it_was_trained(hub: Hub) -> None:
    commit = published(hub, files())
    setup = played(POLICY)
    assert setup.template.name == "paper"
    assert setup.limits == TRAINED.limits
    assert setup.chat == Chat(template=True, turns=True, variables=VARIABLES)
    assert setup.choice == Choice()  # its store was on another machine
    assert (setup.weights.location, setup.weights.revision, setup.weights.commit) == (POLICY, commit, commit)
    asked = [request for request in hub.requests if "/resolve/" in request]
    assert all(request.endswith("/recipe.toml") for request in asked), "weights are not needed here"


def test_what_is_named_wins(hub: Hub, tmp_path: Path) -> None:
    published(hub, files(TRAINED.model_copy(update={"template": "/home/ann/gone.txt"})))
    setup = played(POLICY, template="musique", lengths={"topk": 3}, choice=Choice(store=tmp_path))
    assert (setup.template.name, setup.limits.topk, setup.limits.max_turns) == ("musique", 3, 2)
    assert setup.choice.store == tmp_path


@pytest.mark.parametrize("template", ["template.txt", "[own].txt", "/home/ann/template.txt", "../../template.txt"])
def test_a_template_of_its_own_is_fetched_from_where_the_recipe_is(
    hub: Hub,
    cache: Path,
    template: str,
) -> None:
    recipe = recipe_text(TRAINED).replace('template = "paper"', f'template = "{template}"')
    there = {**files(), "recipe.toml": recipe.encode(), Path(template).name: WORDING}
    published(hub, there)
    setup = played(POLICY)
    assert Path(setup.template.name).is_relative_to(cache)
    assert setup.template.parts["user"] in WORDING.decode()


def test_a_template_that_is_not_there_is_named(hub: Hub) -> None:
    published(hub, files(TRAINED.model_copy(update={"template": "/home/ann/gone.txt"})))
    with pytest.raises(ConfigError, match=r"ann/policy was trained with the template gone\.txt, which") as refused:
        played(POLICY)
    assert "--template" in refused.value.hint
    assert "beside its recipe.toml" in refused.value.hint


def test_a_revision_is_honoured(hub: Hub) -> None:
    """A tag, a commit, or the newest one; also after the client has kept another one."""
    first = published(hub, files())
    hub.repositories[f"models/{POLICY}"].tags["v1"] = first
    assert played(POLICY).weights.commit == first
    second = published(hub, files(TRAINED.model_copy(update={"template": "musique"})))
    found = {revision: played(POLICY + revision) for revision in ("", "@main", "@v1", f"@{first}")}
    assert {revision: setup.weights.commit for revision, setup in found.items()} == {
        "": second, "@main": second, "@v1": first, f"@{first}": first,
    }  # fmt: skip
    assert {revision: setup.template.name for revision, setup in found.items()} == {
        "": "musique", "@main": "musique", "@v1": "paper", f"@{first}": "paper",
    }  # fmt: skip


def test_without_a_network_it_is_played_from_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    published(hub, files())
    before = played(POLICY)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert played(POLICY) == before
    with pytest.raises(ConfigError, match="ann/other is not a folder, and cannot be fetched from the Hub"):
        played("ann/other")


def test_a_model_without_a_recipe_is_played_by_default(hub: Hub) -> None:
    commit = published(hub, {"config.json": b"{}"})
    setup = played(POLICY)
    assert (setup.template.name, setup.limits, setup.chat) == ("musique", Limits(), Chat())
    assert setup.weights.commit == commit


def test_an_adapter_is_loaded_from_a_folder_on_the_revision_of_its_base(hub: Hub) -> None:
    """By its name, the base would be sought at the adapter's own commit."""
    adapter = {"adapter_config.json": b'{"base_model_name_or_path": "ann/base"}', "adapter_model.safetensors": b"a"}
    commit = published(hub, {**adapter, "recipe.toml": files()["recipe.toml"]})
    weights = find_weights(POLICY)
    assert (weights.name, weights.revision, weights.commit) == (POLICY, "r1", commit)
    assert (Path(weights.location) / "adapter_model.safetensors").read_bytes() == b"a"


def test_what_is_not_there_or_not_allowed_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    published(hub, files(), token=TOKEN)
    with pytest.raises(ConfigError, match="ann/policy is not a folder, and cannot be fetched") as missing:
        played(f"{POLICY}@v9")
    assert "USER/NAME@REVISION" in missing.value.hint
    monkeypatch.setenv("HF_TOKEN", BOB)
    with pytest.raises(ConfigError, match="Repository Not Found") as hidden:
        played(POLICY)
    assert BOB not in hidden.value.message + hidden.value.hint
    with pytest.raises(ConfigError, match="names no best checkpoint"):
        played(POLICY, best=True)


UNREADABLE = [b"[model]\npath = 'm'\nsoul = 1", b"[model", b"\xff", b"[model]\npath = 'm'\n[limits]\ntopk = 0"]


@pytest.mark.parametrize("recipe", UNREADABLE)
def test_a_recipe_of_another_version_is_refused(hub: Hub, recipe: bytes) -> None:
    published(hub, {**files(), "recipe.toml": recipe})
    with pytest.raises(ConfigError, match=r"this version cannot read .*recipe\.toml") as refused:
        played(POLICY)
    assert "copy the repository to a folder" in refused.value.hint


def test_a_copy_of_the_repository_is_played_in_the_same_way(tmp_path: Path) -> None:
    """Even inside of a run, whose own recipe is another one."""
    copy = tmp_path / "run" / "copy"
    copy.mkdir(parents=True)
    own = TRAINED.model_copy(update={"template": "/home/ann/template.txt"})
    for name, data in files(own, template_txt=WORDING).items():
        (copy / name).write_bytes(data)
    other = Recipe(store=tmp_path / "store", template="tools", model=Model(path="m"))
    (copy.parent / "recipe.json").write_text(other.model_dump_json())
    setup = played(copy)
    assert setup.template.name == str(copy / "template.txt")
    assert (setup.limits, setup.chat.turns, setup.choice) == (TRAINED.limits, True, Choice())
    assert setup.weights.commit is None
    (copy / "template.txt").unlink()
    with pytest.raises(ConfigError, match=r"was trained with the template template\.txt, which is not there"):
        played(copy)


def test_a_run_whose_template_is_gone_says_so(tmp_path: Path) -> None:
    policy = tmp_path / "checkpoint-000001" / "policy"
    policy.mkdir(parents=True)
    (policy / "config.json").write_text(json.dumps({}))
    gone = Recipe(store=tmp_path / "store", template=str(tmp_path / "gone.txt"), model=Model(path="m"))
    (tmp_path / "recipe.json").write_text(gone.model_dump_json())
    with pytest.raises(ConfigError, match=r"was trained with the template gone\.txt") as refused:
        played(tmp_path)
    assert "put it in its place" in refused.value.hint
    setup = played(tmp_path, template="paper")
    assert (setup.template.name, setup.choice.store) == ("paper", tmp_path / "store")
