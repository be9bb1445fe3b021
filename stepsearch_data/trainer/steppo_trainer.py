"""StePPO, the whole loop: roll out, score, look back, improve (arXiv 2505.15107).

Where it departs from the released trainer, a fork of verl 0.1:

- tokens are never decoded and tokenised anew: a step reward lies on the very token that ended the search;
- a step reward and the score that share a token add up, the release overwrites the former;
- observation tokens are masked everywhere: also in GAE, in whitening and in the critic's loss;
- the policy is sampled from its full distribution (the release: top_p 0.95) and has no entropy bonus by default;
- an episode that a warning cannot bring back ends with what it has earned, without a fixed penalty.
"""

from __future__ import annotations

import logging
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepsearch_data.core.atomic import place, write_whole
from stepsearch_data.core.errors import StepSearchError, TrainError
from stepsearch_data.rewards import PAPER, RewardConfig
from stepsearch_data.trainer.architecture import check_architecture
from stepsearch_data.trainer.batch import collate
from stepsearch_data.trainer.callbacks.console import Watch
from stepsearch_data.trainer.config import PPO, Schedule
from stepsearch_data.trainer.model import ActorCritic, Critic, Reference, WholeCopy
from stepsearch_data.trainer.rollout import Retrieve, Sampler, roll_out
from stepsearch_data.trainer.sampler import CachedSampler
from stepsearch_data.trainer.score import Earned, earned
from stepsearch_data.trainer.search_env import Episode, Referee, Task
from stepsearch_data.trainer.update import Metrics, improve, look_back

# Of tied weights one name is saved, as it should be; accelerate would say so at every checkpoint.
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)


