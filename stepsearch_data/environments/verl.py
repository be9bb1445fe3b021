"""verl 0.9: tools with a memory, an agent loop whose rewards lie on their tokens, and `compute_score`.

verl makes a tool anew for each call, so what a rollout has searched for is kept in its `agent_data`. The loop settles
it by what the response shows, and gives `rm_scores` per token. GAE uses them where they are; GRPO sums them.
Rows are those of the export `verl --template tools`. docs/trainers.md has the two YAML files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar
from uuid import uuid4

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse

from stepsearch_data.core.errors import ConfigError, StepSearchError
from stepsearch_data.environments.config import EnvironmentConfig, task_of
from stepsearch_data.environments.environment import SearchEnvironment, final_answer
from stepsearch_data.rewards import Preset, Scores, read
from stepsearch_data.scoring.scorer import configure
from stepsearch_data.trainer.episode_score import score_task

_KEY = "stepsearch"


@dataclass
class Memory:
    """What a rollout has searched for, and in which of its turns, from 0."""

    played: SearchEnvironment
    turns: list[int] = field(default_factory=list)
    failure: StepSearchError | None = None
    calling: int = -1
    """The turn whose calls are counted."""


class SearchTool(BaseTool):
    """Searches. Its config has fields of `EnvironmentConfig`, its function's definition is the template's."""

    reads: ClassVar[str] = ""
    """Which function it is beside the search."""

    def __init__(self, config: dict[str, Any], tool_schema: OpenAIFunctionToolSchema | None = None) -> None:
        options = {name: value for name, value in config.items() if name != "type"}
        self.environment = EnvironmentConfig.of(**options)
        self._rows: dict[str, Mapping[str, Any]] = {}
        super().__init__(config, tool_schema)

    def get_openai_tool_schema(self) -> OpenAIFunctionToolSchema:
        """Return the template's definition of the function. Raises ConfigError for a template without one."""
        search, *others = self.environment.functions
        found = next((each for each in others if each["name"] == self.reads), None) if self.reads else search
        if found is None:
            raise ConfigError(f"{self.reads} is not among the tools of its config", f"tools: [{self.reads}]")
        return OpenAIFunctionToolSchema.model_validate({"type": "function", "function": found})

    def begin(self, row: Mapping[str, Any]) -> Memory:
        """Begin a rollout of a row's `create_kwargs`."""
        memory = Memory(SearchEnvironment(self.environment))
        memory.played.reset(task_of(row))
        return memory

    async def create(self, instance_id: str | None = None, **row: Any) -> tuple[str, ToolResponse]:
        """See `BaseTool.create`."""
        identity = instance_id or str(uuid4())
        self._rows[identity] = row["create_kwargs"]
        return identity, ToolResponse()

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], *, agent_data: Any, **_: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """See `BaseTool.execute`. The metrics are the parts of the reward."""
        if _KEY not in agent_data.extra_fields:
            given = (self._rows[instance_id], *(each.get("create_kwargs") for each in agent_data.tools_kwargs.values()))
            agent_data.extra_fields[_KEY] = self.begin(next(row for row in given if row))  # rows are for the search
        memory: Memory = agent_data.extra_fields[_KEY]
        if memory.calling != agent_data.assistant_turns:
            memory.calling = agent_data.assistant_turns
            memory.played.begin_turn()
        try:
            found = await memory.played.call_async(self.name, parameters)
        except StepSearchError as error:  # verl would show it to the model and go on
            memory.failure = error
            raise
        if len(memory.played.results) > len(memory.turns):
            memory.turns.append(agent_data.assistant_turns - 1)
        return ToolResponse(text=found.text), found.reward, {"gain": found.gain, "penalty": found.penalty}

    async def release(self, instance_id: str, **_: Any) -> None:
        """See `BaseTool.release`."""
        self._rows.pop(instance_id, None)


class OpenTool(SearchTool):
    """Opens what a search has shown. Its config is that of the search, with `tools`."""

    reads = "open"


class FindTool(SearchTool):
    """Finds words in what a search has shown. Its config is that of the search, with `tools`."""

    reads = "find"


