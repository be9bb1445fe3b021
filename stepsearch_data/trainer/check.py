"""A starting check: would a training by a recipe work? Its parts are tried in turn, and two small updates are made.

The models are loaded, learn from a few rollouts and are forgotten: nothing is written.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from stepsearch_data.core.errors import ConfigError, SearchError, StepSearchError
from stepsearch_data.pipeline.store import Store
from stepsearch_data.rewards import found_by
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.checkpoint import Checkpoints
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.data import load_examples, subsample, to_task, written_turns
from stepsearch_data.trainer.launch import (
    check_settings,
    claim,
    explained_out_of_memory,
    kept_cold_start,
    make_accelerator,
    make_trainer,
)
from stepsearch_data.trainer.metrics import Metrics, episode_metrics
from stepsearch_data.trainer.recipe import Recipe
from stepsearch_data.trainer.rollout import Retrieve
from stepsearch_data.trainer.sampler import CachedSampler
from stepsearch_data.trainer.steppo_trainer import StePPOTrainer

_ASKED = 32  # questions whose gold queries are searched, and whose gold trajectories are read
_ROLLOUTS = 8  # of an update; there are two
_FEW = 0.2  # share below which something is worth a look
_NOISE = 1e-6  # nats per token by which the same weights differ, read token by token or at once
_OFTEN = 0.2  # share of rollouts that may be cut
_FULL = 0.9  # share of the device's memory

State = Literal["good", "look", "bad"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands, what was seen, and what to try where it is not good.

    `look`: a training may begin, but is likely to learn little. `bad`: it would not begin, or not learn.
    """

    what: str
    state: State
    found: str
    hint: str = ""


def check(recipe: Recipe, retrieve: Retrieve) -> Iterator[Finding]:
    """Yield what is found about a recipe's store, retriever, model, rollouts and an update, one after the other.

    It ends where the next part needs one that is bad. Rollouts are by `transformers`, also where the recipe has vLLM.
    Raises ConfigError, TrainError and StoreError for what `train` refuses before it loads a model, and ConfigError
    with several processes.
    """
    recipe = recipe.anywhere()
    template = load_template(recipe.template)
    accelerator = make_accelerator(recipe)
    if accelerator.num_processes > 1:
        raise ConfigError("a check runs in one process", "without accelerate launch")
    check_settings(recipe, accelerator)
    kept = kept_cold_start(recipe) if recipe.sft else None
    store = Store.open(recipe.store)
    examples, held_out = _examples(store, recipe)
    yield _questions(examples, held_out, recipe)
    some = subsample(examples, _ASKED)
    if not some:
        return
    searched = _searches(some, retrieve, recipe.limits.topk)
    yield searched
    if searched.state == "bad":
        return
    start = str(kept or recipe.model.path)
    if recipe.sft:
        yield _start(kept)
    if not kept:
        yield from _claimed(recipe)
    with tempfile.TemporaryDirectory() as folder:  # stays empty
        try:
            with explained_out_of_memory(recipe):
                training = make_trainer(_small(recipe), start, template, some, (), retrieve, accelerator)
                training.checkpoints = _NoCheckpoints(Path(folder), 1, accelerator)
                weights = sum(each.numel() for each in training.inner.policy.parameters())
                yield Finding(
                    "model", "good", f"{start}: {weights:,} weights; turns and batches are read as they should"
                )
                yield _gold(some, template, training, recipe.limits)
                yield from _updates(training, recipe)
        except StepSearchError as error:
            yield Finding("training", "bad", error.message, error.hint)


class _NoCheckpoints(Checkpoints):
    """Keeps nothing, also where rollouts fail or are interrupted."""

    def save(self, *_: Any) -> Path:
        return self._output


def _examples(store: Store, recipe: Recipe) -> tuple[list[Example], int]:
    """Return the questions to train on, and how many can be held out."""
    allow = recipe.allow_templates
    held_out = sum(1 for _ in load_examples(store, "validation", allow_templates=allow))
    return list(load_examples(store, "train", allow_templates=allow)), held_out


