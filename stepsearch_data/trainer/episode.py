"""What happens between the policy and the search engine: one question, turn by turn.

The policy writes until `</search>` or `</answer>`. A search is answered with documents, anything else
than a search or an answer with a warning and another try; when no search is left the policy is told
so, and writes a last turn. Tokens are kept as they were sampled and observations as they were encoded:
text is never tokenised anew, so rewards lie exactly on the tokens that earned them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stepsearch_data.exports.examples import Paragraph
from stepsearch_data.exports.template import Template
from stepsearch_data.trainer.settings import Limits

STOPS = ("</search>", "</answer>")
_QUERY = re.compile(r"<search>((?:(?!<search>).)*)</search>\s*\Z", re.DOTALL)
_AGAIN = (
    "\n<warning> This is neither a search nor an answer. Write <search> a query </search> or "
    "<answer> the answer </answer>. </warning>\n"
)
_NO_MORE = "<warning> No search is left. Answer now. </warning>\n"

Encode = Callable[[str], list[int]]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Task:
    """A question to train on or to evaluate, with what its answer and its searches are scored against."""

    id: str
    question: str
    prompt: str
    answers: tuple[str, ...]
    keys: list[list[str]] = field(default_factory=list)
    golds: tuple[Paragraph, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Search:
    """A search of an episode: its query, what it found, and the response's token and character that it ends with."""

    query: str
    documents: tuple[Paragraph, ...]
    token: int
    character: int


@dataclass
class Episode:
    """A rollout that grows. `own` tells which tokens of the response the policy wrote."""

    task: Task
    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    text: str = ""
    searches: list[Search] = field(default_factory=list)
    turns: int = 0
    invalid: int = 0
    ended: str = ""
    """Why it ended: answer, no answer (after the last turn), end of text, length; empty while it goes on."""

    def append(self, tokens: Sequence[int], text: str, *, own: bool) -> None:
        """Add what was written."""
        self.tokens += tokens
        self.own += [own] * len(tokens)
        self.text += text


class Referee:
    """Applies the rules. `eos` are the tokens with which a model ends its text."""

    def __init__(self, template: Template, limits: Limits, encode: Encode, decode: Decode, eos: frozenset[int]) -> None:
        self.limits = limits
        self._template = template
        self._encode, self._decode, self._eos = encode, decode, eos

    def begin(self, task: Task) -> Episode:
        """An episode at its start. The prompt keeps its end where it is longer than half of `Limits.total`."""
        return Episode(task, self._encode(task.prompt)[-(self.limits.total // 2) :])

    def budget(self, episode: Episode) -> int:
        """Tokens that the policy may write in this turn."""
        left = self.limits.total - len(episode.prompt) - len(episode.tokens)
        return max(0, min(self.limits.turn, left))

    def turn(self, episode: Episode, tokens: Sequence[int]) -> str | None:
        """Take what the policy wrote in a turn; the query that it asks, if it asks one that is still allowed."""
        text = self._decode([token for token in tokens if token not in self._eos])
        episode.append(tokens, text, own=True)
        last = episode.turns >= self.limits.turns
        episode.turns += 1
        if text.rstrip().endswith("</answer>"):
            episode.ended = "answer"
        elif last:
            episode.ended = "no answer"
        elif tokens and tokens[-1] in self._eos:
            episode.ended = "end of text"
        elif (match := _QUERY.search(text)) and match[1].strip():
            return match[1].strip()
        else:
            episode.invalid += 1
            self._observe(episode, _AGAIN)
        return None

    def found(self, episode: Episode, query: str, documents: Sequence[Paragraph]) -> None:
        """Show what the engine found for the turn's query."""
        at = len(episode.tokens) - 1, len(episode.text.rstrip())
        episode.searches.append(Search(query, tuple(documents), *at))
        shown = self._cut(self._template.observation(documents))
        self._observe(episode, f"\n{shown}\n")

    def _observe(self, episode: Episode, text: str) -> None:
        """Add an observation, whole or not at all: where it does not fit, the episode ends."""
        if episode.turns >= self.limits.turns:
            text += _NO_MORE
        tokens = self._encode(text)
        if len(episode.prompt) + len(episode.tokens) + len(tokens) >= self.limits.total:
            episode.ended = "length"
        else:
            episode.append(tokens, text, own=False)

    def _cut(self, shown: str) -> str:
        """An observation of at most so many tokens, the closing tag kept: without it two rounds would read as one."""
        tokens = self._encode(shown)
        if len(tokens) <= self.limits.observation:
            return shown
        body, tag, after = shown.rpartition("</information>")
        keep = max(0, self.limits.observation - len(self._encode(tag + after)) - 1)
        return f"{self._decode(self._encode(body)[:keep])} {tag}{after}"
