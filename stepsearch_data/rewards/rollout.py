"""Parsing a rollout's text into rounds, with the exact characters of each part.

Both tag sets of the reference code are read, also mixed: a thought is `<think>` or `<plan>`, a result of
the engine `<information>`, the model's note of it `<observation>`. Any text can be parsed.
There are two ways, which differ where tags are broken:

- by tags (`lazy=False`): a block ends at its own closing tag, or is unclosed and ends where the next
  tag begins. What the engine returned may hold any tag except its own.
- by lazy patterns (`lazy=True`), as the reference code (`qa_step.py`) does: a block runs from an opening
  tag to the first place where the rest of the pattern fits, over whatever lies between.

What the environment wrote is never read as a search or an answer of the policy, whatever tags it holds. The environment
knows where that is (`observations`). Without `observations`, the tags tell: results are in `<information>`, warnings in
`<warning>`, and Search-R1's warning is a fixed text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

TAG = re.compile(r"<(/?)(think|plan|search|information|observation|answer|warning)>")
_THOUGHTS = ("think", "plan")
_ENVIRONMENT = ("information", "warning")
NO_SEARCH_LEFT = "No search is left. Answer now."
_SEARCH_R1_WARNING = re.compile(
    r"My previous action is invalid\. If I want to search, I should put the query between <search> and </search>\. "
    r"If I want to give the final answer, I should put the answer between <answer> and </answer>\."
)
_SEARCH_TAG = re.compile(r"</?search>")
_RESULT = re.compile(r"</search>\s*<information>")
# `Doc 1<## Title: T ##> text` (StepSearch) and `Doc 1(Title: T) text` (Search-R1); bounded, so that
# a text made of such beginnings is still read in linear time.
_HEADER = re.compile(
    r"Doc\s{0,3}\d{1,5}\s{0,3}"
    r"(?:<##\s{0,3}(?:Title:)?(.{0,500}?)##>|\(Title:((?:[^()\n]{1,300}|\([^()\n]{0,300}\)){0,8})\))"
)


class Span(NamedTuple):
    """A part of a text without the white space around it: `whole[start:end] == text`."""

    start: int
    end: int
    text: str


class ParsedDocument(NamedTuple):
    """A document of a round: its title, empty where it shows none, and its text."""

    title: str
    span: Span


@dataclass(frozen=True)
class ParsedRound:
    """A search and what came back. Offsets count characters of the rollout.

    `searched` is the end of `</search>`, the last thing that the policy wrote in the round's search;
    `end` the end of the round, after `</information>` where the engine answered. The reading by
    lazy patterns knows neither thoughts nor observations.
    """

    query: Span
    information: Span | None
    documents: tuple[ParsedDocument, ...]
    searched: int
    end: int
    thought: Span | None = None
    observation: Span | None = None


@dataclass(frozen=True)
class Format:
    """What the paper asks of a rollout's form (arXiv 2505.15107), point by point."""

    has_thought: bool
    has_search: bool
    searches_paired: bool
    one_answer: bool
    answer_last: bool

    @property
    def search_ok(self) -> bool:
        """Tell whether there is a search, and queries are only inside `<search>` pairs."""
        return self.has_search and self.searches_paired

    @property
    def ok(self) -> bool:
        """Tell whether all points hold: a thought, a search, and exactly one answer, at the end."""
        return self.search_ok and self.has_thought and self.one_answer and self.answer_last


Places = Sequence[tuple[int, int]]
"""Parts of a text, each as (start, end) in characters, without the end."""


@dataclass(frozen=True)
class Rollout:
    """A parsed text: its rounds, all its queries, and its last closed answer."""

    text: str
    rounds: tuple[ParsedRound, ...]
    queries: tuple[str, ...]
    answer: Span | None
    answer_last: bool  # nothing but white space after the last closed answer
    format: Format

    @property
    def answered(self) -> tuple[str, ...]:
        """Return the queries that the engine answered, so without a search in the last turn, which is not run."""
        return tuple(found.query.text for found in self.rounds if found.information)


