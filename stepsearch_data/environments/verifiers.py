"""verifiers 0.4 (v1): questions of a store as a taskset, and a harness that plays them in its own process.

`export --format verifiers` writes a package that exports both. What each turn earned is in `trace.info`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import httpx2
import orjson
import verifiers.v1 as vf
from pydantic import BeforeValidator, Field

from stepsearch_data.environments.config import EnvironmentConfig, task_of
from stepsearch_data.environments.environment import SearchEnvironment, final_answer
from stepsearch_data.environments.tagged import TaggedEnvironment
from stepsearch_data.trainer.stops import STOPS, close_turn

_SECONDS = 600.0  # for one reply
_METRICS = ("answer_em", "answer_correct", "search_key_score", "format_ok")


class SearchData(vf.TaskData):
    """A question, with what its rollouts are scored against. The model is shown only the prompt."""

    data_source: str
    target: list[str]
    search_keys: list[list[str]]
    support_docs: list[dict[str, str]]


class SearchTask(vf.Task[SearchData]):
    """Scores what the harness has played."""

    @vf.reward
    async def earned(self, trace: vf.Trace) -> dict[str, float]:
        """Return r_answer + γ_key · r_key, and the sum of the step rewards: together what the rollout earned."""
        return {"score": trace.info["scores"]["score"], "step_rewards": sum(trace.info["scores"]["step_rewards"])}

    @vf.metric
    async def measured(self, trace: vf.Trace) -> dict[str, float]:
        """Return the parts of the score, and how often was searched, opened and found."""
        scores, reads = trace.info["scores"], trace.info.get("reads", {})
        return {
            **{name: float(scores[name]) for name in _METRICS},
            "searches": len(scores["information_gain"]),
            **{name: float(count) for name, count in reads.items()},
        }


class SearchTasksetConfig(vf.TasksetConfig):
    """Which questions are asked."""

    split: str = "train"


class SearchTaskset(vf.Taskset[SearchTask, SearchTasksetConfig]):
    """The questions of an export: `SPLIT.jsonl` in `folder`, the package's own."""

    folder: ClassVar[Path]

    def load(self) -> Iterable[SearchTask]:
        """Yield the questions of the split, in the order of the store."""
        with open(self.folder / f"{self.config.split}.jsonl", "rb") as lines:
            for line in lines:
                row = orjson.loads(line)
                yield SearchTask(SearchData(id=row.pop("question_id"), **row), self.config.task)


def _listed(value: Any) -> Any:
    """Return what a command line says as a list: one text, or several as JSON."""
    if not isinstance(value, str):
        return value
    return orjson.loads(value) if value.startswith("[") else [value]


_Texts = Annotated[list[str], BeforeValidator(_listed)]


class SearchHarnessConfig(vf.HarnessConfig):
    """What is searched, and how rollouts are worded and rewarded: the fields of `EnvironmentConfig`."""

    store: str = "store"
    engine: str = ""
    template: str = "tools"
    preset: str = "paper"
    switches: _Texts = Field(default_factory=list)
    max_turns: int = 5
    topk: int = 3
    max_length: int = 4096
    max_new_tokens: int = 500
    max_obs_length: int = 600
    allow_templates: bool = False
    settings: _Texts = Field(default_factory=list)
    tools: _Texts = Field(default_factory=list)
    page_length: int = 4_000
    max_reads: int = 10
    calls_per_turn: int = 1

    @property
    def environment(self) -> EnvironmentConfig:
        """Return them. Raises ConfigError."""
        return EnvironmentConfig.of(**{field.name: getattr(self, field.name) for field in fields(EnvironmentConfig)})