class SearchOutput(AgentLoopOutput):
    """A rollout with rewards on tokens of its response: (token, reward) each."""

    token_rewards: list[tuple[int, float]]

    def as_dict(self) -> dict[str, Any]:
        """See `AgentLoopOutput.as_dict`. `rm_scores` are (tokens,)."""
        output: dict[str, Any] = super().as_dict()
        output["rm_scores"] = torch.zeros(len(output["response_mask"]), dtype=torch.float32)
        for token, reward in output.pop("token_rewards"):
            output["rm_scores"][token] += reward
        return output


class SearchAgentLoop(ToolAgentLoop):
    """verl's `tool_agent`, with the rewards of each turn on the last token of that turn.

    Raises SearchError where the engine failed, ConfigError where verl cut what was found after it had been rewarded.
    """

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **row: Any) -> SearchOutput:
        """See `AgentLoopBase.run`."""
        output = await super().run(sampling_params, priority, **row)
        tool = next(tool for tool in self.tools.values() if isinstance(tool, SearchTool) and not tool.reads)
        memory = output.extra_fields.pop(_KEY, None) or tool.begin(row["tools_kwargs"][tool.name]["create_kwargs"])
        if memory.failure:
            raise memory.failure
        texts = [returned.text for returned in (*memory.played.results, *memory.played.reads)]
        if any(len(text) > self.max_tool_response_length for text in texts):
            raise ConfigError(
                "what a tool returned is longer than multi_turn.max_tool_response_length",
                "set actor_rollout_ref.rollout.multi_turn.max_tool_response_length=20000",
            )
        runs = _runs(output.response_mask)
        shown = sum(end < len(output.response_mask) for _, end in runs)  # turns after which the environment spoke
        memory.played.keep(sum(turn < shown for turn in memory.turns))
        words = output.response_ids[slice(*runs[-1])] if runs and shown < len(runs) else []
        _, calls = await self.tool_parser.extract_tool_calls(words, [each.tool_schema for each in self.tools.values()])
        said = self.tokenizer.decode(words, skip_special_tokens=True)
        scores = memory.played.answer(None if calls else final_answer(said))
        ends = [end - 1 for _, end in runs]
        rewards = [(ends[turn], reward) for turn, reward in zip(memory.turns, scores.step_rewards, strict=False)]
        rewards += [(end, scores.score) for end in ends[-1:]]
        output.extra_fields["reward_extra_info"] = measures(scores)
        whole = {name: getattr(output, name) for name in output.model_fields_set}
        return SearchOutput(**{**whole, "reward_score": sum(reward for _, reward in rewards), "token_rewards": rewards})


def _runs(mask: Sequence[int]) -> list[tuple[int, int]]:
    """Return where the policy wrote: the first token of each turn, and the one after its last."""
    runs, at = [], 0
    for own, tokens in groupby(mask):
        end = at + len(list(tokens))
        if own:
            runs.append((at, end))
        at = end
    return runs


def measures(scores: Scores) -> dict[str, float]:
    """Return what verl logs of a rollout's scores."""
    return {
        "answer_em": scores.answer_em,
        "answer_f1": scores.answer_correct,
        "search_key_score": scores.search_key_score,
        "information_gain": sum(scores.information_gain),
        "redundancy_penalty": sum(scores.redundancy_penalty),
    }


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Mapping[str, Any],
    extra_info: Mapping[str, Any] | None = None,
    preset: Preset = "paper",
    switches: Sequence[str] = (),
    **_: Any,
) -> dict[str, float]:
    """Score a response in tags: verl's `custom_reward_function`, for loops of your own and for validation.

    verl puts the whole `score` on the last token; the rewards of rounds are in it. An `<information>` is believed,
    whoever wrote it. Raises ConfigError.
    """
    rewards = configure(preset, switches)
    row = {"data_source": data_source, "ground_truth": ground_truth, "extra_info": dict(extra_info or {})}
    scores = score_task(read(solution_str, rewards), task_of(row), rewards)
    return {"score": sum(scores.step_rewards, scores.score), **measures(scores)}
