"""Verbs of search engines."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepsearch_data.cli.common import (
    OK,
    QUARANTINED,
    end_at_once,
    merged_settings,
    run_config,
    run_config_over,
)
from stepsearch_data.cli.options import (
    ConfigOption,
    CorpusOption,
    EngineOption,
    IndexOption,
    JsonOption,
    NeededCorpusOption,
    QuietOption,
    SetOption,
    StoreOption,
    engine_settings,
)
from stepsearch_data.core.errors import StepSearchError

if TYPE_CHECKING:
    from stepsearch_data.indexes import Choice


def index(
    corpus: NeededCorpusOption,
    index: IndexOption = None,
    engine: EngineOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Build or renew the index of a corpus of your own, for `serve`, `search` and `--engine NAME=INDEX`.

    An index that is current is left alone, and one that was interrupted goes on. The default engine, bm25, is the
    fastest; from about a million passages tantivy needs less memory and time to build.
    """
    end_at_once()
    from stepsearch_data.core.progress import Reporter
    from stepsearch_data.indexes import build

    run = run_config(config, [*engine_settings(engine), *(settings or [])])
    rejects = build(corpus, index, run.engines, Reporter(quiet=quiet))
    raise typer.Exit(QUARANTINED if rejects else OK)


def search(
    query: Annotated[str, typer.Argument(help="What to search for.")],
    store: StoreOption = None,
    corpus: CorpusOption = None,
    index: IndexOption = None,
    engine: EngineOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Documents an engine.")] = 5,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what one or several search engines find, side by side. Default: all engines of the store's index.

    Example: stepsearch-data search "The Barber of Seville composer" --engine bm25 --engine http=http://127.0.0.1:8000
    """
    from stepsearch_data.cli.hits import search as ask
    from stepsearch_data.indexes import Choice

    built = _built(Choice(corpus, store, index), config)
    load = partial(run_config_over, config, [*engine_settings(engine), *(settings or [])], store=built)
    answered = ask(query, Choice(corpus, store, index), load, k, as_json=as_json)
    raise typer.Exit(OK if answered else StepSearchError.exit_code)


def serve(
    corpus: CorpusOption = None,
    store: StoreOption = None,
    index: IndexOption = None,
    engine: EngineOption = None,
    host: Annotated[str, typer.Option("--host", help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 takes any that is free.")] = 8000,
    topk: Annotated[int, typer.Option("--topk", min=1, max=1_000, help="Documents a query, unless it says.")] = 3,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads that search (run.workers).")] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Serve Search-R1's /retrieve over HTTP: drop-in for its retrieval_server.py, for RL rollouts.

    The index of a corpus is built first where there is none. Also: GET /health, GET /metrics (Prometheus).
    """
    end_at_once()
    from stepsearch_data.indexes import Choice
    from stepsearch_data.serve.start import start

    flags = [*engine_settings(engine), *merged_settings({"run.workers": workers}, settings)]
    choice = Choice(corpus, store, index)
    start(choice, partial(run_config_over, config, flags, store=_built(choice, config)), host, port, topk)


def _built(choice: Choice, config: Path | None) -> Path | None:
    """The store whose index is searched, if it is one's: its engines are reached as when they were built."""
    return None if choice.corpus or choice.index else choice.store or run_config(config).store
