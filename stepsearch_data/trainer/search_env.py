"""The environment: what happens between the policy and the search engine, one question, turn by turn.

The policy writes until `</search>` or `</answer>`. A search is answered with documents, anything else
than a search or an answer with a warning and another try; when no search is left the policy is told
so, and writes a last turn. Tokens are kept as they were sampled and observations as they were encoded:
text is never tokenised again, so rewards lie exactly on the tokens that earned them. One token may be
another: where the last of a turn reaches beyond its stop, what is beyond was not said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.forms import Form, Tags
from stepsearch_data.trainer.stops import Decode, Encode, cut_at_stop, cut_observation, replacement


@dataclass(frozen=True)
class Task:
    """A question to train on or to evaluate, with what its answer and its searches are scored against."""

    id: str
    question: str
    prompt: str
    answers: tuple[str, ...]
    search_keys: list[list[str]] = field(default_factory=list)
    support_docs: tuple[Paragraph, ...] = ()
    source: str = ""
    hops: int = 0
    """0 if unknown."""
    sample: int = 1
    """Which of several rollouts of the question, from 1."""


@dataclass(frozen=True)
class Search:
    """A search of an episode: its query, what it found, and the response's token and character that it ends with."""

    query: str
    documents: tuple[Paragraph, ...]
    token: int
    character: int
    shown: str = ""
    """What the policy was shown of the documents."""


@dataclass
class Episode:
    """A rollout that grows: a prompt, and a response in which policy and environment take turns."""

    task: Task
    prompt_ids: list[int]
    response_ids: list[int] = field(default_factory=list)
    response_mask: list[bool] = field(default_factory=list)
    """Which tokens of the response the policy wrote."""
    text: str = ""
    observations: list[tuple[int, int]] = field(default_factory=list)
    """Which characters of the text the environment wrote: from, and before."""
    searches: list[Search] = field(default_factory=list)
    """Those whose documents the policy has been shown."""
    turn_end: int = 0
    """Tokens up to the end of the last turn; an observation may follow."""
    sampling_logps: list[float] = field(default_factory=list)
    """With which the policy's tokens were sampled, where another engine than the trainer's model did."""
    turns: int = 0
    invalid: int = 0
    by_calls: bool = False
    """Whether it was written with calls of a tool, so that its tags mean nothing."""
    asked: list[str] = field(default_factory=list)
    """Every query, also of a search that was not run."""
    last_turn: str = ""
    ended: str = ""
    """Why it ended: answer, no answer (after the last turn), end of text, length; empty while it goes on."""

    def append(self, tokens: Sequence[int], text: str, *, by_policy: bool) -> None:
        """Add what the policy or the environment wrote."""
        if not by_policy:
            self.observations.append((len(self.text), len(self.text) + len(text)))
        self.response_ids += tokens
        self.response_mask += [by_policy] * len(tokens)
        self.text += text


class SearchEnv:
    """The rules of an episode. `eos` are the tokens with which a model ends its text; `form` is how it is written."""

    def __init__(
        self,
        template: Template,
        limits: Limits,
        encode: Encode,
        decode: Decode,
        eos: frozenset[int],
        form: Form | None = None,
    ) -> None:
        self.limits = limits
        self._template = template
        self.encode, self._decode, self._eos = encode, decode, eos
        self.form = form or Tags(encode)
        self.replacement = partial(replacement, encode=encode, decode=decode, eos=eos, stops=self.form.stops)

    def reset(self, task: Task) -> Episode:
        """Begin an episode. The prompt keeps its end where it is longer than half of `Limits.max_length`."""
        prompt = self.form.prompt(task.question, task.prompt)[-(self.limits.max_length // 2) :]
        return Episode(task, prompt, by_calls=self.form.by_calls)

    def max_new_tokens(self, episode: Episode) -> int:
        """Return how many tokens the policy may write in this turn."""
        left = self.limits.max_length - len(episode.prompt_ids) - len(episode.response_ids)
        return max(0, min(self.limits.max_new_tokens, left))

    def step(self, episode: Episode, tokens: Sequence[int]) -> str | None:
        """Take what the policy wrote in a turn; return the query that it asks, if one is still allowed."""
        text = self._decode([token for token in tokens if token not in self._eos])
        if replaced := self.replacement(tokens):
            tokens, text = tokens[:-1], cut_at_stop(text, self.form.stops)
        episode.append(tokens, text, by_policy=True)
        episode.response_ids += replaced
        episode.response_mask += [False] * len(replaced)  # nobody sampled it: nothing is learnt from it
        episode.turn_end = len(episode.response_ids)
        episode.last_turn = text
        last = episode.turns >= self.limits.max_turns
        episode.turns += 1
        said = self.form.read(text)
        if said.query:
            episode.asked.append(said.query)
        if said.answers:
            episode.ended = "answer"
        elif last:
            episode.ended = "no answer"
        elif tokens and tokens[-1] in self._eos and not self.form.by_messages:
            episode.ended = "end of text"
        elif said.query:
            return said.query
        else:
            episode.invalid += 1
            self._append_observation(episode, said.warning, called=said.called)
        return None

    def observe(self, episode: Episode, query: str, documents: Sequence[Paragraph]) -> None:
        """Show what the engine found for the turn's query."""
        token = max(at for at, by_policy in enumerate(episode.response_mask) if by_policy)
        whole = self._template.observation(documents)
        shown = cut_observation(whole, self.limits.max_obs_length, self.encode, self._decode)
        search = Search(query, tuple(documents), token, len(episode.text.rstrip()), shown)
        if self._append_observation(episode, f"\n{shown}\n", called=True):
            episode.searches.append(search)

    def _append_observation(self, episode: Episode, text: str, *, called: bool) -> bool:
        """Add an observation, whole or not at all: where it does not fit, the episode ends."""
        if episode.turns >= self.limits.max_turns:
            text += self.form.no_search_left()
        tokens = self.form.follow(text, episode.response_ids[-1] if episode.response_ids else None, called=called)
        if len(episode.prompt_ids) + len(episode.response_ids) + len(tokens) >= self.limits.max_length:
            episode.ended = "length"
            return False
        episode.append(tokens, text, by_policy=False)
        return True