class SearchHarness(vf.Harness[SearchHarnessConfig]):
    """Plays a question: asks the model for turns, searches in this process. The model gets no shell and no file."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: vf.Trace,
        runtime: Any,  # noqa: ARG002 - nothing runs outside of this process
        endpoint: str,
        secret: str,
        mcp_urls: Mapping[str, str],  # noqa: ARG002 - no tools but ours
        data: SearchData,
        tool_interception_url: str | None = None,  # noqa: ARG002 - no tools but ours
    ) -> vf.ProgramResult:
        """See `Harness.launch`. A failing engine ends the rollout with an error; verifiers does not score it."""
        config = self.config.environment
        environment = SearchEnvironment(config) if config.wording.tool else TaggedEnvironment(config)
        environment.reset(task_of(data.model_dump()))
        headers, turns = {"Authorization": f"Bearer {secret}"}, list[float]()
        try:
            async with httpx2.AsyncClient(base_url=endpoint, headers=headers, timeout=_SECONDS) as client:
                chat = _Chat(client, ctx.model, _opening(data))
                if isinstance(environment, SearchEnvironment):
                    await _call_tools(environment, chat, turns)
                else:
                    await _write_tags(environment, chat, turns)
        finally:  # verifiers scores rollouts that it stops: by turns, tokens or time
            trace.info |= _settled(environment, turns)
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


class _Chat:
    """A conversation that grows."""

    def __init__(self, client: httpx2.AsyncClient, model: str, messages: list[dict[str, Any]]) -> None:
        self._client, self._model, self.messages = client, model, messages

    async def reply(self, **options: Any) -> dict[str, Any]:
        """Ask for the next message, and add it; `finish_reason` says why it ended."""
        body = {"model": self._model, "messages": self.messages, **options}
        answer = await self._client.post("chat/completions", json=body)
        answer.raise_for_status()
        choice = answer.json()["choices"][0]
        self.messages.append({name: value for name, value in choice["message"].items() if value is not None})
        return {**choice["message"], "finish_reason": choice["finish_reason"]}

    def add(self, role: str, content: str, **more: str) -> None:
        """Add what the environment says."""
        self.messages.append({"role": role, "content": content, **more})


async def _call_tools(environment: SearchEnvironment, chat: _Chat, turns: list[float]) -> None:
    """Play with tool calls until a message calls none; add what each message earned to `turns`."""
    config = environment.config
    tools = [{"type": "function", "function": function} for function in config.functions]
    for _ in range(config.most_turns + 1):  # one more for who calls when no search is left
        wrote = await chat.reply(tools=tools)
        turns.append(0.0)
        environment.begin_turn()
        for call in wrote.get("tool_calls") or ():
            function = call["function"]
            found = await environment.call_async(str(function.get("name")), _arguments(function))
            chat.add("tool", found.text, tool_call_id=call["id"])
            turns[-1] += found.reward
        if not wrote.get("tool_calls"):
            environment.answer(final_answer(wrote.get("content") or ""))
            return


def _arguments(function: Mapping[str, Any]) -> Any:
    """Return the arguments of a call, None where they are no JSON."""
    with suppress(orjson.JSONDecodeError, TypeError):
        return orjson.loads(function["arguments"])
    return None


async def _write_tags(environment: TaggedEnvironment, chat: _Chat, turns: list[float]) -> None:
    """Play in tags until the rules end it; add what each turn earned to `turns`."""
    done = False
    while not done:
        wrote = await chat.reply(stop=list(STOPS))
        text = close_turn(wrote.get("content") or "", stopped=wrote["finish_reason"] == "stop")
        chat.messages[-1]["content"] = text
        observation, reward, done = await asyncio.to_thread(environment.step, text)
        turns.append(reward)
        if not done:
            chat.add("user", observation)


def _settled(environment: SearchEnvironment | TaggedEnvironment, turns: Sequence[float]) -> dict[str, Any]:
    """Return what is kept of a rollout: its scores, and what each turn earned; the last has all that is left."""
    if isinstance(environment, SearchEnvironment) and not environment.scores:
        environment.answer(None)
    scores = environment.scores
    assert scores
    *earlier, last = turns or [0.0]
    rest = sum(scores.step_rewards, scores.score) - sum(earlier, last)
    found = {"scores": vars(scores), "turn_rewards": [*earlier, last + rest]}
    if isinstance(environment, SearchEnvironment) and environment.counts:
        found["reads"] = environment.counts
    return found


def _opening(data: SearchData) -> list[dict[str, Any]]:
    """Return the messages of the prompt."""
    return [message.model_dump(exclude_none=True) for message in data.prompt or ()]
