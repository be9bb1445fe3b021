"""A policy behind an OpenAI-compatible server: its turns are replies, cut where a query or an answer ends.

Only the server knows its tokens, so characters stand for them here, four for one. As a chat, what the
engine found is the user's next message. `raw` continues one text instead, prompt and all, which is what
a model that was trained here has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.evaluation.policy import Played
from stepsearch_data.llm.chat import ChatModel, Message, Reply, TurnRequest
from stepsearch_data.llm.service import Llm
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.characters import A_TOKEN, END, decode, encode, in_characters
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.rollout import Retrieve, roll_out
from stepsearch_data.trainer.search_env import SearchEnv, Task
from stepsearch_data.trainer.stops import STOPS, close_turn

T = TypeVar("T")


class Served:
    """A server that is asked for turns. Replies are kept in the file `settings.replay`."""

    def __init__(self, settings: LlmSettings, batch: int) -> None:
        self.batch = batch
        self._llm = Llm(settings, "eval")
        self._runner = asyncio.Runner()

    def describe(self) -> str:
        """See `Policy.describe`."""
        return self._llm.describe()

    def usage(self) -> dict[str, float]:
        """See `Policy.usage`."""
        counts, budget = self._llm.counts, self._llm.budget
        tokens = {"prompt_tokens": budget.usage.prompt_tokens, "completion_tokens": budget.usage.completion_tokens}
        return {"calls": counts["calls"], "replayed": counts["cached"], **tokens, "cost": budget.cost}

    def close(self) -> None:
        """Close the connections, and the file of replies."""
        with self._runner:
            self._runner.run(self._llm.close())


class ServedPolicy(Served):
    """See `Policy`. It writes tags."""

    def __init__(
        self,
        settings: LlmSettings,
        model: str,
        template: Template,
        limits: Limits,
        *,
        batch: int,
        temperature: float,
        seed: int,
        raw: bool,
    ) -> None:
        super().__init__(settings, batch)
        self._env = SearchEnv(template, in_characters(limits), encode, decode, frozenset([END]))
        self._sampler = EndpointSampler(self._llm, self._runner, model, temperature=temperature, seed=seed, raw=raw)

    def play(self, tasks: Sequence[Task], retrieve: Retrieve) -> list[Played]:
        """See `Policy.play`."""
        self._sampler.draws = [task.sample - 1 for task in tasks]
        episodes = roll_out(tasks, self._env, self._sampler, retrieve)
        spent, refused = self._sampler.spent, self._sampler.refused
        return [Played(episode, spent[at], refused.get(at, "")) for at, episode in enumerate(episodes)]


class EndpointSampler:
    """A `Sampler` that asks `llm`, all rows of a turn at once.

    A row that the server refuses ends its text; `refused` says why, by the row's place in the batch. `spent` counts
    the tokens that a row's replies had. `draws` are added to the seed, one for each row of the next batch.
    """

    draws: Sequence[int] = ()

    def __init__(
        self,
        llm: ChatModel,
        runner: asyncio.Runner,
        model: str,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        raw: bool = False,
    ) -> None:
        self._llm, self._runner, self._model = llm, runner, model
        self._temperature, self._seed, self._raw = temperature, seed, raw

    def start(self, prompts: Sequence[list[int]]) -> None:
        """See `Sampler.start`."""
        self._said = [[decode(prompt)] for prompt in prompts]  # the user's and the model's in turn
        self._rows = list(range(len(prompts)))
        self.spent = [0] * len(prompts)
        self.refused: dict[int, str] = {}

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """See `Sampler.replace_last`. Never asked: replies are cut at their stop, character by character."""

    def extend(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """See `Sampler.extend`."""
        self._rows = [self._rows[row] for row in rows]
        for row, seen in zip(self._rows, observations, strict=True):
            self._said[row].append(decode(seen))

    def generate(self, max_new_tokens: Sequence[int]) -> list[list[int]]:
        """See `Sampler.generate`. Raises ProviderError, BudgetError."""
        asking = (self._ask(row, left) for row, left in zip(self._rows, max_new_tokens, strict=True))
        return self._runner.run(at_once(asking))

    async def _ask(self, row: int, budget: int) -> list[int]:
        if not budget:
            return []
        said, roles = self._said[row], ("user", "assistant")
        chat = tuple(Message(roles[at % 2], text.strip()) for at, text in enumerate(said))
        request = TurnRequest(
            model=self._model,
            messages=(Message("user", "".join(said)),) if self._raw else chat,
            temperature=self._temperature,
            max_tokens=max(1, budget // A_TOKEN),
            sample=self._seed + (self.draws[row] if self.draws else 0),
            stop=STOPS,
            raw=self._raw,
        )
        try:
            reply = await self._llm.complete(request)
        except RowRejected as error:
            self.refused[row] = str(error)
            return [END]
        self.spent[row] += tokens_of(reply)
        text, ended = turn_of(reply)
        self._said[row].append(text)
        return [*encode(text), *([END] if ended and self._raw else [])]  # in a chat only the message ends


async def at_once(asking: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results, in their order. The first error is raised, and ends the others."""
    tasks = [asyncio.create_task(each) for each in asking]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def tokens_of(reply: Reply) -> int:
    """Return how many tokens a reply has, as the server says or else estimated."""
    return reply.usage.completion_tokens or -(-len(reply.text) // A_TOKEN)


def turn_of(reply: Reply) -> tuple[str, bool]:
    """Return what the policy wrote in its turn, and whether it ended its text rather than its turn."""
    text = close_turn(reply.text, stopped=reply.finish_reason == "stop")
    return text, reply.finish_reason == "stop" and not text.endswith(STOPS)
