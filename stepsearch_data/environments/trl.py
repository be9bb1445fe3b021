"""TRL 1.16: environments for GRPOTrainer, with tools or with tags, and a GRPO in which each turn has its own advantage.

With tools, TRL plays: `environment_factory=tool_environments(config)`. With tags, the rules here do:
`rollout_func=tagged_rollouts(config)`. Both take rows of the export `trl-grpo`, and are scored by `search_reward`.
Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, groupby
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl import GRPOTrainer

from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.environments.config import EnvironmentConfig, task_of
from stepsearch_data.environments.environment import SearchEnvironment, final_answer
from stepsearch_data.environments.retriever import retrieve
from stepsearch_data.trainer.config import Chat
from stepsearch_data.trainer.episode_score import score_episode
from stepsearch_data.trainer.loading import make_search_env
from stepsearch_data.trainer.rollout import Sampler, roll_out
from stepsearch_data.trainer.sampler import CachedSampler
from stepsearch_data.trainer.search_env import Episode, Task

Message = Mapping[str, Any]
_SMALL = 1e-4  # added to a standard deviation, as by TRL


class ToolEnvironment:
    """What TRL makes one of per rollout: its public functions but `reset` are the tools that the model is offered.

    Its subclasses have those that the config adds to the search.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self.state = SearchEnvironment(config)
        self.failure: StepSearchError | None = None
        self.turn_rewards: list[float] = []

    def reset(self, **row: Any) -> None:
        """Begin with the question of a row. TRL plays one rollout after the other in the same environment."""
        self.state.reset(task_of(row))
        self.failure, self.turn_rewards = None, []

    def search(self, query: str) -> str:
        """Looks up documents in the corpus and returns the best matches with their titles.

        Args:
            query: A short keyword query for one fact.

        """  # noqa: D401 - TRL shows it to the model
        try:
            return self.state.search(query).text
        except StepSearchError as error:  # TRL would show it to the model and go on
            self.failure = error
            raise

    def _begin_turn(self) -> None:
        """Begin to count calls anew: all until the next time are of one message."""
        self.state.begin_turn()


class _Opens(ToolEnvironment):
    def open(self, id: str, page: int = 1) -> str:  # noqa: A002 - the model's word
        """Shows a document that a search has found, one page at a time. A search shows only its first page.

        Args:
            id: The document's id, as the search shows it, such as d1.
            page: The number of the page; without it, the first.

        """  # noqa: D401 - TRL shows it to the model
        return self.state.open(id, page).text


class _Finds(ToolEnvironment):
    def find(self, id: str, words: str) -> str:  # noqa: A002 - the model's word
        """Finds words on all pages of a document that a search has found, and shows the text around them.

        Args:
            id: The document's id, as the search shows it, such as d1.
            words: The words to find, without those that stand everywhere.

        """  # noqa: D401 - TRL shows it to the model
        return self.state.find(id, words).text


class _Reads(_Opens, _Finds):
    pass


_OFFERS = {
    frozenset(): ToolEnvironment,
    frozenset({"open"}): _Opens,
    frozenset({"find"}): _Finds,
    frozenset({"open", "find"}): _Reads,
}


class TaggedRollout:
    """A rollout that was played by the rules here; it is scored when TRL tells the other columns of its row."""

    def __init__(self, episode: Episode, config: EnvironmentConfig) -> None:
        self.episode, self.config = episode, config
        self.turn_rewards: list[float] = []


def tool_environments(config: EnvironmentConfig) -> Callable[[], ToolEnvironment]:
    """Return an `environment_factory`. Raises ConfigError for settings that are wrong."""
    _ = config.functions, config.rewards
    return partial(_OFFERS[frozenset(config.tools)], config)