class StePPO:
    """Trains a policy and its critic. `output` gets `metrics.jsonl` and the checkpoints.

    Rewards of the `paper` or the `released` preset, their ablations and outcome-only PPO differ by `rewards` alone.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        critic: Critic,
        tokenizer: PreTrainedTokenizerBase,
        referee: Referee,
        retrieve: Retrieve,
        tasks: Sequence[Task],
        output: Path,
        *,
        held_out: Sequence[Task] = (),
        schedule: Schedule,
        ppo: PPO,
        rewards: RewardConfig = PAPER,
        accelerator: Accelerator | None = None,
        sampler: Sampler | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.schedule, self.ppo, self.rewards = schedule, ppo, rewards
        self.accelerator = accelerator or Accelerator()
        world = self.accelerator.num_processes
        _check_sizes(schedule.rollouts, ppo, world)
        _accumulate(self.accelerator, ppo)
        set_seed(schedule.seed, device_specific=True)
        self.referee, self.retrieve, self.tasks, self.held_out = referee, retrieve, tasks, held_out
        self.output, self.watch, self.tokenizer = output, watch, tokenizer
        self.done = 0
        with self.accelerator.autocast():
            check_architecture(policy.to(self.accelerator.device), tokenizer)
        sharded = self.accelerator.distributed_type is DistributedType.FSDP
        self._copy = WholeCopy(policy.to(self.accelerator.device), _fsdp_type(self.accelerator)) if sharded else None
        model = ActorCritic(policy, critic, schedule.temperature)
        steps = schedule.updates * ppo.epochs * (schedule.rollouts // ppo.minibatch)
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in policy.parameters() if p.requires_grad], "lr": schedule.actor_lr},
                {"params": [p for p in critic.parameters() if p.requires_grad], "lr": schedule.critic_lr},
            ]
        )
        warmups = [schedule.actor_warmup * steps, schedule.critic_warmup * steps]
        self.rates = LambdaLR(optimizer, [_rising(warmup) for warmup in warmups])
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.model.eval()
        self.accelerator.register_for_checkpointing(self.rates)
        self.inner: ActorCritic = self.accelerator.unwrap_model(self.model)
        self._parameters = {  # FSDP shows others in their place between a forward and a backward pass
            "policy": list(self.inner.policy.parameters()),
            "critic": list(self.inner.critic.parameters()),
        }
        # Copied now that DeepSpeed has its weights in bfloat16: both compute alike, and the KL begins at 0.
        self.reference = Reference(self._whole(), schedule.temperature)
        self.sampler = sampler or CachedSampler(self._whole(), tokenizer, temperature=schedule.temperature)

    def train(self) -> None:
        """Train to the end of the schedule, from where `resume` left off. Raises TrainError, SearchError."""
        self.output.mkdir(parents=True, exist_ok=True)
        self._forget_later_metrics()
        if self.done == 0 and self._evaluates():
            self._tell({"update": 0, **self.evaluate()}, [], [])
        while self.done < self.schedule.updates:
            metrics, episodes, got = self.update()
            if self._evaluates():
                metrics |= self.evaluate()
            self._tell(metrics, episodes, got)
            if self._is_due(self.schedule.save_every):
                self.save()
        self.save()

    def _evaluates(self) -> bool:
        return bool(self.held_out) and self._is_due(self.schedule.eval_every)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.done % every == 0

    def update(self) -> tuple[Metrics, list[Episode], list[Earned]]:
        """One batch of rollouts and what is learnt from it: its metrics, this process's episodes, what they earned."""
        clock = _Clock()
        self._whole()  # which the sampler reads
        before = _random_state()
        try:
            episodes = self._roll_out(self._next_tasks(), self.sampler)
        except (StepSearchError, KeyboardInterrupt):
            _set_random_state(before)  # a resumed run repeats the batch
            self.save()
            raise
        clock.lap("rollout")
        got = [earned(episode, self.rewards) for episode in episodes]
        pad = self.tokenizer.pad_token_id
        batch = collate(episodes, [each.steps for each in got], pad or 0, self.accelerator.device)
        clock.lap("score")
        metrics = look_back(self.model, self.inner.policy, self.reference, batch, self.ppo, self.accelerator)
        clock.lap("look_back")
        self.model.train()  # it only switches on gradient checkpointing
        metrics |= improve(self.model, self._parameters, self.optimizer, self.rates, batch, self.ppo, self.accelerator)
        self.model.eval()
        clock.lap("improve")
        self.done += 1
        seconds = clock.seconds
        metrics = {
            "update": self.done,
            "rollouts": self.schedule.rollouts,
            **self._over_processes({**summary(episodes, got), **metrics}),
            **seconds,
        }
        metrics["tokens_per_second"] = metrics["tokens"] * self.schedule.rollouts / sum(seconds.values())
        return metrics, episodes, got

    def evaluate(self) -> Metrics:
        """Greedy rollouts of the held-out tasks, as many at a time as in training; nothing random is drawn.

        Exact match is told by hops, too, where they are known.
        """
        sampler = CachedSampler(self._whole(), self.tokenizer, temperature=0)
        world = self.accelerator.num_processes
        mine, size = self.held_out[self.accelerator.process_index :: world], self.schedule.rollouts // world
        episodes: list[Episode] = []
        for first in range(0, math.ceil(len(self.held_out) / world), size):  # as often on every process
            episodes += self._roll_out(mine[first : first + size], sampler)
        got = [earned(episode, self.rewards) for episode in episodes]
        means = self._over_processes(summary(episodes, got), len(mine))
        for hops in sorted({task.hops for task in self.held_out if task.hops}):
            ems = [each.scores.answer_em for task, each in zip(mine, got, strict=True) if task.hops == hops]
            mean = {f"em_{hops}_hops": sum(ems) / max(1, len(ems))}
            means |= self._over_processes(mean, len(ems))
        return {f"eval_{name}": value for name, value in means.items()}

    def _roll_out(self, tasks: Sequence[Task], sampler: Sampler) -> list[Episode]:
        """Play these tasks. Where one process fails all do: alone, the others would wait for it until a timeout."""
        failure: StepSearchError | KeyboardInterrupt | None = None
        episodes: list[Episode] = []
        try:
            with self.accelerator.autocast():
                episodes = roll_out(tasks, self.referee, sampler, self.retrieve) if tasks else []
        except (StepSearchError, KeyboardInterrupt) as error:
            failure = error
        failed = torch.tensor(float(failure is not None), device=self.accelerator.device)
        if self.accelerator.reduce(failed, reduction="sum"):
            raise failure or TrainError("rollouts failed in another process", "its own message says why")
        return episodes

    def _whole(self) -> PreTrainedModel:
        """The policy in one piece, as it is now."""
        return self._copy.renewed(self._parameters["policy"]) if self._copy else self.inner.policy

    def _over_processes(self, metrics: Metrics, weight: float = 1.0) -> Metrics:
        """Means over processes, by the weights of each."""
        if self.accelerator.num_processes == 1:
            return metrics
        values = torch.tensor([*metrics.values(), 1.0], device=self.accelerator.device) * weight
        *sums, total = self.accelerator.reduce(values, reduction="sum").tolist()
        return {name: value / total for name, value in zip(metrics, sums, strict=True)}

    def _next_tasks(self) -> list[Task]:
        """What this process rolls out next: each epoch goes through all tasks, in an order of its own."""
        size = self.schedule.rollouts // self.accelerator.num_processes
        first = self.done * self.schedule.rollouts + self.accelerator.process_index * size
        return [
            self.tasks[_place(position, len(self.tasks), self.schedule.seed)] for position in range(first, first + size)
        ]

    # ---- checkpoints

    def save(self) -> Path:
        """Write a checkpoint that appears only when whole, and remove old ones; its folder."""
        folder = self.output / f"checkpoint-{self.done:06}"
        part = folder.with_name(f".{folder.name}.part")
        main, wait = self.accelerator.is_main_process, self.accelerator.wait_for_everyone
        wait()  # so that all processes see the same folders
        if folder.exists():
            return folder
        if main:
            shutil.rmtree(part, ignore_errors=True)
        wait()
        self.accelerator.save_state(str(part / "state"))
        policy = self._whole()
        wait()
        if main:
            policy.save_pretrained(part / "policy")
            self.tokenizer.save_pretrained(part / "policy")
            (part / "update.json").write_bytes(orjson.dumps({"update": self.done}))
            place(part, folder)
            for old in sorted(self.output.glob("checkpoint-*"))[: -self.schedule.keep]:
                shutil.rmtree(old)
        wait()
        return folder

    def resume(self) -> bool:
        """Go back to the newest checkpoint of `output`: weights, optimiser, random state, place in the data."""
        found = sorted(self.output.glob("checkpoint-*"))
        if found:
            self.accelerator.load_state(str(found[-1] / "state"))
            self.done = orjson.loads((found[-1] / "update.json").read_bytes())["update"]
        return bool(found)

    def _tell(self, metrics: Metrics, episodes: Sequence[Episode], got: Sequence[Earned]) -> None:
        """Record an update's metrics, and show it to who watches."""
        if self.accelerator.is_main_process:
            with open(self.output / "metrics.jsonl", "ab") as file:
                file.write(orjson.dumps(metrics) + b"\n")
            if self.watch:
                self.watch(metrics, episodes, got)

    def _forget_later_metrics(self) -> None:
        """Remove the metrics of updates that will be repeated."""
        path = self.output / "metrics.jsonl"
        if self.accelerator.is_main_process and path.exists():
            lines = path.read_bytes().splitlines(keepends=True) if self.done else []
            whole = [line for line in lines if line.endswith(b"\n")]  # a full disk may leave half a line
            write_whole(path, b"".join(line for line in whole if orjson.loads(line)["update"] <= self.done))


