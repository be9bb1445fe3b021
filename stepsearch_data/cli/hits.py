"""One query on one or several engines, for a human: what `search` prints."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import orjson
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stepsearch_data.core.errors import ConfigError, SearchError, StepSearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.core.terminal import visible
from stepsearch_data.core.text import tokens
from stepsearch_data.indexes import Choice, Load, Opened, opened
from stepsearch_data.search import Engine, LocalEngine, SearchEngine, Service
from stepsearch_data.search.index import open_engine

_SECONDS = 30.0  # that a human waits for an engine
_SNIPPET = 240  # characters
_BEFORE = 60  # characters of a snippet before the first word of the query
_NARROW = 36  # characters of a column, below which engines are shown one after the other
_ENDLESS = 100_000  # characters of a line where stdout is no terminal: nothing is folded


class Hit(NamedTuple):
    """A document that an engine found; `id` is None where it is not the index's own."""

    rank: int
    score: float
    id: str | None
    title: str
    text: str
    url: str


class Result(NamedTuple):
    """What an engine says, or why it says nothing. `latency` is in seconds."""

    engine: str
    hits: Sequence[Hit]
    error: str
    latency: float


def search(query: str, choice: Choice, load: Load, k: int, *, as_json: bool) -> bool:
    """Ask the engines and print what they say; whether at least one of them answered."""
    try:
        query.encode()
    except UnicodeEncodeError:
        raise ConfigError("the query is not valid UTF-8") from None
    with opened(choice, load, Reporter()) as index:
        results = asyncio.run(_ask_all(index, query, k))
    if as_json:
        _print_json(query, results)
    else:
        console = Console(width=None if sys.stdout.isatty() else _ENDLESS, highlight=False)
        print_results(console, results, set(tokens(query)))
    return any(not result.error for result in results)


async def _ask_all(index: Opened, query: str, k: int) -> list[Result]:
    return await asyncio.gather(*(_ask(engine, index, query, k) for engine in index.engines))


async def _ask(engine: Engine, index: Opened, query: str, k: int) -> Result:
    """One engine's answer, whatever goes wrong with it."""
    begun = time.perf_counter()
    hits: list[Hit] = []
    error = ""
    try:
        asked = open_engine(engine, index.root, Service(index.config.run.workers, index.config.llm.replay))
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(_SECONDS):
                hits = await _hits(asked, query, k)
        finally:
            await asked.close()
    except TimeoutError:
        error = f"no answer within {_SECONDS:g} s"
    except StepSearchError as failure:
        error = "; ".join(text for text in (failure.message, failure.hint) if text)
    return Result(engine.name, hits, error, time.perf_counter() - begun)


async def _hits(engine: SearchEngine, query: str, k: int) -> list[Hit]:
    """Raises SearchError."""
    if isinstance(engine, LocalEngine):  # whose documents have ids and texts, both of which are shown
        (pairs,) = await asyncio.to_thread(engine.index.find, [query], k)
        found = [(score, engine.documents[number]) for number, score in pairs]
        return [Hit(rank, score, d.id, d.title, d.text, "") for rank, (score, d) in enumerate(found, start=1)]
    (answer,) = await engine.search([query], k)
    if answer.error:
        raise SearchError(answer.error)
    return [Hit(rank, f.score, f.passage_id, f.title, f.text, f.url) for rank, f in enumerate(answer.found, start=1)]


def _print_json(query: str, results: Sequence[Result]) -> None:
    shown = {
        "query": query,
        "hits": {result.engine: [hit._asdict() for hit in result.hits] for result in results},
        "errors": {result.engine: result.error for result in results if result.error},
        "latency": {result.engine: round(result.latency, 4) for result in results},
    }
    sys.stdout.buffer.write(orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    sys.stdout.flush()


def print_results(console: Console, results: Sequence[Result], words: set[str]) -> None:
    """A column an engine, or one engine after the other where the terminal is narrow."""
    if len(results) * _NARROW <= console.width:
        console.print(_columns(results, words))
        return
    for result in results:
        console.print(Text(visible(_heading(result)), style="bold underline"))
        for cell in _cells(result, words):
            console.print(cell)
        console.print()


def _columns(results: Sequence[Result], words: set[str]) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold underline", padding=(0, 3, 1, 0))
    for result in results:
        grid.add_column(Text(visible(_heading(result))), ratio=1, overflow="fold")
    for row in zip_longest(*(_cells(result, words) for result in results), fillvalue=Text()):
        grid.add_row(*row)
    return grid


def _heading(result: Result) -> str:
    return f"{result.engine}  {1000 * result.latency:.0f} ms"


def _cells(result: Result, words: set[str]) -> Iterable[Text]:
    """What is shown of each document, or instead of documents."""
    if result.error:
        return [Text(visible(f"error: {result.error}"), style="red")]
    if not result.hits:
        return [Text("nothing found", style="dim")]
    return [_cell(hit, words) for hit in result.hits]


def _cell(hit: Hit, words: set[str]) -> Text:
    title = _marked(" ".join(hit.title.split()) or hit.id or hit.url or "untitled", words)
    title.stylize("bold")
    cell = Text.assemble(f"{hit.rank}. ", title, (f"  {hit.score:.2f}", "cyan"))
    if hit.url:
        cell.append(f"\n{visible(hit.url)}", style="dim")
    return cell.append("\n").append_text(_marked(snippet(hit.text, words), words))


def snippet(text: str, words: set[str]) -> str:
    """The piece of a text, in one line, that begins with the query's words, or with the text where it has none."""
    line = " ".join(text.split())
    first = next((m.start() for m in re.finditer(r"\w+", line) if m[0].lower() in words), 0)
    start = line.rfind(" ", 0, first - _BEFORE) + 1 if first > _BEFORE else 0
    piece = line[start : start + _SNIPPET]
    return f"{'…' if start else ''}{piece}{'…' if start + _SNIPPET < len(line) else ''}"


def _marked(text: str, words: set[str]) -> Text:
    """A text that is only text, with the query's words marked."""
    marked = Text(visible(text))
    for match in re.finditer(r"\w+", marked.plain):
        if match[0].lower() in words:
            marked.stylize("bold yellow", *match.span())
    return marked
