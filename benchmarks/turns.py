"""GRPO with an advantage per turn against GRPO with one per rollout, by TRL, in the demo's world.

A pair has the same cold start (`stepsearch_data.trainer.demo`), questions, seed and number of rollouts. Held-out
questions are answered greedily on the way. What has been trained is kept in the folder, and the same command goes on:

    .venv-train/bin/python benchmarks/turns.py [--folder runs/turns] [--pairs 4] [--updates 40] [--preset paper]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from stepsearch_data.environments import EnvironmentConfig
from stepsearch_data.environments.retriever import retrieve
from stepsearch_data.environments.trl import TurnGRPOTrainer, search_reward, tagged_rollouts
from stepsearch_data.exports.rl import trl_grpo
from stepsearch_data.pipeline.store import Store
from stepsearch_data.rewards import PRESETS
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.config import Chat
from stepsearch_data.trainer.data import to_task
from stepsearch_data.trainer.demo.experiment import LIMITS, STARTS, TEMPLATE, cold, make_world, parts
from stepsearch_data.trainer.episode_score import score_episode
from stepsearch_data.trainer.loading import make_search_env
from stepsearch_data.trainer.rollout import roll_out
from stepsearch_data.trainer.sampler import CachedSampler
from stepsearch_data.trainer.search_env import Task

KINDS = {"a turn": TurnGRPOTrainer, "a rollout": GRPOTrainer}
HELD_OUT, PROMPTS, GROUP, EVERY = 200, 8, 8, 20
WORDING = load_template(str(TEMPLATE))


class Asked(TrainerCallback):
    """Asks held-out questions every so many updates."""

    def __init__(self, tasks: Sequence[Task], config: EnvironmentConfig, found: dict[int, float]) -> None:
        self._tasks, self._config, self._found = tasks, config, found

    def on_step_end(self, _: Any, state: Any, __: Any, **given: Any) -> None:
        """Measure the exact match of greedy rollouts."""
        if state.global_step % EVERY:
            return
        model, tokenizer = given["model"], given["processing_class"]
        model.eval()
        env = make_search_env(model, tokenizer, WORDING, self._config.limits, Chat(template=False))
        right = 0
        for first in range(0, len(self._tasks), 64):
            sampler = CachedSampler(model, tokenizer, temperature=0)
            tasks = self._tasks[first : first + 64]
            episodes = roll_out(tasks, env, sampler, lambda queries, _: retrieve(self._config, queries))
            right += sum(score_episode(episode).scores.answer_em for episode in episodes)
        model.train()
        self._found[state.global_step] = right / len(self._tasks)
        print(f"update {state.global_step}: {self._found[state.global_step]:.3f}", file=sys.stderr, flush=True)


def train(folder: Path, kind: str, seed: int, updates: int, preset: Any) -> dict[int, float]:
    """Return the held-out exact match by updates."""
    output = folder / f"{preset}-{kind.replace(' ', '-')}-{seed}-{updates}.json"
    if output.exists():
        return {int(update): em for update, em in json.loads(output.read_text()).items()}
    config = EnvironmentConfig(str(folder / "store"), template=str(TEMPLATE), preset=preset, **vars(LIMITS))
    learnt, held_out = parts(Store.open(folder / "store"), HELD_OUT)
    rows = [{**trl_grpo(each, WORDING)[0], "prompt": WORDING.opening(each.question)} for each in learnt]
    start = str(cold(folder, STARTS["weak"], seed, HELD_OUT))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    arguments = GRPOConfig(
        str(folder / "trl"),
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        max_steps=updates,
        seed=1000 * seed,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=PROMPTS * GROUP // 16,
        num_generations=GROUP,
        learning_rate=5e-4,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=updates // 20,
        max_grad_norm=1.0,
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=EVERY,
    )
    found: dict[int, float] = {}
    asked = Asked([to_task(each, WORDING) for each in held_out], config, found)
    trainer = KINDS[kind](
        model,
        search_reward,
        arguments,
        Dataset.from_list(rows),
        processing_class=tokenizer,
        rollout_func=tagged_rollouts(config),
        callbacks=[asked],
    )
    trainer.train()
    output.write_text(json.dumps(found))
    return found


def main() -> None:
    """Train all pairs, and print a table of means and paired differences with their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/turns"))
    parser.add_argument("--pairs", type=int, nargs="+", default=[4], help="how many, or: from, before")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--preset", choices=list(PRESETS), default="paper")
    given = parser.parse_args()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    torch.set_num_threads(1)
    make_world(given.folder)
    runs = {
        kind: [train(given.folder, kind, seed, given.updates, given.preset) for seed in range(*given.pairs)]
        for kind in KINDS
    }
    print(f"held-out exact match by updates, {given.preset}, {len(runs['a turn'])} pairs; an advantage for")
    for update in range(EVERY, given.updates + 1, EVERY):
        turn, rollout = ([run[update] for run in runs[kind]] for kind in KINDS)
        apart = [one - other for one, other in zip(turn, rollout, strict=True)]
        spread = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
        means = f"a turn {statistics.mean(turn):.3f}, a rollout {statistics.mean(rollout):.3f}"
        pairs = " ".join(f"{each:+.3f}" for each in apart)
        print(f"  {update:>4}: {means}, difference {statistics.mean(apart):+.3f} ± {spread:.3f} ({pairs})")


if __name__ == "__main__":
    main()
