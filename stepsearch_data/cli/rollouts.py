"""`rollouts`: a policy plays the questions of a store many times, and the store keeps what it did."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepsearch_data.cli import options
from stepsearch_data.cli.common import OK, QUARANTINED, beside, end_at_once
from stepsearch_data.cli.playing import (
    AskNothing,
    Playing,
    Samples,
    Temperature,
    print_rehearsal,
    tell_faults,
    with_playing,
)
from stepsearch_data.cli.printing import REASONS, grid, print_json, say, store_flag, tell, teller
from stepsearch_data.core.intervals import BANDS
from stepsearch_data.core.progress import Reporter

if TYPE_CHECKING:
    from stepsearch_data.rollouts import Keeping


@dataclass(frozen=True)
class _Sampling(Playing):
    samples: Samples = 8
    temperature: Temperature = 1.0


@with_playing
def rollouts(
    *,
    split: Annotated[str | None, typer.Option("--split", help="Split of the store to play (default: all).")] = None,
    playing: _Sampling,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="NAME", help="Name in the tables (default: of DIR, or the model's)."),
    ] = None,
    output: Annotated[
        Path | None,
        options.output(
            metavar="DIR",
            help="Folder of the rollouts (default STORE.rollouts/POLICY). A stopped run goes on.",
            callback=lambda path: options.here(options.utf8(path)),
        ),
    ] = None,
    dry_run: AskNothing = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Let a policy play every question of a store many times, and keep what it did in the store, scored turn by turn.

    `eval` measures a policy, and leaves the store as it is. `rollouts` makes data: it plays as `eval` does, then builds
    the tables rollouts and rollout_turns, pass rates, and with --set pick.teacher=POLICY a teacher's trajectories.
    After an interruption, the same command goes on, and nothing is paid twice. Later builds know the folder.

    Example: stepsearch-data rollouts --llm gpt-4o-mini --limit 50 --samples 4 --max-cost 2 --dry-run
    """
    end_at_once()
    from stepsearch_data.evaluation.evaluate import evaluate, rehearse
    from stepsearch_data.evaluation.setup import set_up
    from stepsearch_data.pipeline.store import Store
    from stepsearch_data.rollouts import check_build, describe, keep, name_policy, plan_keeping

    load, config = playing.load, playing.config
    if config and not playing.store:
        playing = replace(playing, store=load(()).store)
    setup = replace(playing.options(), split=split, output=output, grows=True)
    place = set_up(setup).choice.store or load(()).store
    opened = Store.open(place)
    if not output and policy is None:
        policy = name_policy(playing.llm or playing.checkpoint or "")
    folder = output or beside(opened, ".rollouts") / (policy or "")
    opened.keep_out(folder)
    plan = partial(plan_keeping, opened, folder, policy, config, playing.settings or ())
    keeping = plan()
    check_build(keeping, place, config)
    setup = replace(setup, output=folder, another=setup.another if output else "name another policy with --policy")
    if dry_run:
        found = rehearse(setup, load)
        print_rehearsal(
            {**found, "store": opened.name, "policy": keeping.policy, "folder": str(folder)}, as_json=as_json
        )
        if not as_json:
            say(f"then {opened.name} keeps them as policy {keeping.policy}, from {folder}")
        return
    reporter = Reporter(quiet=quiet)
    report = evaluate(setup, load, reporter)
    tell_faults(report)
    with opened.locked():
        keeping = plan()  # again: another command may have added a policy meanwhile
        keep(keeping, opened, config, reporter, teller(quiet))
    held = describe(opened, keeping.policy)
    if as_json:
        print_json({"policy": keeping.policy, "folder": str(folder), **held, "usage": report.usage})
    else:
        _print_held(held, keeping)
        say("try next:", style="bold")
        say(f"  stepsearch-data view{store_flag(opened)}")
    if keeping.untold:
        tell(f"note: builds with {config} lose them, unless it has {keeping.untold}")
    raise typer.Exit(QUARANTINED if held["rejected"] else OK)


def _print_held(held: dict[str, Any], keeping: Keeping) -> None:
    """Print how often a policy passes, the bands of its questions, and what was kept and taken of its rollouts."""
    low, high = held["pass_rate_interval"] or (None, None)
    told = "" if low is None else f"{low:.3f}–{high:.3f}"
    columns = ("policy", "questions", "rollouts", "pass rate", "95 %")
    grid(columns, [(keeping.policy, held["questions"], held["rollouts"], held["pass_rate"], told)])
    print()
    grid(("band", "pass rate", "questions"), [(band, BANDS[band], n) for band, n in held["bands"].items()])
    print()
    shown = held["rejected"][:REASONS]
    others = sum(each["rollouts"] for each in held["rejected"][REASONS:])
    rows = [("kept", held["rollouts"], "")]
    rows += [("rejected", each["rollouts"], each["reason"]) for each in shown]
    rows += [("rejected", others, "for other reasons")] if others else []
    rows += [
        (f"not taken: {each['failed']}" if each["failed"] else "taken", each["rollouts"], each["example"])
        for each in held["picks"]
    ]
    grid(("rollouts", "count", "because, or for example"), rows)
    if keeping.counted not in {"", keeping.policy}:
        own = shlex.quote(f"quality.policy={keeping.policy}")
        tell(f"note: pass rates are those of {keeping.counted}; of this one: --set {own}")
