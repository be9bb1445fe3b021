"""From a command line to a server: the address, the index, and what a person is told."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable, Sequence
from contextlib import closing

from stepsearch_data.core.errors import ConfigError, SearchError, StepSearchError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.indexes import Choice, Load, Opened, opened
from stepsearch_data.search import Engine, LocalEngine, Service
from stepsearch_data.search.index import open_engine
from stepsearch_data.serve.app import application
from stepsearch_data.serve.server import run

_CURL = """  curl {url}/retrieve -d '{{"queries": ["who composed The Barber of Seville?"], "return_scores": true}}'"""


def start(choice: Choice, load: Load, host: str, port: int, topk: int) -> None:
    """Serve until a signal says stop; the index is built first where there is none. Raises SearchError, ConfigError."""
    reporter = Reporter()
    if choice.corpus:
        _one(load(()).engines)  # before anything is built
    with closing(bind(host, port)) as bound, opened(choice, load, reporter) as index:
        engine = _one(index.engines)
        asked = open_engine(engine, index.root, Service(index.config.run.workers, index.config.llm.replay))
        if not isinstance(asked, LocalEngine):
            raise SearchError(f"{engine.name} searches no index that can be served")
        try:
            asyncio.run(run(application(asked, topk), bound, lambda: _greet(asked, bound, index, reporter.line)))
        except OSError as error:
            raise _unusable(error, host, port) from error
        finally:
            asyncio.run(asked.close())


def _one(engines: Sequence[Engine]) -> Engine:
    if len(engines) > 1:
        names = " or ".join(f"--engine {engine.name}" for engine in engines)
        raise ConfigError("only one engine can be served", f"choose: {names}")
    (engine,) = engines
    if not engine.is_local:
        raise ConfigError(f"{engine.name} is not an engine of this process", "serve bm25, chargram, tantivy or dense")
    if engine.index:
        raise ConfigError(f"{engine.name} has an index of its own", f"serve that index: --index {engine.index}")
    return engine


def _greet(engine: LocalEngine, bound: socket.socket, index: Opened, say: Callable[[str], None]) -> None:
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        say("warning: whoever reaches this address can search; there is no password and no encryption")
    say(f"serving {engine.name} over {len(engine.documents):,} passages of {index.metadata.corpus} on {url}/retrieve")
    say(_CURL.format(url=url))


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket to an address, without listening. Raises ConfigError, and SearchError where it is taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no such address", "127.0.0.1, 0.0.0.0, or a name of this machine") from error
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _unusable(error, host, port) from error
    return bound


def _unusable(error: OSError, host: str, port: int) -> StepSearchError:
    if error.errno == errno.EADDRINUSE:
        return SearchError(f"port {port} of {host} is taken", "choose another: --port N, or 0 for any")
    return ConfigError(f"cannot serve on {host}, port {port}: {error.strerror}")