def _questions(examples: Sequence[Example], held_out: int, recipe: Recipe) -> Finding:
    """Count the questions, and what the rewards need of them."""
    count, rewards = len(examples), recipe.rewards.config()
    gold, keys = sum(1 for each in examples if each.gold), sum(1 for each in examples if any(each.keys))
    found = f"{count:,} to train on, {gold:,} with gold paragraphs, {keys:,} with search keys; {held_out:,} to hold out"
    if not count:
        return Finding("questions", "bad", found, "stepsearch-data audit tells why none is for training")
    if rewards.step_reward and not gold:
        return Finding("questions", "bad", found, "step rewards need gold paragraphs: choose rewards.preset = outcome")
    if rewards.step_reward and gold < count:
        return Finding("questions", "look", found, "those without gold paragraphs earn no gain: leave them out")
    if rewards.key_reward and keys < count:
        return Finding("questions", "look", found, "those without search keys earn no r_key: rewards.without = [key]")
    if recipe.held_out and not held_out:
        return Finding("questions", "look", found, "nothing is measured on the way: build with quality.validation > 0")
    return Finding("questions", "good", found)


def _searches(examples: Sequence[Example], retrieve: Retrieve, k: int) -> Finding:
    """Ask the queries of gold trajectories; count the gold paragraphs that their documents contain."""
    steps = [step for example in examples for step in example.steps if step.gold]
    queries = [step.search.query for step in steps] or [example.question for example in examples]
    try:
        answers = retrieve(queries, k)
    except SearchError as error:
        return Finding("retriever", "bad", error.message, error.hint)
    if not any(answers):
        return Finding(
            "retriever", "bad", f"no document for any of {len(queries)} queries", "is the index the right one?"
        )
    if not steps:
        return Finding("retriever", "good", f"it answers {sum(map(bool, answers))} of {len(queries)} questions")
    golds = sum(len(step.gold) for step in steps)
    found = 0
    for step, documents in zip(steps, answers, strict=True):
        searches = [(step.search.query, [document.text for document in documents])]
        found += sum(len(each.gold) for each in found_by(searches, [gold.text for gold in step.gold]))
    told = f"gold queries find {found} of {golds} gold paragraphs ({found / golds:.0%}) at limits.topk = {k}"
    hint = (
        "index the store's own documents, or more of them by limits.topk; an engine whose passages are cut otherwise "
        "may still do, as the gain compares words"
    )
    return Finding("retriever", "good", told) if 2 * found >= golds else Finding("retriever", "look", told, hint)


def _start(kept: Path | None) -> Finding:
    """Say what PPO starts from where the recipe has a cold start."""
    if kept:
        return Finding("cold start", "good", f"taken from {kept}, with --resume")
    found = "not made yet: what follows is the model before it, which may know no format"
    hint = "make it with --set schedule.num_updates=0, check again, and train with --resume"
    return Finding("cold start", "look", found, hint)


def _claimed(recipe: Recipe) -> Iterator[Finding]:
    """Say so where the output holds a training, which begins no other."""
    try:
        claim(recipe, resume=False)
    except ConfigError as error:
        yield Finding("output", "look", error.message, error.hint)


def _small(recipe: Recipe) -> Recipe:
    """Return the recipe of two small updates at the whole learning rates, whose rollouts see the update before."""
    group = 1 if recipe.ppo.has_critic else _ROLLOUTS // 2
    micro = max(size for size in (1, 2, 4, 8) if size <= recipe.ppo.micro_batch_size)
    return recipe.model_copy(
        update={
            "schedule": replace(
                recipe.schedule,
                num_updates=2,
                rollout_batch_size=_ROLLOUTS,
                warmup_ratio=0.0,
                vf_warmup_ratio=0.0,
                overlap=False,
            ),
            "ppo": replace(recipe.ppo, mini_batch_size=_ROLLOUTS, micro_batch_size=micro, group_size=group),
            "vllm": None,
        }
    )


class _Reader(CachedSampler):
    """Tells where a turn would have been stopped."""

    def stops_at(self, turn: list[int]) -> int:
        """Return after how many tokens; 0 where it is not stopped."""
        return next((end for end in range(1, len(turn) + 1) if self._ended(turn[:end])), 0)


