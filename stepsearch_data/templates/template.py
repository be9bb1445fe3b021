"""Templates: what a model is told and how a trajectory is written out, in parts with `${placeholders}`.

`system` (may be absent) and `user` are the prompt. The model writes `start` in its first turn, `next` in each
later one, `again` after a search that did not help, and `last` or, where there is no answer, `abstain` in its last;
`information` and `document` are what the environment answers.
A template with a part `tool`, a function's definition in JSON, calls it in every turn but the last,
and the environment answers as `tool`; otherwise the model writes tags, and the environment answers
as `user`. Its parts `open` and `find` define the functions that read what a search has shown, where a
policy may call them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stepsearch_data.core.text import NOTHING_FOUND
from stepsearch_data.templates.examples import Example, Paragraph, Search

Message = dict[str, Any]

PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_TAG = re.compile(r"</?(\w+)>")
_SEARCH, _THOUGHT = re.compile("<search>.*?</search>", re.DOTALL), re.compile("</?(?:think|plan|observation)>")
_LIKE_A_HEADER = re.compile(r"^(?=\[\d{1,5}\] )", re.MULTILINE)  # as rewards cut the documents of a tool
_DIALECTS = ("think", "plan", "search", "information", "observation", "answer")  # what rewards read as tags


@dataclass(frozen=True)
class Turn:
    """What the model writes, and the query that it asks; none in the last turn."""

    text: str
    query: str | None


@dataclass(frozen=True)
class Template:
    """The parts of a template, by name."""

    name: str
    parts: dict[str, str]

    @cached_property
    def tool(self) -> dict[str, Any] | None:
        """Return the search function's definition; None where the model writes tags."""
        return json.loads(self.parts["tool"]) if "tool" in self.parts else None

    def functions(self, more: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the definitions of the functions that may be called: the search, and those of more parts."""
        return [json.loads(self.parts[part]) for part in ("tool", *more)]

    @cached_property
    def argument(self) -> tuple[str, bool]:
        """Return the name of the argument that takes the query, and whether it takes a list of them."""
        assert self.tool is not None
        name, kind = next(iter(self.tool["parameters"]["properties"].items()))
        return name, kind.get("type") == "array"

    @cached_property
    def _tags(self) -> re.Pattern[str]:
        names = sorted({*_DIALECTS, *(name for part in self.parts.values() for name in _TAG.findall(part))})
        return re.compile(rf"<(/?(?:{'|'.join(names)}))>")

    def prompt(self, question: str) -> list[Message]:
        """Return the messages that open a conversation."""
        roles = [role for role in ("system", "user") if role in self.parts]
        return [{"role": role, "content": self._fill(role, question=question)} for role in roles]

    def turn(self, example: Example, at: int, search: Search | None = None) -> Turn:
        """Return the model's turn at a step, from 0: with the trajectory's search, or with another one."""
        step = example.steps[at]
        query, own = (search or step.search).query, (search or step.search).text
        if own:
            return Turn(self._own(own), query)
        part = "next" if at else "start"
        if at and example.steps[at - 1].hop == step.hop:
            part = "again"
        values = self._values(example, at) | {"sub_question": step.sub_question, "query": query}
        return Turn(self._fill(part, **values), self.inert(query))

    def last(self, example: Example) -> Turn:
        """Return the model's last turn, which answers."""
        if example.final:
            return Turn(self._own(example.final), None)
        part = "abstain" if example.abstains else "last"
        return Turn(self._fill(part, **self._values(example, len(example.steps)), answer=example.answers[0]), None)

    def observation(self, documents: Sequence[Paragraph]) -> str:
        """Return what the environment answers to a search.

        What a tool returns has no tags: lines of a document that look like the header of another one are indented.
        """
        shown = "\n".join(
            self._fill("document", rank=str(rank), title=self._indent(document.title), text=self._indent(document.text))
            for rank, document in enumerate(documents, start=1)
        )
        if self.tool and not documents:
            shown = NOTHING_FOUND
        return PLACEHOLDER.sub(lambda _: shown, self.parts["information"])

    def messages(self, turn: Turn, documents: Sequence[Paragraph] | None = None) -> list[Message]:
        """Return a turn as chat messages: the model's, and the environment's where documents are given."""
        wrote: Message = {"role": "assistant", "content": turn.text}
        if self.tool and turn.query is not None:
            name, many = self.argument
            arguments = {name: [turn.query] if many else turn.query}
            wrote["tool_calls"] = [
                {"type": "function", "function": {"name": self.tool["name"], "arguments": arguments}}
            ]
        if documents is None:
            return [wrote]
        return [wrote, {"role": "tool" if self.tool else "user", "content": self.observation(documents)}]

    def conversation(self, example: Example, steps: int | None = None) -> list[Message]:
        """Return the prompt and the first `steps` rounds; by default all of them and the answer."""
        messages = self.prompt(example.question)
        for at, step in enumerate(example.steps[:steps]):
            messages += self.messages(self.turn(example, at), step.search.documents)
        return messages if steps is not None else messages + self.messages(self.last(example))

    def rounds(self, example: Example, steps: int) -> str:
        """Return the text of the first `steps` rounds as one response holds it, each line ended."""
        parts = []
        for at, step in enumerate(example.steps[:steps]):
            parts += [self.turn(example, at).text, self.observation(step.search.documents)]
        return "".join(f"{part}\n" for part in parts)

    def response(self, example: Example) -> str:
        """Return the whole trajectory as one response holds it: every round, then the answer."""
        return self.rounds(example, len(example.steps)) + self.last(example).text

    def opening(self, question: str) -> str:
        """Return the prompt as text, for models without a chat template."""
        return "\n\n".join(message["content"] for message in self.prompt(question)) + "\n"

    def _values(self, example: Example, at: int) -> dict[str, str]:
        found = {"found": example.steps[at - 1].found} if at else {}
        return {"question": example.question, "hops": str(example.hops), **found}

    def _fill(self, part: str, **values: str) -> str:
        return PLACEHOLDER.sub(lambda match: self.inert(values[match[1]]), self.parts[part])

    def _indent(self, text: str) -> str:
        return _LIKE_A_HEADER.sub(" ", text) if self.tool else text

    def _own(self, text: str) -> str:
        """Return a turn that a policy wrote with tags; a template with a tool has a call in place of the search."""
        return _THOUGHT.sub("", _SEARCH.sub("", text)).strip() if self.tool else text

    def inert(self, text: str) -> str:
        """Remove the angle brackets of tags in a text of the data, and of tags that this leaves behind."""
        while "<" in text and (clean := self._tags.sub(r"\1", text)) != text:
            text = clean
        return text
