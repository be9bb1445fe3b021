"""The check of a recipe: what it finds in a training that would work, and in those that would not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from stepsearch_data.core.errors import SearchError, StepSearchError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.synth import WorldConfig, write_world
from stepsearch_data.templates.examples import Example, Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer import demo
from stepsearch_data.trainer.check import Finding, check
from stepsearch_data.trainer.data import demonstration, load_examples
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer
from stepsearch_data.trainer.recipe import load_recipe
from stepsearch_data.trainer.rollout import Retrieve
from tests.conftest import run_cli
from tests.trainer.test_launch import RECIPE, launch

TEMPLATE = Path(demo.__path__[0]) / "template.txt"
PARTS = ["questions", "retriever", "cold start", "model", "tokens"]
PLAYED = ["format", "searches", "lengths", "rewards", "update", "memory"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds out questions, a tiny model and a recipe, whose cold start has learnt the format."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("check")
    write_world(WorldConfig(24, 100, 1, 6, 1), folder / "world.jsonl")
    source = ("--source", f"musique={folder / 'world.jsonl'}", "--set", "trajectories.documents=1")
    built = run_cli("build", "--store", folder / "store", *source, "--set", "quality.validation=0.3", "--quiet")
    assert built.returncode in {0, 3}, built.stderr
    template = load_template(str(TEMPLATE))
    examples = load_examples(Store.open(folder / "store"), None)
    tokenizer = make_tokenizer(text for each in examples for text, _ in demonstration(each, template))
    make_model(tokenizer, width=32, layers=2).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "words.txt").write_text(TEMPLATE.read_text())
    recipe = RECIPE.format(model=folder / "model").replace("max_turns = 3", "max_turns = 5")
    recipe = recipe.replace("max_steps = 4", "max_steps = 400")
    recipe = recipe.replace("learning_rate = 1e-3", "learning_rate = 1e-2", 1)  # the cold start's
    (folder / "tiny.toml").write_text(recipe)
    launch(folder / "tiny.toml", folder / "store", folder / "run", "schedule.num_updates=0")
    return folder


@pytest.fixture(scope="module")
def documents(world: Path) -> Retrieve:
    """The store's gold paragraphs by shared words."""
    paragraphs = [gold for each in load_examples(Store.open(world / "store"), None) for gold in each.gold]

    def retrieve(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        def shared(query: str, paragraph: Paragraph) -> int:
            return len(set(re.findall(r"\w+", query)) & set(re.findall(r"\w+", f"{paragraph.title} {paragraph.text}")))

        return [sorted(paragraphs, key=lambda each: -shared(query, each))[:k] for query in queries]

    return retrieve


def found(world: Path, retrieve: Retrieve, *settings: str) -> dict[str, Finding]:
    """What a check of the recipe finds, by what was looked at."""
    given = [f"store={world / 'store'}", f"output={world / 'run'}", *settings]
    return {each.what: each for each in check(load_recipe(world / "tiny.toml", given), retrieve)}


def test_a_training_that_works(world: Path, documents: Retrieve) -> None:
    """All is good, and nothing is written: not even where the rollouts fail."""
    before = sorted(world.rglob("*"))
    told = found(world, documents)
    assert list(told) == [*PARTS, *PLAYED]
    assert {what: each.found for what, each in told.items() if each.state != "good"} == {}
    assert re.fullmatch(
        r"\d+ to train on, \d+ with gold paragraphs, \d+ with search keys; \d+ to hold out", told["questions"].found
    )
    assert "gold trajectories are read to their end" in told["tokens"].found
    assert sorted(world.rglob("*")) == before


def test_the_command_tells_and_says_by_its_exit_code(world: Path) -> None:
    given = ("--config", world / "tiny.toml", "--store", world / "store", "--output", world / "run", "--quiet")
    good = run_cli("train", *given, "--check")
    assert (good.returncode, good.stderr) == (0, "")
    assert [line.split("  ")[0].split()[0] for line in good.stdout.splitlines()] == ["good"] * len([*PARTS, *PLAYED])
    bad = run_cli("train", *given, "--check", "--json", "--set", "model.path=nowhere", "--output", world / "other")
    assert bad.returncode == 1
    told = json.loads(bad.stdout)
    assert not told["ok"]
    assert [each["state"] for each in told["findings"]] == ["good", "good", "look", "bad"]
    assert "cannot load nowhere" in told["findings"][-1]["found"]


def test_a_retriever_that_is_down_finds_nothing_or_something_else(world: Path, documents: Retrieve) -> None:
    def down(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        raise SearchError("the engine does not answer", "start it")

    told = found(world, down)
    assert list(told) == ["questions", "retriever"]
    assert told["retriever"] == Finding("retriever", "bad", "the engine does not answer", "start it")
    told = found(world, lambda queries, _: [[] for _ in queries])
    assert (list(told)[-1], told["retriever"].state) == ("retriever", "bad")
    told = found(world, lambda queries, _: [[Paragraph("Nothing", "Of the kind.")] for _ in queries])
    assert (told["retriever"].state, "find 0 of " in told["retriever"].found) == ("look", True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["schedule.rollout_batch_size=5"], "5 rollouts cannot be cut"),
        (["vllm.mode=colocate", "schedule.overlap=true"], "schedule.overlap does not run"),
        (["report_to=paper"], "report_to paper is unknown"),
        (["sft.learning_rate=0.5"], "was made with another"),
        (["schedule.early_stop=2", "schedule.eval_steps=0"], "without evaluations"),
        (["schedule.early_stop=2", "held_out=0"], "without evaluations"),
        (["ppo.group_size=3"], "cannot be cut into groups of 3 on 1 processes"),
        (["ppo.group_size=4", "critic=model"], "critic has no effect with ppo.group_size"),
        (["ppo.group_size=4", "ppo.lam=0.9"], "ppo.lam and ppo.turn_level_gae have no effect"),
        (["ppo.group_size=4", "ppo.turn_level_gae=true"], "ppo.lam and ppo.turn_level_gae have no effect"),
    ],
)
def test_what_training_refuses_at_once_is_refused(
    world: Path, documents: Retrieve, settings: list[str], said: str
) -> None:
    """Though the two updates have other sizes, and the cold start is there already."""
    with pytest.raises(StepSearchError, match=said):
        found(world, documents, *settings)