def tagged_rollouts(
    config: EnvironmentConfig, make_sampler: Callable[[GRPOTrainer], Sampler] | None = None
) -> Callable[[list[Any], GRPOTrainer], dict[str, Any]]:
    """Return a `rollout_func`, which samples from the trainer's model in this process unless a sampler is made.

    Lengths are those of the config: TRL does not cut what a `rollout_func` returns. Raises ConfigError.
    """
    template = config.tag_wording
    _ = config.rewards

    def play(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        tokenizer, model = trainer.processing_class, trainer.accelerator.unwrap_model(trainer.model)
        env = make_search_env(model, tokenizer, template, config.limits, Chat(template=False))
        tasks = [Task("", "", _as_text(prompt, tokenizer), ()) for prompt in prompts]
        sampler = (make_sampler or _cached)(trainer)
        training = model.training
        model.eval()
        try:
            episodes = roll_out(tasks, env, sampler, lambda queries, _: retrieve(config, queries))
        finally:
            model.train(training)
        return {
            "prompt_ids": [episode.prompt_ids for episode in episodes],
            "completion_ids": [episode.response_ids for episode in episodes],
            "env_mask": [list(map(int, episode.response_mask)) for episode in episodes],
            "logprobs": None,
            "environments": [TaggedRollout(episode, config) for episode in episodes],
        }

    return play


def _cached(trainer: GRPOTrainer) -> Sampler:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return CachedSampler(model, trainer.processing_class, temperature=trainer.temperature)


def _as_text(prompt: str | Sequence[Message], tokenizer: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template:
        return str(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False))
    return "\n\n".join(message["content"] for message in prompt) + "\n"


def search_reward(
    completions: Sequence[Any],
    environments: Sequence[ToolEnvironment | TaggedRollout],
    log_extra: Callable[[str, list[Any]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float]:
    """Return what each rollout earned; its turns are in `turn_rewards` of its environment.

    A reward function of TRL. Raises SearchError where the engine failed: a model must not learn from that.
    """
    for at, (completion, environment) in enumerate(zip(completions, environments, strict=True)):
        if isinstance(environment, ToolEnvironment):
            environment.turn_rewards = _settle(environment, completion)
        else:
            row = {name: values[at] for name, values in columns.items() if isinstance(values, list)}
            environment.episode.task = task_of(row)
            environment.turn_rewards = _by_turn(environment)
    if log_metric:
        for name, mean in _read_per_rollout(environments).items():
            log_metric(name, mean)
    if log_extra:
        log_extra("turn_rewards", [environment.turn_rewards for environment in environments])
    return [sum(environment.turn_rewards) for environment in environments]


def _read_per_rollout(environments: Sequence[ToolEnvironment | TaggedRollout]) -> dict[str, float]:
    """Return how often documents were opened and words found, per rollout; nothing where neither is a tool."""
    counts = [each.state.counts for each in environments if isinstance(each, ToolEnvironment)]
    return {name: sum(each[name] for each in counts) / len(counts) for name in (counts[0] if counts else ())}


def _settle(environment: ToolEnvironment, completion: Sequence[Message]) -> list[float]:
    """Return what each message of the model earned, by the conversation that is learnt from.

    TRL drops the last results of a tool that do not fit, after they were searched for: those count for nothing.
    """
    if environment.failure:
        raise environment.failure
    state, turns, turn_of = environment.state, [0.0], list[int]()
    waiting = [result.text for result in state.results]
    for message in completion[1:]:
        if message["role"] == "assistant":
            turns.append(0.0)
        elif len(turn_of) < len(waiting) and message["content"] == waiting[len(turn_of)]:
            turn_of.append(len(turns) - 1)
    state.keep(len(turn_of))
    last = completion[-1]
    ended = last["role"] == "assistant" and not last.get("tool_calls")
    scores = state.answer(final_answer(str(last.get("content") or "")) if ended else None)
    for turn, reward in zip(turn_of, scores.step_rewards, strict=False):  # a wrong format may forfeit them
        turns[turn] += reward
    turns[-1] += scores.score
    return turns


def _by_turn(rollout: TaggedRollout) -> list[float]:
    """Return what each turn of a rollout in tags earned."""
    mask = rollout.episode.response_mask
    turns = [own for own, _ in groupby(mask)].count(True)
    earned = [0.0] * turns
    for token, reward in score_episode(rollout.episode, rollout.config.rewards).token_rewards:
        earned[[own for own, _ in groupby(mask[: token + 1])].count(True) - 1] += reward
    return earned or [0.0]


class TurnGRPOTrainer(GRPOTrainer):
    """GRPO in which a token is judged by what its rollout earned from its turn on, not by what it had earned before.

    The advantage of a turn is that sum minus the mean return of its group. It is divided by the standard deviation of
    these sums over all turns of the group, or of the batch (`scale_rewards`), where TRL takes that of the returns:
    rollouts may earn nearly the same in turns that differ much. Turns of the same number are not compared with each
    other: the policy decides how many there are. It tells environments when a turn begins, without which they cannot
    count the calls of one.
    """

    def _generate_single_turn(self, *given: Any, **named: Any) -> Any:
        for environment in self.environments or ():
            environment._begin_turn()  # noqa: SLF001 - public functions are tools of the model
        return super()._generate_single_turn(*given, **named)

    def _calculate_rewards(self, *given: Any) -> Tensor:
        self._scored: Tensor = super()._calculate_rewards(*given)
        return self._scored

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ConfigError("turns have no advantages of their own with normalize_then_sum", "sum_then_normalize")
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        environments = self.environments or [row["environments"] for row in inputs]
        earned = [environment.turn_rewards for environment in environments]
        own = output["completion_mask"] * output.get("tool_mask", 1)
        first = self.accelerator.process_index * len(inputs)
        above, spread = (each[first : first + len(inputs), None] for each in self._judge(gather_object(earned)))
        output["advantages"] = (above - self._weight() * earned_before(own, earned)) / spread
        return output

    def _weight(self) -> float:
        """Return what TRL multiplies the rewards of searches by. Raises ConfigError where it is not given them."""
        weights = dict(zip(self.reward_funcs, self.reward_weights.tolist(), strict=True))
        if search_reward not in weights:
            raise ConfigError("turns have no rewards: search_reward is not among the reward functions", "add it")
        return float(weights[search_reward])

    def _judge(self, turn_rewards: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
        """Return the returns minus their group's mean, and what advantages are divided by, of all processes' rows."""
        returns = (self._scored * self.reward_weights.to(self._scored.device)).nansum(dim=1)
        group = self.num_generations if self.model.training else self.num_generations_eval
        above = returns - returns.view(-1, group).mean(dim=1).repeat_interleave(group)
        if self.scale_rewards == "none":
            return above, torch.ones_like(returns)
        before = [accumulate(rewards[:-1], initial=0.0) for rewards in turn_rewards]
        weight, compared = self._weight(), len(returns) if self.scale_rewards == "batch" else group
        left = [
            returns.new_tensor([total - weight * each for each in row])
            for total, row in zip(returns, before, strict=True)
        ]
        groups = (torch.cat(left[at : at + compared]) for at in range(0, len(left), compared))
        spreads = [each.std(correction=int(len(each) > 1)) for each in groups]  # 0 of a single turn
        return above, (torch.stack(spreads) + _SMALL).repeat_interleave(compared)


def earned_before(own: Tensor, turn_rewards: Sequence[Sequence[float]]) -> Tensor:
    """Return what a rollout had earned before the turn of each token, as (rows, tokens); turns are runs of `own`."""
    before = torch.zeros(own.shape, device=own.device)
    starts = own.bool() & ~torch.nn.functional.pad(own[:, :-1], (1, 0)).bool()
    turns = (starts.cumsum(dim=1) - 1).clamp(min=0)
    for row, rewards in enumerate(turn_rewards):
        earned = torch.tensor([0.0, *rewards], device=own.device).cumsum(dim=0)[:-1]
        before[row] = earned[turns[row].clamp(max=len(earned) - 1)]
    return before
