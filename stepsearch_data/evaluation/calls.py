"""A policy behind an OpenAI-compatible server that calls tools: its turns are messages of a chat.

The rules are those of `SearchEnvironment`: a message without a call ends the rollout. What does not fit into the length
of a rollout, which the definitions of its functions are part of, is not shown, and ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment, SearchResult, final_answer
from stepsearch_data.evaluation.endpoint import Served, at_once, tokens_of
from stepsearch_data.evaluation.policy import Played
from stepsearch_data.llm.chat import CallMessage, Message, Reply, ToolRequest
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.characters import A_TOKEN, in_characters
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.rollout import Retrieve
from stepsearch_data.trainer.search_env import Episode, Search, Task


@dataclass
class _Rollout:
    """A conversation that grows. `written` are its messages after the prompt."""

    task: Task
    environment: SearchEnvironment
    prompt: tuple[Message, ...]
    defined: int
    """Characters of the tools' definitions, which go with each request."""
    written: list[CallMessage] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)
    spent: int = 0
    turns: int = 0
    ended: str = ""
    refused: str = ""

    @property
    def characters(self) -> int:
        """Return how long it is, as it is asked for."""
        own = sum(len(each.content) + sum(len(str(call)) for call in _calls(each)) for each in self.messages)
        return self.defined + own

    @property
    def messages(self) -> tuple[Message, ...]:
        """Return the whole of it."""
        return (*self.prompt, *self.written)

    def played(self) -> Played:
        """Return what was played."""
        invalid = self.environment.invalid
        episode = Episode(self.task, [], searches=self.searches, turns=self.turns, invalid=invalid, ended=self.ended)
        messages = [each.as_sent() for each in self.written]
        return Played(episode, self.spent, self.refused, messages, self.environment.counts)


def _calls(message: Message) -> Sequence[dict[str, object]]:
    return message.tool_calls if isinstance(message, CallMessage) else ()


class CallingPolicy(Served):
    """See `Policy`. It calls the functions of the config."""

    def __init__(
        self,
        settings: LlmSettings,
        model: str,
        config: EnvironmentConfig,
        limits: Limits,
        *,
        batch: int,
        temperature: float,
        seed: int,
    ) -> None:
        super().__init__(settings, batch)
        self._config, self._limits = config, in_characters(limits)
        self._model, self._temperature, self._seed = model, temperature, seed
        self._functions = tuple(config.functions)
        self._defined = len(orjson.dumps(config.functions).decode())

    def play(self, tasks: Sequence[Task], retrieve: Retrieve) -> list[Played]:
        """See `Policy.play`. Every search of a turn goes to the engine in one batch."""
        rollouts = [self._begin(task) for task in tasks]
        while live := [rollout for rollout in rollouts if not rollout.ended]:
            replies = self._runner.run(at_once(map(self._ask, live)))
            taken = [self._take(rollout, reply) for rollout, reply in zip(live, replies, strict=True)]
            queries = [query for results in taken for query in results if isinstance(query, str)]
            found = iter(retrieve(queries, self._limits.topk) if queries else ())
            for rollout, results in zip(live, taken, strict=True):
                self._show(rollout, [(each, next(found)) if isinstance(each, str) else each for each in results])
        return [rollout.played() for rollout in rollouts]

    def _begin(self, task: Task) -> _Rollout:
        environment = SearchEnvironment(self._config)
        environment.reset(task)
        prompt = self._config.wording.prompt(task.question)
        messages = tuple(Message(each["role"], each["content"]) for each in prompt)
        return _Rollout(task, environment, messages, self._defined)

    async def _ask(self, rollout: _Rollout) -> Reply | None:
        """Ask for the next message; without one, the rollout has ended. Raises ProviderError, BudgetError."""
        left = min(self._limits.max_new_tokens, self._limits.max_length - rollout.characters)
        if left <= 0:
            rollout.ended = "length"
            return None
        request = ToolRequest(
            model=self._model,
            messages=rollout.messages,
            temperature=self._temperature,
            max_tokens=max(1, left // A_TOKEN),
            sample=self._seed + rollout.task.sample - 1,
            tools=self._functions,
        )
        try:
            return await self._llm.complete(request)
        except RowRejected as error:
            rollout.ended, rollout.refused = "refused", str(error)
            return None

    def _take(self, rollout: _Rollout, reply: Reply | None) -> list[SearchResult | str]:
        """Add a message; return what its calls got, or what they search for."""
        if reply is None:
            return []
        rollout.spent += tokens_of(reply)
        rollout.written.append(CallMessage("assistant", reply.text, reply.calls))
        rollout.turns += 1
        if not reply.calls:
            stopped = "length" if reply.finish_reason == "length" else "end of text"
            rollout.ended = stopped if final_answer(reply.text) is None else "answer"
            return []
        if rollout.turns == self._config.most_turns:
            rollout.ended = "no answer"
            return []
        environment = rollout.environment
        environment.begin_turn()
        functions = [call["function"] for call in reply.calls]
        return [environment.take(each["name"], orjson.loads(each["arguments"])) for each in functions]

    def _show(self, rollout: _Rollout, results: Sequence[SearchResult | tuple[str, list[Paragraph]]]) -> None:
        """Add what the calls of the last message got, all of it or nothing."""
        if not results:
            return
        calls, found, texts = rollout.written[-1].tool_calls, [], []
        for each in results:
            if isinstance(each, SearchResult):
                texts.append(each.text)
            else:
                shown = rollout.environment.show(*each)
                texts.append(shown.text)
                found.append(Search(each[0], shown.documents, 0, 0))
        if rollout.characters + sum(map(len, texts)) >= self._limits.max_length:
            rollout.ended = "length"
            return
        rollout.searches += found
        for call, text in zip(calls, texts, strict=True):
            rollout.written.append(CallMessage("tool", text, tool_call_id=call["id"]))