def test_an_output_that_holds_a_training_is_told(world: Path, documents: Retrieve, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000001").mkdir()
    told = found(world, documents, f"output={tmp_path}", "limits.max_new_tokens=3")
    assert (told["output"].state, "--resume" in told["output"].hint) == ("look", True)


def test_with_overlap_the_second_update_still_shows_how_far_the_first_moved(world: Path, documents: Retrieve) -> None:
    told = found(world, documents, "schedule.overlap=true")
    assert told["update"] == found(world, documents)["update"]


def test_a_training_without_a_critic(world: Path, documents: Retrieve) -> None:
    told = found(world, documents, "ppo.group_size=2")
    assert {what: each.found for what, each in told.items() if each.state != "good"} == {}
    assert re.fullmatch(r"KL \S+ nats per token", told["update"].found)


def test_rollouts_that_fail_are_a_finding(world: Path, documents: Retrieve) -> None:
    calls: list[int] = []

    def fragile(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        calls.append(len(queries))
        if len(calls) > 1:
            raise SearchError("gone", "start it again")
        return documents(queries, k)

    told = found(world, fragile)
    assert told["training"] == Finding("training", "bad", "gone", "start it again")
    assert not list((world / "run").glob("checkpoint-000001"))


def test_a_model_that_knows_no_format_gives_no_signal(world: Path, documents: Retrieve) -> None:
    """Without its cold start; with the reference's rewards, which are −1 for all of its rollouts."""
    told = found(world, documents, f"output={world / 'fresh'}", "rewards.preset=reference", "limits.max_new_tokens=3")
    assert told["cold start"].state == "look"
    assert (told["format"].state, told["searches"].state, told["rewards"].state) == ("look", "look", "bad")
    assert told["tokens"].hint.startswith("raise limits.max_new_tokens")
    assert told["rewards"].hint.startswith("all rollouts earn the same")


def test_limits_that_gold_trajectories_do_not_fit(world: Path, documents: Retrieve) -> None:
    told = found(world, documents, "limits.max_length=120")
    assert (told["tokens"].state, told["lengths"].state) == ("look", "look")
    told = found(world, documents, "limits.max_turns=1")
    assert told["tokens"].hint.startswith("raise limits.max_turns")


def test_a_learning_rate_of_nothing_moves_nothing(world: Path, documents: Retrieve) -> None:
    told = found(world, documents, "schedule.learning_rate=0")
    assert told["update"].state == "bad"
    assert told["update"].found.endswith("the policy does not move")
    assert found(world, documents, "schedule.learning_rate=0.3")["update"].state != "good"


def test_a_tokenizer_that_loses_the_tags(world: Path, documents: Retrieve, tmp_path: Path) -> None:
    """One that has no token for them reads none of the gold trajectories."""
    tokenizer = make_tokenizer(["a few words that have nothing to do with tags"])
    make_model(tokenizer, width=32, layers=2).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    told = found(world, documents, f"model.path={tmp_path}", f"output={tmp_path / 'run'}")
    assert told["tokens"].state == "bad"
    assert "turns are not stopped at their tags" in told["tokens"].found


def without(part: str, examples: Iterator[Example]) -> list[Example]:
    """Examples whose steps lack their gold paragraphs or their keys."""
    lacking: dict[str, Any] = {part: ()}
    return [replace(each, steps=tuple(replace(step, **lacking) for step in each.steps)) for each in examples]


def test_what_the_rewards_need_of_questions(world: Path, template: Template) -> None:
    from stepsearch_data.trainer.check import _questions

    whole = list(load_examples(Store.open(world / "store"), None))
    recipe = load_recipe(world / "tiny.toml")
    outcome = load_recipe(world / "tiny.toml", ["rewards.preset=outcome"])
    bare = without("gold", iter(whole))
    assert _questions([], 3, recipe).state == "bad"
    assert _questions(bare, 3, recipe).hint.endswith("rewards.preset = outcome")
    assert _questions(bare, 3, outcome).state == "good"
    assert _questions([*whole, *bare], 3, recipe).state == "look"
    assert _questions(without("keys", iter(whole)), 3, recipe).hint.endswith("rewards.without = [key]")
    assert _questions(whole, 0, recipe).hint.startswith("nothing is measured on the way")
