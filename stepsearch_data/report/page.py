"""The page: one HTML document made of `page/`, the charts' library, and data that cannot become markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from contextlib import suppress
from enum import StrEnum
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from stepsearch_data.core.atomic import write_whole
from stepsearch_data.core.files import cache_folder
from stepsearch_data.core.version import __version__


class Mode(StrEnum):
    """Where the page finds trajectories: in itself, in scripts beside it, or at the server that it came from."""

    embedded = "embedded"
    chunks = "chunks"
    remote = "remote"


_GENERATOR = f'<meta name="generator" content="stepsearch-data {__version__}">'
MARK = b'<meta name="generator" content="stepsearch-data '
_MODULE_WORDS = re.compile(r"^(?:import [^;]+;\n|export )", re.MULTILINE)  # what `file://` forbids between files
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


NO_CHARTS = "charts are tables of numbers; to draw them: pip install 'stepsearch-data[charts]'"


class Shell(NamedTuple):
    """The page around its data: what stands before it, what after it, the policy of both, and whether it draws charts.

    Without charts, the page shows their numbers.
    """

    before: bytes
    after: bytes
    policy: str
    draws: bool


def shell(mode: Mode, title: str) -> Shell:
    """Make the page without its data."""
    files = resources.files("stepsearch_data") / "report" / "page"
    modules = sorted((path for path in files.iterdir() if path.name.endswith(".js")), key=lambda path: path.name)
    app = _MODULE_WORDS.sub("", "\n".join(path.read_text(encoding="utf-8") for path in modules))
    vega = _vega()
    policy = _policy(mode, [vega, app])
    parts = {
        "CSP": f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{_GENERATOR}',
        "TITLE": html.escape(title),
        "STYLE": f"<style>{(files / 'style.css').read_text(encoding='utf-8')}</style>",
        "VEGA": f'<script type="module">{vega}</script>',  # a module has names of its own: those of both are many
        "APP": f'<script type="module">{app}</script>',
    }
    before, _, after = (files / "index.html").read_text(encoding="utf-8").partition("<!--DATA-->")
    for name, text in parts.items():
        before, after = before.replace(f"<!--{name}-->", text), after.replace(f"<!--{name}-->", text)
    return Shell(before.encode(), after.encode(), policy, bool(vega))


def _policy(mode: Mode, scripts: list[str]) -> str:
    """Say what the page may do: run these scripts and no others, and reach nothing, or its own server.

    Scripts beside a page of `file://` have no address that a policy could name; those that our own script adds may run.
    """
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
    rules = {
        "default-src": "'none'",
        "script-src": " ".join([*hashes, *(["'strict-dynamic'"] if mode is Mode.chunks else [])]),
        "style-src": "'unsafe-inline'",  # charts set styles of their own
        "img-src": "data:",
        **({"connect-src": "'self'"} if mode is Mode.remote else {}),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def data_script(name: str, value: Any) -> bytes:
    """Write a value as JSON in a script element; nothing in it can end the element."""
    text = orjson.dumps(value).decode()
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return f'<script type="application/json" id="{name}">{text}</script>\n'.encode()


def packed_script(name: str, packed: bytes) -> bytes:
    """Write what `pack` made in a script element."""
    return b'<script type="text/plain" id="%s">%s</script>\n' % (name.encode(), packed)


def pack(value: Any) -> bytes:
    """Compress a value as JSON, in letters and digits.

    It takes a fifth of the size, and the same bytes every time.
    """
    return base64.b64encode(gzip.compress(orjson.dumps(value), compresslevel=6, mtime=0))


def _vega() -> str:
    """Return Vega, Vega-Lite and their embedding as one script; "" where the extra `charts` is not installed.

    It is cached, as making it takes seconds.
    """
    try:
        kept = cache_folder() / f"vega-embed-{metadata.version('vl-convert-python')}.js"
    except metadata.PackageNotFoundError:
        return ""
    with suppress(OSError):
        return kept.read_text(encoding="utf-8")
    import vl_convert

    made = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    with suppress(OSError):
        _keep(kept, made)
    return made


def _keep(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode(), shared=True)