class _Block(NamedTuple):
    """A tag with its content `text[start:end]`, as a whole `text[first:after]`."""

    name: str
    first: int
    start: int
    end: int
    after: int
    closed: bool


_WARNING = re.compile("<warning>.*?</warning>", re.DOTALL)


def own_turns(rollout: Rollout, observations: Places | None = None) -> list[str]:
    """Return what the policy wrote: up to each `</search>` of its rounds, and after the last round.

    `observations` are what the environment wrote; where they are not known, warnings are.
    """
    cut = [found.span() for found in _WARNING.finditer(rollout.text)] if observations is None else observations
    starts = [0, *(found.end for found in rollout.rounds)]
    ends = [*(found.searched for found in rollout.rounds), len(rollout.text)]
    return [_without(rollout.text, start, end, cut) for start, end in zip(starts, ends, strict=True)]


def _without(text: str, start: int, end: int, cut: Places) -> str:
    """Return a part of a text without other parts of it, in order."""
    pieces = []
    for first, after in cut:
        if first < end and after > start:
            pieces.append(text[start:first])
            start = after
    return "".join([*pieces, text[start:end]]).strip()


def warned(text: str, observations: Places | None = None) -> bool:
    """Tell whether the environment warned of a turn that was neither a search nor an answer."""
    said = [span.text for name, span in sections(text, observations) if name == "warning"]
    return any(warning != NO_SEARCH_LEFT for warning in said) or bool(
        observations is None and _SEARCH_R1_WARNING.search(text)
    )


def parse(
    text: str, *, lazy: bool = False, keep_next_label: bool = False, observations: Places | None = None
) -> Rollout:
    """Parse a rollout. `lazy` and `keep_next_label` do as the reference code (see `RewardConfig`).

    `observations` are the parts that the environment wrote, in order, where they are known.
    """
    marked = text if lazy and observations is None else _marked(text, observations)
    blocks, strays = _blocks(marked)
    rounds, queries, answer = _by_patterns(text, marked) if lazy else _by_tags(text, blocks)
    last = answer is not None and not text[answer.after :].strip()
    return Rollout(
        text=text,
        rounds=tuple(_with_documents(text, found, keep_next_label=keep_next_label) for found in rounds),
        queries=tuple(queries),
        answer=_span(text, answer.start, answer.end) if answer else None,
        answer_last=last,
        format=_format(text, blocks, strays),
    )


Texts = Sequence[tuple[str, str]]
"""Documents, each as (title, text)."""


def transcript(searches: Sequence[tuple[str, Texts | None]], answer: str | None = None) -> Rollout:
    """Make a rollout of a conversation that calls tools, so has no tags: queries with the documents that they showed.

    None in place of documents is a search without an answer. The format is right where something was searched for and
    an answer was given. Nothing has a place in a text.
    """
    answered = answer is not None
    return Rollout(
        text="",
        rounds=tuple(
            ParsedRound(
                query=_alone(query),
                information=None if documents is None else _alone(""),
                documents=tuple(ParsedDocument(title, _alone(text)) for title, text in documents or ()),
                searched=0,
                end=0,
            )
            for query, documents in searches
        ),
        queries=tuple(query for query, _ in searches),
        answer=None if answer is None else _alone(answer),
        answer_last=answered,
        format=Format(
            has_thought=True,
            has_search=bool(searches),
            searches_paired=True,
            one_answer=answered,
            answer_last=answered,
        ),
    )


def _alone(text: str) -> Span:
    return _span(text, 0, len(text))


