"""The options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

import math
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import typer

from stepsearch_data.sources import BUILT, OWN

_PROMPTS = sorted(Path(file.name).stem for file in (resources.files("stepsearch_data") / "stages/prompts").iterdir())


def _stage_names(incomplete: str) -> list[str]:
    from stepsearch_data.stages import STAGES

    return [stage.name for stage in STAGES if stage.name.startswith(incomplete)]


def _engine_names(incomplete: str) -> list[str]:
    from stepsearch_data.search.kinds import kinds

    return [name for name in kinds() if name.startswith(incomplete)]


def licences_of(values: list[str] | None) -> dict[str, str]:
    """Parse `--license ID` of the user's own rows, and `--license KIND=ID`, as licences by kind of source."""
    pairs = [value.rpartition("=") for value in values or []]
    return {kind or OWN: licence for kind, _, licence in pairs}


def finite(value: float | list[float] | None) -> float | list[float] | None:
    """Refuse NaN, which every bound lets pass, and infinity."""
    numbers = value if isinstance(value, list) else [value]
    if not all(number is None or math.isfinite(number) for number in numbers):
        raise typer.BadParameter("expected a finite number")
    return value


def utf8(path: Path | None) -> Path | None:
    """Refuse a path whose bytes are not UTF-8: neither Polars nor DuckDB opens it, and no JSON names it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("the path is not valid UTF-8: rename it, or give a link to it") from None
    return path


def local(path: Path | None) -> Path | None:
    """Return a file's path, of one at a URL that of a local copy."""
    from stepsearch_data.remote.objects import address

    url = address(path) if path else ""
    if not url:
        return utf8(path)
    from stepsearch_data.remote.copies import copy_of

    if copy := copy_of(url):
        return copy
    raise typer.BadParameter(f"there is no {url}")


def here(path: Path | None) -> Path | None:
    """Refuse a URL for what is written: only a store may be at one."""
    from stepsearch_data.remote.objects import address

    if url := address(path or ""):
        raise typer.BadParameter(f"{url} is a URL: write into a folder, and copy that")
    return path


output = partial(typer.Option, "--output", "-o", callback=here)
of_model = partial(typer.Option, rich_help_panel="Language model")
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="PATH",
        help="Folder of the store (default ./store), or its URL: s3://BUCKET/PLACE, gs://, az://.",
        envvar="STEPSEARCH_STORE",
        callback=utf8,
    ),
]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML run file; `init` writes one.", envvar="STEPSEARCH_CONFIG")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Set one setting; the value `default` resets it."),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Forget the settings of earlier builds: what is not given now is at its default."),
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        "-s",
        metavar="KIND=PATH",
        help=f"Questions to read, repeatable: {', '.join(BUILT[:-1])} or {BUILT[-1]} = a file (Parquet, or JSON, "
        ".gz, .bz2, .zst too) or its URL (s3://, gs://, az://, hf://datasets/USER/NAME/FILE), hf:REPO@REV:CONFIG/SPLIT "
        "on the Hub (all after REPO optional), or `sample`. Default: "
        "what the store was loaded from, or the embedded sample.",
    ),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        "-e",
        metavar="NAME[=LOCATION]",
        help="Search engine, repeatable: bm25, chargram, tantivy, rank-bm25, dense, http=URL, serper, brave, tavily, "
        "serpapi, or a section engines.NAME of the run file.",
        autocompletion=_engine_names,
    ),
]
OneEngine = Annotated[
    list[str] | None,  # a second one is refused where the engine is opened, not dropped
    typer.Option(
        "--engine",
        "-e",
        metavar="NAME[=LOCATION]",
        help="Search engine (default: the one of the index): bm25, chargram, tantivy, rank-bm25, dense, http=URL, "
        "serper, brave, tavily, serpapi.",
        autocompletion=_engine_names,
    ),
]
_CORPUS = typer.Option(
    "--corpus",
    callback=local,
    help="Passages: .jsonl or .parquet with {id, contents} or {id, title, text}, or DPR's .tsv; .gz, .bz2, .zst too; a "
    "file or its URL (s3://, gs://, az://).",
)
Corpus = Annotated[Path | None, _CORPUS]
NeededCorpus = Annotated[Path, _CORPUS]
Index = Annotated[
    Path | None,
    typer.Option(
        "--index",
        callback=lambda path: here(utf8(path)),
        help="Folder of the index (default: the corpus's name and .index, beside it).",
    ),
]
Stage = Annotated[
    str, typer.Option("--stage", help="`all`, one stage, or several with commas.", autocompletion=_stage_names)
]
First = Annotated[str | None, typer.Option("--from", help="First stage to run.", autocompletion=_stage_names)]
Last = Annotated[str | None, typer.Option("--to", help="Last stage to run.", autocompletion=_stage_names)]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", min=1, max=1_000_000_000, help="Only the first N questions of each source (load.limit)."
    ),
]
AllowTemplates = Annotated[
    bool, typer.Option("--allow-templates", help="Take questions that templates have written, as demonstrations.")
]
Force = Annotated[bool, typer.Option("--force", help="Run the chosen stages even if they are current.")]
Llm = Annotated[
    str | None,
    of_model("--llm", metavar="MODEL", help="Model for compose, decompose and queries; `offline` is rules."),
]
Prompts = Annotated[
    list[str] | None,
    of_model("--prompt", metavar="NAME=FILE", help=f"Your own prompt: one of {', '.join(_PROMPTS)}."),
]
MaxCost = Annotated[
    float | None, of_model("--max-cost", help="US dollars for this store before the build stops (llm.max_cost).")
]
MaxTokens = Annotated[
    int | None, of_model("--max-tokens-total", help="Tokens for this store before it stops (llm.max_tokens_total).")
]
LlmMode = Annotated[
    Literal["online", "batch"] | None,
    of_model("--llm-mode", help="batch: OpenAI's Batch API, half the price within 24 hours (llm.mode)."),
]
MaxConcurrency = Annotated[
    int | None, of_model("--max-concurrency", min=1, help="Calls in flight at most (llm.max_concurrency).")
]
Rpm = Annotated[float | None, of_model("--rpm", help="Requests per minute at most (llm.rpm).")]
Tpm = Annotated[float | None, of_model("--tpm", help="Tokens per minute at most (llm.tpm).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Switches = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set one switch of the preset; docs/rewards.md.")
]
Title = Annotated[str | None, typer.Option("--title", help="Title of the page (default: names its sources).")]
Rollouts = Annotated[
    list[str] | None,
    typer.Option(
        "--rollouts",
        metavar="[POLICY=]FILE",
        help="Rollouts that `eval` wrote, a file or its folder, shown beside the gold trajectories; repeatable.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no log lines.")]
Repo = Annotated[str, typer.Argument(metavar="USER/NAME[@TAG]", help="Dataset on the Hub.")]
Licences = Annotated[
    list[str] | None,
    typer.Option(
        "--license",
        metavar="[KIND=]ID",
        help="Licence of your own rows, as the Hub names it (cc-by-4.0, apache-2.0, …); of a kind of source: KIND=ID.",
    ),
]
Patience = Annotated[
    float | None,
    typer.Option(
        "--patience",
        min=0.1,
        max=1_000_000,
        callback=finite,
        help="Seconds to retry while the Hub is busy or unreachable (default 300).",
    ),
]
