"""What happens between the policy and the search engine: one question, turn by turn.

The policy writes until `</search>` or `</answer>`. A search is answered with documents, anything else
than a search or an answer with a warning and another try; when no search is left the policy is told
so, and writes a last turn. Tokens are kept as they were sampled and observations as they were encoded:
text is never tokenised anew, so rewards lie exactly on the tokens that earned them. One token may be
another: where the last of a turn reaches beyond its stop, what is beyond was not said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.config import Limits

STOPS = ("</search>", "</answer>")
_STOP = re.compile("|".join(STOPS))
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
    hops: int = 0
    """0 where nobody knows."""


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
    observations: list[tuple[int, int]] = field(default_factory=list)
    """Which characters of the text the environment wrote: from, and before."""
    searches: list[Search] = field(default_factory=list)
    """Those whose documents the policy has been shown."""
    written: int = 0
    """Tokens up to the end of the last turn; an observation may follow."""
    logps: list[float] = field(default_factory=list)
    """With which the policy's own tokens were sampled, where another engine than the trainer's model did."""
    turns: int = 0
    invalid: int = 0
    ended: str = ""
    """Why it ended: answer, no answer (after the last turn), end of text, length; empty while it goes on."""

    def append(self, tokens: Sequence[int], text: str, *, own: bool) -> None:
        """Add what was written, by the policy or by the environment."""
        if not own:
            self.observations.append((len(self.text), len(self.text) + len(text)))
        self.tokens += tokens
        self.own += [own] * len(tokens)
        self.text += text


def _stop(text: str) -> int:
    """Where a turn's text stops: after its first closing tag, or at its end."""
    found = _STOP.search(text)
    return found.end() if found else len(text)


class Referee:
    """Applies the rules. `eos` are the tokens with which a model ends its text; prompts may be encoded otherwise."""

    def __init__(
        self,
        template: Template,
        limits: Limits,
        encode: Encode,
        decode: Decode,
        eos: frozenset[int],
        encode_prompt: Encode | None = None,
    ) -> None:
        self.limits = limits
        self._template = template
        self._encode, self._decode, self._eos = encode, decode, eos
        self._encode_prompt = encode_prompt or encode

    def begin(self, task: Task) -> Episode:
        """An episode at its start. The prompt keeps its end where it is longer than half of `Limits.total`."""
        return Episode(task, self._encode_prompt(task.prompt)[-(self.limits.total // 2) :])

    def budget(self, episode: Episode) -> int:
        """Tokens that the policy may write in this turn."""
        left = self.limits.total - len(episode.prompt) - len(episode.tokens)
        return max(0, min(self.limits.turn, left))

    def turn(self, episode: Episode, tokens: Sequence[int]) -> str | None:
        """Take what the policy wrote in a turn; the query that it asks, if it asks one that is still allowed."""
        text = self._decode([token for token in tokens if token not in self._eos])
        if tail := self.tail(tokens):
            tokens, text = tokens[:-1], text[: _stop(text)]
        episode.append(tokens, text, own=True)
        episode.tokens += tail
        episode.own += [False] * len(tail)  # nobody sampled it: nothing is learnt from it
        episode.written = len(episode.tokens)
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

    def tail(self, tokens: Sequence[int]) -> list[int]:
        """What stands for the last token of a turn where that reaches beyond the turn's stop; else nothing.

        Byte-level vocabularies have tokens such as `></`, with which a tag ends and another begins.
        """
        *kept, last = tokens or [0]
        if not kept or last in self._eos:
            return []
        text, said = self._decode(tokens), self._decode(kept)
        end = _stop(text)
        if not text[end:].strip() or not text.startswith(said):
            return []
        return self._encode(text[len(said) : end])

    def found(self, episode: Episode, query: str, documents: Sequence[Paragraph]) -> None:
        """Show what the engine found for the turn's query."""
        token = max(place for place, own in enumerate(episode.own) if own)
        search = Search(query, tuple(documents), token, len(episode.text.rstrip()))
        shown = self._cut(self._template.observation(documents))
        if self._observe(episode, f"\n{shown}\n"):
            episode.searches.append(search)

    def _observe(self, episode: Episode, text: str) -> bool:
        """Add an observation, whole or not at all: where it does not fit, the episode ends."""
        if episode.turns >= self.limits.turns:
            text += _NO_MORE
        tokens = self._encode(text)
        if len(episode.prompt) + len(episode.tokens) + len(tokens) >= self.limits.total:
            episode.ended = "length"
            return False
        episode.append(tokens, text, own=False)
        return True

    def _cut(self, shown: str) -> str:
        """An observation of at most so many tokens, the closing tag kept: without it two rounds would read as one."""
        tokens = self._encode(shown)
        if len(tokens) <= self.limits.observation:
            return shown
        body, tag, after = shown.rpartition("</information>")
        keep = max(0, self.limits.observation - len(self._encode(tag + after)) - 1)
        return f"{self._decode(self._encode(body)[:keep])} {tag}{after}"
