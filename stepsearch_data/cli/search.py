"""Commands of search engines, and what `search` prints."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.table import Table as Grid
from rich.text import Text

from stepsearch_data.builds import engine_settings, merged_settings, run_config, run_config_over
from stepsearch_data.cli import options
from stepsearch_data.cli.common import OK, QUARANTINED, end_at_once
from stepsearch_data.cli.printing import make_console, print_json
from stepsearch_data.core.errors import ConfigError, SearchError, StepSearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.core.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console

    from stepsearch_data.indexes import Choice, Load, Opened
    from stepsearch_data.search import Engine, SearchEngine

_SECONDS = 30.0  # that a human waits for an engine
_NARROW = 36  # characters of a column, below which engines are shown one after the other


class Hit(NamedTuple):
    """A document that an engine found; `id` is None where it is not the index's own."""

    rank: int
    score: float
    id: str | None
    title: str
    text: str
    url: str


class Result(NamedTuple):
    """What an engine answers, or why it does not. `latency` is in seconds."""

    engine: str
    hits: Sequence[Hit]
    error: str
    latency: float


def index(
    corpus: options.NeededCorpus,
    index: options.Index = None,
    engine: options.Engines = None,
    config: options.Config = None,
    settings: options.Settings = None,
    quiet: options.Quiet = False,
) -> None:
    """Build or update the index of your own corpus, for `serve`, `search` and `--engine NAME=INDEX`.

    A current index is left alone, an interrupted one goes on. The default engine, bm25, is the fastest; above about a
    million passages, tantivy needs less memory and time to build.
    """
    end_at_once()
    from stepsearch_data.indexes import build, working

    run = run_config(config, [*engine_settings(engine), *(settings or [])])
    reporter = Reporter(quiet=quiet)
    with working(run, run.engines, reporter) as engines:
        rejects = build(corpus, index, engines, reporter)
    raise typer.Exit(QUARANTINED if rejects else OK)


def search(
    query: Annotated[str, typer.Argument(help="What to search for.")],
    store: options.Store = None,
    corpus: options.Corpus = None,
    index: options.Index = None,
    engine: options.Engines = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Documents per engine.")] = 5,
    config: options.Config = None,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Print what one or several search engines find, side by side. Default: all engines of the store's index.

    Example: stepsearch-data search "The Barber of Seville composer" --engine bm25 --engine http=http://127.0.0.1:8000
    """
    from stepsearch_data.indexes import Choice

    built = _built(Choice(corpus, store, index), config)
    load = partial(run_config_over, config, [*engine_settings(engine), *(settings or [])], store=built)
    answered = ask_engines(query, Choice(corpus, store, index), load, k, as_json=as_json)
    raise typer.Exit(OK if answered else StepSearchError.exit_code)


def serve(
    corpus: options.Corpus = None,
    store: options.Store = None,
    index: options.Index = None,
    engine: options.Engines = None,
    host: Annotated[str, typer.Option("--host", help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port; 0 picks a free one.")] = 8000,
    topk: Annotated[
        int, typer.Option("--topk", min=1, max=1_000, help="Documents per query, if the request names no number.")
    ] = 3,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads that search (run.workers).")] = None,
    config: options.Config = None,
    settings: options.Settings = None,
) -> None:
    """Serve Search-R1's /retrieve over HTTP: drop-in for its retrieval_server.py, for RL rollouts.

    The index of a corpus is built first where there is none. Also: POST /open and POST /find (documents in pages, words
    in them), GET /health, GET /metrics (Prometheus).
    """
    end_at_once()
    from stepsearch_data.indexes import Choice
    from stepsearch_data.serve.start import start

    flags = [*engine_settings(engine), *merged_settings({"run.workers": workers}, settings)]
    choice = Choice(corpus, store, index)
    start(choice, partial(run_config_over, config, flags, store=_built(choice, config)), host, port, topk)


def _built(choice: Choice, config: Path | None) -> Path | None:
    """Return the store whose index is searched, if it is a store's: its settings say how its engines are reached."""
    return None if choice.corpus or choice.index else choice.store or run_config(config).store


def ask_engines(query: str, choice: Choice, load: Load, k: int, *, as_json: bool) -> bool:
    """Ask the engines and print what they say; tell whether at least one of them answered."""
    import asyncio

    from stepsearch_data.core.text import tokens
    from stepsearch_data.indexes import opened

    try:
        query.encode()
    except UnicodeEncodeError:
        raise ConfigError("the query is not valid UTF-8") from None
    with opened(choice, load, Reporter()) as index:
        results = asyncio.run(_ask_all(index, query, k))
    if as_json:
        print_json(
            {
                "query": query,
                "hits": {result.engine: [hit._asdict() for hit in result.hits] for result in results},
                "errors": {result.engine: result.error for result in results if result.error},
                "latency": {result.engine: round(result.latency, 4) for result in results},
            }
        )
    else:
        print_results(make_console(), results, set(tokens(query)))
    return any(not result.error for result in results)


async def _ask_all(index: Opened, query: str, k: int) -> list[Result]:
    import asyncio

    return await asyncio.gather(*(_ask(engine, index, query, k) for engine in index.engines))


async def _ask(engine: Engine, index: Opened, query: str, k: int) -> Result:
    """Return one engine's answer, whatever goes wrong with it."""
    import asyncio

    from stepsearch_data.search import Service
    from stepsearch_data.search.index import open_engine

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
    """Search with one engine. Raises SearchError."""
    import asyncio

    from stepsearch_data.search import LocalEngine

    if isinstance(engine, LocalEngine):  # whose documents have ids and texts, both of which are shown
        (pairs,) = await asyncio.to_thread(engine.index.find, [query], k)
        found = [(score, engine.documents[number]) for number, score in pairs]
        return [Hit(rank, score, d.id, d.title, d.text, "") for rank, (score, d) in enumerate(found, start=1)]
    (answer,) = await engine.search([query], k)
    if answer.error:
        raise SearchError(answer.error)
    return [Hit(rank, f.score, f.passage_id, f.title, f.text, f.url) for rank, f in enumerate(answer.found, start=1)]


def print_results(console: Console, results: Sequence[Result], words: set[str]) -> None:
    """Print a column per engine, or one engine after the other where the terminal is narrow."""
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
    """Return what is shown of each document, or instead of documents."""
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
    """Cut one line from a text, beginning with the query's words, or with the text where it has none."""
    from stepsearch_data.search.reading import around

    line = " ".join(text.split())
    first = next((m.start() for m in re.finditer(r"\w+", line) if m[0].lower() in words), 0)
    return around(line, first)


def _marked(text: str, words: set[str]) -> Text:
    """Mark the query's words in a text, which is plain text whatever it holds."""
    marked = Text(visible(text))
    for match in re.finditer(r"\w+", marked.plain):
        if match[0].lower() in words:
            marked.stylize("bold yellow", *match.span())
    return marked
