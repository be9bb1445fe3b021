"""StePPO, the whole loop: roll out, score, compute advantages, update (arXiv 2505.15107).

docs/training.md lists where it departs from the paper and from the reference code, a fork of verl 0.1.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.rewards import PAPER, RewardConfig, step_weight
from stepsearch_data.trainer.ahead import Ahead, CopySampler, TakesWeights
from stepsearch_data.trainer.answer_gain import add_answer_gains
from stepsearch_data.trainer.architecture import check_architecture
from stepsearch_data.trainer.batch import collate
from stepsearch_data.trainer.callbacks import Callback
from stepsearch_data.trainer.callbacks.events import Events
from stepsearch_data.trainer.checkpoint import (
    Checkpoints,
    append_metrics,
    drop_metrics_after,
    read_held_out,
    repeatable,
)
from stepsearch_data.trainer.config import PPOConfig, Schedule
from stepsearch_data.trainer.data import task_index
from stepsearch_data.trainer.distributed import (
    WholePolicy,
    failing_together,
    is_float32,
    mean_over_processes,
    set_batch_sizes,
)
from stepsearch_data.trainer.episode_score import EpisodeScore, score_episode
from stepsearch_data.trainer.held_out import held_out_metrics
from stepsearch_data.trainer.metrics import Clock, Metrics, episode_metrics
from stepsearch_data.trainer.model import ActorCritic, Critic, ReferencePolicy
from stepsearch_data.trainer.optimizer import make_optimizer
from stepsearch_data.trainer.rollout import Retrieve, Sampler, roll_out
from stepsearch_data.trainer.run_folder import Best, checkpoint_name
from stepsearch_data.trainer.sampler import CachedSampler, ReportingSampler
from stepsearch_data.trainer.search_env import Episode, SearchEnv, Task
from stepsearch_data.trainer.update import compute_advantages, ppo_update

_log = logging.getLogger(__name__)
_QUERIES = 256  # that wait for an engine at a time; of how many requests they are, the engine decides


class StePPOTrainer:
    """Trains a policy and its critic, which there is where `ppo` has one. `output` gets metrics and checkpoints.

    Rewards of the `paper` or the `reference` preset, their ablations and outcome-only PPO differ by `rewards` alone.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        critic: Critic | None,
        tokenizer: PreTrainedTokenizerBase,
        env: SearchEnv,
        retrieve: Retrieve,
        tasks: Sequence[Task],
        output: Path,
        *,
        held_out: Sequence[Task] = (),
        schedule: Schedule,
        ppo: PPOConfig,
        rewards: RewardConfig = PAPER,
        step_until: int = 0,
        answer_gain: float = 0.0,
        accelerator: Accelerator | None = None,
        sampler: Sampler | None = None,
        callbacks: Sequence[Callback | TrainerCallback] = (),
    ) -> None:
        self.schedule, self.ppo, self.rewards = schedule, ppo, rewards
        self.step_until, self.answer_gain = step_until, answer_gain
        self.accelerator = accelerator or Accelerator()
        set_batch_sizes(self.accelerator, schedule.rollout_batch_size, ppo)
        if (critic is None) == ppo.has_critic:
            raise ConfigError("either ppo.group_size is 1 or there is no critic", "give a critic, or a larger group")
        set_seed(schedule.seed, device_specific=True)
        self.env, self.retrieve, self.tasks, self.held_out = env, retrieve, tasks, held_out
        self.tokenizer, self.callbacks = tokenizer, callbacks
        self.checkpoints = Checkpoints(output, schedule.save_total_limit, self.accelerator)
        self.output, self.updates_done = output, 0
        self.evaluations: list[Best] = []
        with self.accelerator.autocast():
            check_architecture(policy.to(self.accelerator.device), tokenizer)
        self._whole = WholePolicy(policy, self.accelerator)
        model = ActorCritic(policy, critic, schedule.temperature)
        steps = schedule.num_updates * ppo.num_ppo_epochs * (schedule.rollout_batch_size // ppo.mini_batch_size)
        optimizer, self.scheduler = make_optimizer(policy, critic, schedule, steps)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.model.eval()
        self.accelerator.register_for_checkpointing(self.scheduler)
        told = {"model": policy, "processing_class": tokenizer, "optimizer": self.optimizer}
        self.events = Events(schedule, output, self.accelerator, lr_scheduler=self.scheduler, **told)
        self.inner: ActorCritic = self.accelerator.unwrap_model(self.model)
        # Of policy and critic. FSDP shows others in their place between a forward and a backward pass.
        self._parameters = {name: list(model.parameters()) for name, model in self.inner.named_children()}
        # Copied now that DeepSpeed has its weights in bfloat16: both compute alike, and the KL begins at 0.
        self.reference = ReferencePolicy(self.whole_policy(), schedule.temperature)
        own = ReportingSampler if is_float32(self.inner.policy, self.accelerator) else CachedSampler
        kind = CopySampler if schedule.overlap else own
        self.sampler = sampler or self._sampler_of(schedule.temperature, kind)
        if schedule.overlap and not isinstance(self.sampler, TakesWeights):
            raise ConfigError("schedule.overlap needs a sampler with weights of its own", "leave out one of both")
        self.ahead = Ahead(self.accelerator)

    def train(self) -> None:
        """Train to the end of the schedule, from where `resume` left off. Raises TrainError, SearchError."""
        try:
            self._train()
        finally:
            self.ahead.end()  # before the retriever closes

    def _train(self) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process:
            drop_metrics_after(self.output, self.updates_done)
        self.evaluations = read_held_out(self.output, self.accelerator)
        self.events.begin(self.callbacks, self.updates_done, self.evaluations)
        if self.held_out and self.schedule.eval_steps and self.updates_done == 0:
            self._report({"update": 0, **self.evaluate()}, [], [])
        saved = -1
        while not self._is_over():
            self.events.begin_step()
            metrics, episodes, scored = self.training_step()
            self.events.end_step(self.updates_done)
            if self.held_out and (self._is_due(self.schedule.eval_steps) or self.events.wish("should_evaluate")):
                metrics |= self.evaluate()
            self._report(metrics, episodes, scored)
            is_best = self.best is not None and self.best.update == self.updates_done
            if is_best or self._is_due(self.schedule.save_steps) or self.events.wish("should_save"):
                self._save_and_tell()
                saved = self.updates_done
        if saved != self.updates_done:
            self._save_and_tell()
        self.events.tell("on_train_end")

    def _save_and_tell(self) -> None:
        self.save()
        self.events.tell("on_save")

    def _is_over(self) -> bool:
        return (
            self.updates_done >= self.schedule.num_updates or self.stalled or self.events.wish("should_training_stop")
        )

    @property
    def best(self) -> Best | None:
        """Return the evaluation of a checkpoint with the highest held-out exact match, the first of equals.

        That before training, of which there is no checkpoint, is left out.
        """
        return max((each for each in self.evaluations if each.update), key=lambda each: each.eval_em, default=None)

    @property
    def stalled(self) -> bool:
        """Tell whether the last `Schedule.early_stop` evaluations found nothing higher than those before them."""
        patience, ems = self.schedule.early_stop, [each.eval_em for each in self.evaluations]
        return 0 < patience < len(ems) and max(ems[-patience:]) <= max(ems[:-patience])

    def training_step(self) -> tuple[Metrics, list[Episode], list[EpisodeScore]]:
        """Roll out one batch and learn from it; return metrics, and this process's episodes and their scores."""
        clock = Clock()
        try:
            with repeatable():
                episodes = self._ahead() if self.schedule.overlap else self._now()
        except (StepSearchError, KeyboardInterrupt):
            if self.ahead.is_running:
                _log.warning("waits for the batch that is being rolled out, to save it; Ctrl-C again gives it up")
            self.save()
            raise
        clock.lap("rollout")
        weight, told = step_weight(self.updates_done, self.step_until), Metrics()
        rewards = replace(self.rewards, step_scale=weight * self.rewards.step_scale)
        scored = [score_episode(episode, rewards) for episode in episodes]
        if self.answer_gain:
            given = (self.env.encode, episodes, scored, weight * self.answer_gain, self.ppo)
            with self.accelerator.autocast():
                scored, told = add_answer_gains(self.whole_policy(), *given)
        pad = self.tokenizer.pad_token_id or 0
        batch = collate(episodes, [each.token_rewards for each in scored], pad, self.accelerator.device)
        clock.lap("score")
        behind = self.schedule.overlap
        entropies = None
        if isinstance(self.sampler, ReportingSampler) and not behind:
            entropies = self.sampler.entropies()
        metrics = compute_advantages(
            self.model, self.reference, batch, self.ppo, self.accelerator, behind=behind, entropies=entropies
        )
        clock.lap("advantages")
        self.model.train()  # it only switches on gradient checkpointing
        stepping = (self.optimizer, self.scheduler)
        metrics |= ppo_update(self.model, self._parameters, *stepping, batch, self.ppo, self.accelerator)
        self.model.eval()
        clock.lap("update")
        self.updates_done += 1
        metrics = {
            "update": self.updates_done,
            "rollouts": self.schedule.rollout_batch_size,
            **mean_over_processes(self.accelerator, {**episode_metrics(episodes, scored), **told, **metrics}),
            **clock.seconds,
        }
        metrics["tokens_per_second"] = metrics["tokens"] * metrics["rollouts"] / sum(clock.seconds.values())
        return metrics, episodes, scored

    def evaluate(self) -> Metrics:
        """Roll out the held-out tasks greedily, as many at a time as in training; nothing random is drawn."""
        play = partial(self._play_together, sampler=self._sampler_of(0))
        size = self.schedule.rollout_batch_size
        return held_out_metrics(play, self.held_out, size, self.rewards, self.accelerator)

    def _sampler_of(self, temperature: float, kind: type[CachedSampler] = CachedSampler) -> CachedSampler:
        return kind(self.whole_policy(), self.tokenizer, temperature=temperature, stops=self.env.form.stops)

    def whole_policy(self) -> PreTrainedModel:
        """Return the policy in one piece, as it is now. All processes must call it."""
        return self._whole.current(self._parameters["policy"])

    def save(self) -> Path:
        """Write a checkpoint; return its folder."""
        beside = self.ahead.save
        return self.checkpoints.save(self.updates_done, self.whole_policy, self.tokenizer, self.best, beside)

    def resume(self) -> bool:
        """Go back to the newest checkpoint of `output`, if there is one: weights, random state, place in the data."""
        update = self.checkpoints.load()
        self.updates_done = update or 0
        if self.schedule.overlap:
            self.ahead.load(self.output / checkpoint_name(self.updates_done))
        return update is not None

    def _now(self) -> list[Episode]:
        """Roll out the batch of this update."""
        self.whole_policy()  # which the sampler reads
        return self._play_together(self._tasks_of(self.updates_done), self.sampler)

    def _ahead(self) -> list[Episode]:
        """Return the batch of this update, and begin the next with the weights before it."""
        if not self.ahead.has(self.updates_done):
            self._begin(self.updates_done)
        episodes = self.ahead.take()
        if self.updates_done + 1 < self.schedule.num_updates:
            self._begin(self.updates_done + 1)
        return episodes

    def _begin(self, update: int) -> None:
        """Have the batch of an update be rolled out by a copy of the policy, as it is now."""
        assert isinstance(self.sampler, TakesWeights)
        self.whole_policy()  # which the sampler reads
        # Torch's generator is this thread's.
        self.sampler.seed = (self.schedule.seed, update, self.accelerator.process_index)
        self.sampler.take_weights()
        self.ahead.begin(update, partial(self._play, self._tasks_of(update), self.sampler))

    def _play_together(self, tasks: Sequence[Task], sampler: Sampler) -> list[Episode]:
        """Play these tasks. Where one process fails all do; so all must call it."""
        with failing_together(self.accelerator):
            return self._play(tasks, sampler)

    def _play(self, tasks: Sequence[Task], sampler: Sampler) -> list[Episode]:
        retrieve = self.ahead.until_end(self.retrieve)
        pool = ThreadPoolExecutor(_QUERIES, "search") if self.schedule.async_search else None
        try:
            with self.accelerator.autocast():
                return roll_out(tasks, self.env, sampler, retrieve, pool) if tasks else []
        finally:
            if pool:
                pool.shutdown(wait=False, cancel_futures=True)

    def _tasks_of(self, update: int) -> list[Task]:
        """Return what this process rolls out for an update: each epoch takes all tasks, in an order of its own.

        Rollouts of a task, where there are several, stand next to each other.
        """
        size = self.schedule.rollout_batch_size // self.accelerator.num_processes
        first = update * self.schedule.rollout_batch_size + self.accelerator.process_index * size
        positions = (at // self.ppo.group_size for at in range(first, first + size))
        return [self.tasks[task_index(at, len(self.tasks), self.schedule.seed)] for at in positions]

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.updates_done % every == 0

    def _report(self, metrics: Metrics, episodes: Sequence[Episode], scored: Sequence[EpisodeScore]) -> None:
        """Record an update's metrics, and tell the callbacks."""
        if "eval_em" in metrics:
            self.evaluations.append(Best(update=int(metrics["update"]), eval_em=metrics["eval_em"]))
        if self.accelerator.is_main_process:
            append_metrics(self.output, metrics)
            for callback in self.callbacks:
                if not isinstance(callback, TrainerCallback):
                    callback(metrics, episodes, scored)
        self.events.report(metrics, episodes, scored)