def summary(episodes: Sequence[Episode], got: Sequence[Earned]) -> Metrics:
    """Means over episodes: the parts of the reward, searches, lengths, and shares of how they ended."""
    ended = Counter(episode.ended for episode in episodes)
    scores = [each.scores for each in got]
    count = max(1, len(episodes))

    def mean(values: Iterator[float]) -> float:
        return sum(values) / count

    return {
        "reward": mean(each.total for each in got),
        "em": mean(score.answer_em for score in scores),
        "f1": mean(score.answer_correct for score in scores),
        "key": mean(score.search_key_score for score in scores),
        "gain": mean(sum(score.information_gain) for score in scores),
        "redundancy": mean(sum(score.redundancy_penalty) for score in scores),
        "format_ok": mean(score.format_ok for score in scores),
        "searches": mean(len(episode.searches) for episode in episodes),
        "invalid": mean(episode.invalid for episode in episodes),
        "answered": ended["answer"] / count,
        "own_tokens": mean(sum(episode.own) for episode in episodes),
        "tokens": mean(len(episode.prompt) + len(episode.tokens) for episode in episodes),
    }


def _check_sizes(rollouts: int, ppo: PPO, world: int) -> None:
    """Raises TrainError where batches cannot be cut evenly."""
    if rollouts % ppo.minibatch or ppo.minibatch % (ppo.micro * world):
        raise TrainError(
            f"{rollouts} rollouts cannot be cut into minibatches of {ppo.minibatch}, and these over {world} processes "
            f"into micro batches of {ppo.micro}",
            "choose rollouts as a multiple of ppo.minibatch, that as one of ppo.micro times the processes",
        )


def _accumulate(accelerator: Accelerator, ppo: PPO) -> None:
    """Take an optimiser step after every minibatch; DeepSpeed, which clips by itself too, is told the same."""
    steps = ppo.minibatch // accelerator.num_processes // ppo.micro
    accelerator.gradient_accumulation_steps = steps
    if accelerator.distributed_type is DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": ppo.micro,
            "gradient_accumulation_steps": steps,
            "gradient_clipping": ppo.max_norm,
        }


def _fsdp_type(accelerator: Accelerator) -> torch.dtype | None:
    """The type that FSDP computes in, where it is not the weights' own.

    Gradients are added up and log-probabilities come out in float32 from now on; accelerate has bfloat16 for all.
    """
    plugin = accelerator.state.fsdp_plugin
    if plugin.mixed_precision_policy is None:
        return None
    precise = {"reduce_dtype": torch.float32, "output_dtype": None}
    plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, **precise)
    dtype: torch.dtype = plugin.mixed_precision_policy.param_dtype
    return dtype


def _rising(warmup: float) -> Callable[[int], float]:
    """Factor of a learning rate at a step: rises in a line to 1, then stays."""
    return lambda step: min(1.0, (step + 1) / max(1.0, warmup))


def _place(position: int, size: int, seed: int) -> int:
    """The task at a position of an endless walk that goes through all tasks, shuffled anew in every epoch."""
    epoch, at = divmod(position, size)
    return int(np.random.default_rng((seed, epoch)).permutation(size)[at])


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


class _Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: Metrics = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[f"seconds_{name}"] = now - self._last
        self._last = now