def sections(text: str, observations: Places | None = None) -> Iterator[tuple[str, Span]]:
    """Yield all blocks of a text in order, parsed by tags, each with its tag's name. Other parts are named `text`.

    An unclosed search is `text` with its tag, as it is not a round. `observations` are as in `parse`.
    """
    at = 0
    blocks = [block for block in _blocks(_marked(text, observations))[0] if block.closed or block.name != "search"]
    for block in [*blocks, _Block("text", len(text), len(text), len(text), len(text), closed=True)]:
        between = _span(text, at, block.first)
        if between.text:
            yield "text", between
        if block.name != "text":
            yield block.name, _span(text, block.start, block.end)
        at = block.after


def _span(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    content = piece.strip()
    start += len(piece) - len(piece.lstrip()) if content else 0
    return Span(start, start + len(content), content)


# ---- what the environment wrote


def _marked(text: str, observations: Places | None) -> str:
    """Replace the tags that have no meaning with spaces, so that all positions stay.

    In what the environment wrote, only the tags around its results and warnings have a meaning. Elsewhere
    all tags have one, except those of results and warnings, which the policy cannot write.
    """
    if observations is None:
        return _SEARCH_R1_WARNING.sub(lambda found: " " * len(found[0]), text)
    parts, at = [], 0
    for start, end in observations:
        parts += [TAG.sub(_without_results, text[at:start]), _around_results(text[start:end])]
        at = end
    return "".join([*parts, TAG.sub(_without_results, text[at:])])


def _without_results(tag: re.Match[str]) -> str:
    return _blank(tag) if tag[2] in _ENVIRONMENT else tag[0]


def _around_results(text: str) -> str:
    """Keep only the tags of an observation's result and warnings, as a document may hold any tag."""
    first = text.find("<information>")
    last = text.rfind("</information>")

    def keep(tag: re.Match[str]) -> str:
        inside = first < tag.start() < last
        return tag[0] if tag.start() in {first, last} or (tag[2] == "warning" and not inside) else _blank(tag)

    return TAG.sub(keep, text)


def _blank(tag: re.Match[str]) -> str:
    return " " * len(tag[0])


# ---- by tags


def _blocks(text: str) -> tuple[list[_Block], list[str]]:
    """Return all blocks in order, and the names of closing tags that close nothing."""
    tags = list(TAG.finditer(text))
    blocks: list[_Block] = []
    strays: list[str] = []
    at = 0
    while at < len(tags):
        tag = tags[at]
        closing = None if tag[1] else _closing(tags, at)
        if tag[1]:
            strays.append(tag[2])
        elif closing is None:
            end = tags[at + 1].start() if at + 1 < len(tags) else len(text)
            blocks.append(_Block(tag[2], tag.start(), tag.end(), end, end, closed=False))
        else:
            blocks.append(
                _Block(tag[2], tag.start(), tag.end(), tags[closing].start(), tags[closing].end(), closed=True)
            )
            at = closing
        at += 1
    return blocks, strays


def _closing(tags: Sequence[re.Match[str]], at: int) -> int | None:
    """Return the index of the tag that closes tag `at`: the next tag, for results and warnings the next of its name."""
    name = tags[at][2]
    following = range(at + 1, len(tags) if name in _ENVIRONMENT else min(at + 2, len(tags)))
    found = next((n for n in following if tags[n][2] == name), None)
    return found if found is not None and tags[found][1] else None


def _by_tags(text: str, blocks: Sequence[_Block]) -> tuple[list[ParsedRound], list[str], _Block | None]:
    """Make a round of every closed search, with the result if that is the next block."""
    rounds = []
    for at, block in enumerate(blocks):
        if block.name != "search" or not block.closed:
            continue
        thought = blocks[at - 1] if at and blocks[at - 1].name in _THOUGHTS else None
        result = _named(blocks, at + 1, "information")
        note = _named(blocks, at + 2, "observation") if result else None
        rounds.append(
            ParsedRound(
                query=_span(text, block.start, block.end),
                information=_span(text, result.start, result.end) if result else None,
                documents=(),
                searched=block.after,
                end=result.after if result else block.after,
                thought=_span(text, thought.start, thought.end) if thought else None,
                observation=_span(text, note.start, note.end) if note else None,
            )
        )
    answers = [block for block in blocks if block.name == "answer" and block.closed]
    return rounds, [found.query.text for found in rounds], answers[-1] if answers else None


def _named(blocks: Sequence[_Block], at: int, name: str) -> _Block | None:
    return blocks[at] if at < len(blocks) and blocks[at].name == name else None


def _format(text: str, blocks: Sequence[_Block], strays: Sequence[str]) -> Format:
    searches = [block.closed for block in blocks if block.name == "search"]
    answers = [block for block in blocks if block.name == "answer"]
    return Format(
        has_thought=any(block.name in _THOUGHTS and block.closed for block in blocks),
        has_search=any(searches),
        searches_paired=all(searches) and "search" not in strays,
        one_answer=len(answers) == 1 and answers[0].closed and "answer" not in strays,
        answer_last=bool(answers) and answers[-1].closed and not text[answers[-1].after :].strip(),
    )


# ---- by the reference code's lazy patterns


def _pairs(text: str, name: str) -> Iterator[_Block]:
    """Yield what `<name>.*?</name>` matches, in linear time on any text."""
    opening, closing, at = f"<{name}>", f"</{name}>", 0
    while (first := text.find(opening, at)) >= 0:
        start = first + len(opening)
        end = text.find(closing, start)
        if end < 0:
            return
        at = end + len(closing)
        yield _Block(name, first, start, end, at, closed=True)


def _by_patterns(text: str, marked: str) -> tuple[list[ParsedRound], list[str], _Block | None]:
    r"""Find what `<search>.*?</search>\s*<information>(.*?)</information>` and similar patterns match."""
    rounds, at = [], 0
    while (first := marked.find("<search>", at)) >= 0:
        start = first + len("<search>")
        result = _RESULT.search(marked, start)
        end = marked.find("</information>", result.end()) if result else -1
        if result is None or end < 0:
            break
        close = marked.find("</search>", start)
        at = end + len("</information>")
        rounds.append(
            ParsedRound(
                query=_span(text, start, close),
                information=_span(text, result.end(), end),
                documents=(),
                searched=close + len("</search>"),
                end=at,
            )
        )
    queries = [_SEARCH_TAG.sub("", text[pair.start : pair.end]).strip() for pair in _pairs(marked, "search")]
    answers = list(_pairs(marked, "answer"))
    return rounds, queries, answers[-1] if answers else None


# ---- documents


def _with_documents(text: str, found: ParsedRound, *, keep_next_label: bool) -> ParsedRound:
    if found.information is None:
        return found
    cut = _labelled if keep_next_label else _headed
    documents = tuple(cut(text, found.information))
    return replace(found, documents=documents)


def _headed(text: str, information: Span) -> Iterator[ParsedDocument]:
    """Yield documents from one header to the next. A result without a header is one document."""
    headers = list(_HEADER.finditer(text, information.start, information.end))
    if not headers:
        if information.text:
            yield ParsedDocument("", information)
        return
    ends = [header.start() for header in headers[1:]] + [information.end]
    for header, end in zip(headers, ends, strict=True):
        title = (header[1] or header[2] or "").strip()
        yield ParsedDocument(title, _span(text, header.end(), end))


def _labelled(text: str, information: Span) -> Iterator[ParsedDocument]:
    """Yield documents as the reference code cuts them: from `##>` to `<##`, with the next label `Doc 2` at the end."""
    at = text.find("##>", information.start, information.end)
    before = information.start
    while at >= 0:
        start = at + len("##>")
        following = text.find("##>", start, information.end)
        end = following if following >= 0 else information.end
        cut = text.find("<##", start, end)
        title = text[before:at].rpartition("<##")[2].replace("Title:", "").strip()
        yield ParsedDocument(title, _span(text, start, cut if cut >= 0 else end))
        at, before = following, start
