"""A rollout for people to read: tags in colours, documents in short, what each round earned."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.text import Text

from stepsearch_data.core.terminal import visible
from stepsearch_data.trainer.episode_score import EpisodeScore
from stepsearch_data.trainer.search_env import Episode

_TAG = "think|plan|search|information|observation|answer|warning"
_BLOCK = re.compile(  # only what the engine wrote, results and warnings, may hold tags
    rf"<({_TAG})>((?:(?!</?(?:{_TAG})>).)*|(?<=<information>).*?|(?<=<warning>).*?)</\1>", re.DOTALL
)
_STYLES = {"search": "cyan", "warning": "yellow", "information": "red"}
_LONG = 240  # characters of what the policy wrote in a block
_DOCUMENT = 90  # characters of a document


def sample(episode: Episode, scored: EpisodeScore) -> Text:
    """Show an episode as lines: the question, what was written and found, and the rewards."""
    lines = [
        Text.assemble(("question  ", "bold"), _short(episode.task.question, _LONG)),
        Text.assemble(("gold      ", "bold"), _short(" | ".join(episode.task.answers), _LONG)),
        *_lines(episode, scored),
        Text.assemble(("earned    ", "bold"), _sum(episode, scored)),
    ]
    return Text("\n").join(lines)


def _lines(episode: Episode, scored: EpisodeScore) -> Iterator[Text]:
    """Yield the blocks of the text and what stands between them.

    The engine's own results follow their search.
    """
    searches = {search.character: search for search in episode.searches}
    rounds = dict(scored.token_rewards[:-1])  # the last is the score
    end, answered = 0, False
    for block in _BLOCK.finditer(episode.text):
        yield from _loose(episode.text[end : block.start()])
        end = block.end()
        search = searches.get(end) if block[1] == "search" else None
        if search:
            yield Text.assemble(_block(block, "cyan"), (f"  {rounds.get(search.token, 0.0):+.3f}", "bold magenta"))
            for rank, document in enumerate(search.documents, start=1):
                yield Text(f"  {rank}. {_short(f'{document.title}: {document.text}', _DOCUMENT)}", "dim")
        elif not (answered and block[1] == "information"):
            right = "green" if scored.scores.answer_em else "red"
            yield _block(block, right if block[1] == "answer" else _STYLES.get(block[1], "dim"))
        answered = search is not None
    yield from _loose(episode.text[end:])


def _block(block: re.Match[str], style: str) -> Text:
    return Text(f"<{block[1]}> {_short(block[2], _LONG)} </{block[1]}>", style)


def _loose(text: str) -> Iterator[Text]:
    """Yield text outside of all tags, marked as a mistake."""
    if text.strip():
        yield Text(_short(text, _LONG), "red")


def _sum(episode: Episode, scored: EpisodeScore) -> str:
    scores, score = scored.scores, scored.token_rewards[-1][1] if scored.token_rewards else 0.0
    parts = f"F1 {scores.answer_correct:.3f}, key {scores.search_key_score:.3f}"
    form = "" if scores.format_ok else ", wrong format"
    ended = f"ended by {episode.ended}" if episode.ended else "unfinished"
    return f"{scored.total:+.3f}: rounds {scored.total - score:+.3f}, score {score:+.3f} ({parts}{form}); {ended}"


def _short(text: str, limit: int) -> str:
    """Put a text in one line, cut at the end."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
