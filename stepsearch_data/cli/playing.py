"""What `eval` and `rollouts` share: the options of a policy that plays, and what both print."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from stepsearch_data.builds import engine_settings, merged_settings, run_config_over
from stepsearch_data.cli import options
from stepsearch_data.cli.printing import REASONS, print_json, say, tell

if TYPE_CHECKING:
    from stepsearch_data.evaluation.evaluate import Report
    from stepsearch_data.evaluation.setup import Options
    from stepsearch_data.indexes import Load

_of_rollouts = partial(typer.Option, rich_help_panel="Rollouts")
Samples = Annotated[
    int, _of_rollouts("--samples", min=1, max=10_000, help="Rollouts of each question. A higher number adds to DIR.")
]
Temperature = Annotated[
    float,
    _of_rollouts("--temperature", min=0, max=100, callback=options.finite, help="0 takes the likeliest token."),
]
AskNothing = Annotated[bool, typer.Option("--dry-run", help="Say what would be asked at most, and ask nothing.")]


@dataclass(frozen=True)
class Playing:
    """Who plays, on what and how. Each field is an option of the commands that `with_playing` makes."""

    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="A run of `train`, one of its checkpoints, a folder of a model, or USER/NAME[@REVISION] on the Hub."
        ),
    ] = None
    best: Annotated[
        bool, typer.Option("--best", help="Of a run, the checkpoint with the highest held-out exact match.")
    ] = False
    llm: Annotated[
        str | None, options.of_model("--llm", metavar="MODEL", help="Model of an OpenAI-compatible server, instead.")
    ] = None
    base_url: Annotated[str | None, options.of_model("--base-url", help="The server (llm.base_url).")] = None
    raw: Annotated[
        bool, options.of_model("--raw", help="Continue one text (/completions), as trained policies do, not a chat.")
    ] = False
    store: options.Store = None
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            max=1_000_000_000,
            help="At most N questions per source: drawn from a store, the first of a file.",
        ),
    ] = None
    engine: options.OneEngine = None
    index: options.Index = None
    corpus: options.Corpus = None
    template: Annotated[
        str | None,
        _of_rollouts(
            "--template",
            "-t",
            metavar="NAME|FILE",
            help="How prompts are worded: musique, paper or a file of yours (default: as trained, or musique); tools: "
            "the model calls the search.",
        ),
    ] = None
    tools: Annotated[
        str | None,
        _of_rollouts("--tools", metavar="open,find", help="What a server's model may call beside the search."),
    ] = None
    page_length: Annotated[
        int | None,
        _of_rollouts("--page-length", min=100, max=100_000, help="Characters of an opened page (default: 4000)."),
    ] = None
    max_reads: Annotated[
        int | None,
        _of_rollouts("--max-reads", min=0, max=1_000, help="Calls of open and find in a rollout (default: 10)."),
    ] = None
    calls_per_turn: Annotated[
        int | None,
        _of_rollouts("--calls-per-turn", min=1, max=1_000, help="Calls of a turn that are run (default: 1)."),
    ] = None
    turns: Annotated[
        int | None, _of_rollouts("--turns", min=0, max=1_000, help="Turns that may search (default: as trained, or 5).")
    ] = None
    k: Annotated[
        int | None, _of_rollouts("-k", min=1, max=100, help="Documents per search (default: as trained, or 3).")
    ] = None
    max_tokens: Annotated[
        int | None,
        _of_rollouts("--max-tokens", min=1, max=1_000_000, help="Tokens of a turn (default: as trained, or 500)."),
    ] = None
    length: Annotated[
        int | None,
        _of_rollouts(
            "--length",
            min=16,
            max=100_000_000,
            help="Tokens of a rollout and its prompt (default: as trained, or 4096).",
        ),
    ] = None
    samples: Samples = 1
    temperature: Temperature = 0.0
    seed: Annotated[int, _of_rollouts("--seed", min=0, max=2**63 - 1, help="Seed of sampling.")] = 0
    batch: Annotated[
        int | None,
        _of_rollouts(
            "--batch", min=1, max=1_000_000, help="Rollouts at once (default 64; of a server 4 × concurrency)."
        ),
    ] = None
    max_concurrency: options.MaxConcurrency = None
    max_cost: Annotated[float | None, options.of_model("--max-cost", help="US dollars at most (llm.max_cost).")] = None
    config: options.Config = None
    settings: options.Settings = None

    @property
    def load(self) -> Load:
        """Return what reads the configuration: the server of who plays, its budget and the engine that it searches."""
        flags = {
            "llm.base_url": self.base_url,
            "llm.max_concurrency": self.max_concurrency,
            "llm.max_cost": self.max_cost,
        }
        over = [*engine_settings(self.engine), *merged_settings(flags, self.settings)]
        return partial(run_config_over, self.config, over)

    def options(self) -> Options:
        """Return what an evaluation takes of it."""
        from stepsearch_data.evaluation.setup import Options
        from stepsearch_data.indexes import Choice

        return Options(
            checkpoint=self.checkpoint,
            best=self.best,
            llm=self.llm,
            raw=self.raw,
            choice=Choice(self.corpus, self.store, self.index),
            template=self.template,
            lengths=_given(max_turns=self.turns, topk=self.k, max_new_tokens=self.max_tokens, max_length=self.length),
            tools=tuple(name.strip() for name in (self.tools or "").split(",") if name.strip()),
            reading=_given(page_length=self.page_length, max_reads=self.max_reads, calls_per_turn=self.calls_per_turn),
            limit=self.limit,
            batch=self.batch,
            samples=self.samples,
            temperature=self.temperature,
            seed=self.seed,
        )


def _given(**numbers: int | None) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number is not None}


def with_playing(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that has the fields of its parameter `playing` as options, at its place."""
    parameters = inspect.signature(command, eval_str=True).parameters
    kind = parameters["playing"].annotation
    types = get_type_hints(kind, include_extras=True)
    options_of = {
        field.name: inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
        )
        for field in fields(kind)
    }

    @wraps(command)
    def played(**given: Any) -> None:
        playing = kind(**{name: given.pop(name) for name in options_of})
        command(playing=playing, **given)

    every = [
        parameter
        for name, own in parameters.items()
        for parameter in (options_of.values() if name == "playing" else [own])
    ]
    played.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    vars(played)["__signature__"] = inspect.Signature(every)
    return played


def print_rehearsal(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what a policy would be asked for."""
    if as_json:
        print_json(found)
        return
    cost = "" if found["cost_at_most"] is None else f", ${found['cost_at_most']:,.2f}"
    say(f"{found['questions']:,} questions, {found['rollouts']:,} rollouts, of which {found['there']:,} are there")
    say(f"at most {found['turns_at_most']:,} turns, {found['completion_tokens_at_most']:,} tokens written{cost}")


def tell_faults(report: Report) -> None:
    """Tell on stderr which rows could not be asked or were refused, and what is wrong as a whole."""
    refused = [f"{times:,} × {reason}" for reason, times in report.refused.most_common(REASONS)]
    for times, what, reasons in (
        (len(report.rejects), "rows cannot be asked", report.rejects[:REASONS]),
        (report.refused.total(), "rollouts were refused; the same command tries them again", refused),
    ):
        if times:
            tell(f"{times:,} {what}:", *(f"  {why}" for why in reasons))
    tell(*(f"note: {note}" for note in report.notes()))