def _gold(examples: Sequence[Example], template: Template, training: StePPOTrainer, limits: Limits) -> Finding:
    """Play gold trajectories, in the model's tokens, as a policy that writes them would."""
    env = training.env
    reader = _Reader(training.whole_policy(), training.tokenizer, stops=env.form.stops)
    ended: list[str] = []
    longest_turn = longest = 0
    for example in examples:
        episode = env.reset(to_task(example, template))
        turns = written_turns(example, template, env.form, env.encode)
        longest_turn = max(longest_turn, *map(len, turns))
        stopped = all(reader.stops_at(turn) == len(turn) for turn in turns)
        for turn, step in zip(turns, [*example.steps, None], strict=True):
            if episode.ended:
                break
            query = env.step(episode, turn)
            if query and step:
                env.observe(episode, query, step.search.documents)
        longest = max(longest, len(episode.prompt_ids) + len(episode.response_ids))
        ended.append(episode.ended if stopped and not episode.invalid else "not read")
    whole = ended.count("answer")
    told = (
        f"{whole} of {len(ended)} gold trajectories are read to their end; the longest has {longest:,} of "
        f"{limits.max_length:,} tokens, its longest turn {longest_turn:,} of {limits.max_new_tokens:,}"
    )
    if "not read" in ended:
        hint = "does its tokenizer keep <search> and </answer> as they are? try another model or template"
        return Finding("tokens", "bad", f"{told}: turns are not stopped at their tags", hint)
    if longest_turn > limits.max_new_tokens:
        return Finding("tokens", "look", told, "raise limits.max_new_tokens, and limits.max_length with it")
    if whole < len(ended):
        return Finding("tokens", "look", told, "raise limits.max_turns or limits.max_length, or lower limits.topk")
    return Finding("tokens", "good", told)


def _updates(training: StePPOTrainer, recipe: Recipe) -> Iterator[Finding]:
    """Roll out and learn, twice."""
    first, episodes, scored = training.training_step()
    second, more, their_scores = training.training_step()
    episodes, scored = episodes + more, scored + their_scores
    told, count = episode_metrics(episodes, scored), len(episodes)
    yield _share(
        "format",
        told["format_ok"],
        f"of {count} rollouts are in the right format; of each {told['invalid']:.1f} turns are no search and no answer",
        "a cold start ([sft]) teaches the format, a longer one better; an instruction-tuned model may know it",
    )
    yield _share(
        "searches",
        sum(1 for each in episodes if each.searches) / count,
        f"of {count} rollouts search, {told['searches']:.1f} times on average",
        "a cold start ([sft]) teaches it; look at the template's prompt",
    )
    cut = sum(each.ended == "length" for each in episodes) / count
    yield Finding(
        "lengths",
        "look" if cut > _OFTEN else "good",
        f"{cut:.0%} of {count} rollouts are cut; each has {told['tokens']:,.0f} of {recipe.limits.max_length:,} tokens",
        "raise limits.max_length, or lower limits.topk or limits.max_obs_length" if cut > _OFTEN else "",
    )
    totals = sorted(each.total for each in scored)
    spread = totals[-1] - totals[0]
    yield Finding(
        "rewards",
        "good" if spread > 0 else "bad",
        f"{totals[0]:.3f} to {totals[-1]:.3f}, on average {told['reward']:.3f}; exact match {told['em']:.3f}",
        "" if spread > 0 else "all rollouts earn the same, so none is better: a cold start, or another model",
    )
    yield _losses(first, second)
    yield _memory(training.accelerator.device, max(len(e.prompt_ids) + len(e.response_ids) for e in episodes), recipe)


def _share(what: str, share: float, told: str, hint: str) -> Finding:
    """Say which share of the rollouts does what it should."""
    few = share < _FEW
    return Finding(what, "look" if few else "good", f"{share:.0%} {told}", hint if few else "")


def _losses(first: Metrics, second: Metrics) -> Finding:
    """Look at the losses of two updates, and at how far the first one moved the policy."""
    told = f"KL {second['kl']:.2g} nats per token"
    if "value_loss" in first:
        told = f"value loss {first['value_loss']:.3g}, then {second['value_loss']:.3g}; {told}"
    names = [name for name in first if name.endswith(("_loss", "_grad_norm"))]
    if not all(math.isfinite(each[name]) for each in (first, second) for name in (*names, "kl")):
        return Finding("update", "bad", told, "a lower schedule.learning_rate, or bf16 = false")
    if abs(second["kl"] - first["kl"]) < _NOISE:
        return Finding("update", "bad", f"{told}: the policy does not move", "raise schedule.learning_rate")
    if abs(second["kl"]) > 1:
        return Finding("update", "look", f"{told}: one update moves the policy far", "a lower schedule.learning_rate")
    return Finding("update", "good", told)


def _memory(device: torch.device, longest: int, recipe: Recipe) -> Finding:
    """Say how much memory was taken at most."""
    seen = f"with texts of up to {longest:,} of {recipe.limits.max_length:,} tokens"
    if device.type != "cuda":
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return Finding("memory", "good", f"{peak / 1e9:.1f} GB of this process, {seen}")
    taken, whole = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    told = f"{taken / 1e9:.1f} of {whole / 1e9:.1f} GB, {seen}"
    if taken < _FULL * whole:
        return Finding("memory", "good", told)
    return Finding("memory", "look", told, f"lower {recipe.ppo.cut_by}, or model.gradient_checkpointing = true")
