"""Every verb with a good command of its own, and one or two of its options with a bad value."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any, get_type_hints

import typer

from stepsearch_data.cli import VERBS, app
from tests.bad.case import Case
from tests.bad.values import NAMES, bad_input, integer, number, text

NOWHERE = "http://127.0.0.1:9/v1"
_IMPATIENT = ["--set", "llm.patience=0.1", "--set", "llm.max_attempts=1"]
# The names of options whose value is an amount of work: what is huge there is slow, and no mistake of ours.
_AMOUNTS = {"questions", "paragraphs", "per_question", "sentences"}
_UP = "http://127.0.0.1"


def good(verb: str, base: Path, folder: Path) -> Case:
    """A command that does what the verb is for, or gets as far as it can without a network and without torch."""
    store = ["--store", f"{base}/store"]
    argv: dict[str, list[str]] = {
        "init": [f"{folder}/run.toml"],
        "synth": ["-o", f"{folder}/world.jsonl", "-n", "3", "--per-question", "5", "-q"],
        "build": ["--store", f"{folder}/store", "--source", f"musique={base}/musique.jsonl", "--quiet"],
        "explain": store,
        "stages": [],
        "status": store,
        "retry-failed": ["--store", f"{folder}/store", "-q"],
        "doctor": ["--llm", "m", "--set", "llm.timeout=1", *_IMPATIENT],
        "sql": ["SELECT * FROM trajectories", *store],
        "schema": [],
        "show": store,
        "audit": store,
        "report": [*store, "-o", f"{folder}/report", "-q"],
        "view": [*store, "--port", "0", "--no-open"],
        "export": ["--format", "verl", "-o", f"{folder}/out", *store],
        "publish": [
            "ann/data",
            *store,
            "-o",
            f"{folder}/release",
            "--dry-run",
            "--patience",
            "0.1",
            "--max-rejects",
            "1",
        ],
        "pull": ["ann/data", "--store", f"{folder}/store", "--patience", "0.1", "-q"],
        "verify": [f"{base}/release"],
        "index": ["--corpus", f"{base}/corpus.jsonl", "--index", f"{folder}/index", "-q"],
        "search": ["words of a query", *store],
        "serve": [*store, "--port", "0", "--engine", "bm25"],
        "score": [f"{base}/rollouts.jsonl", "-o", f"{folder}/scores.parquet", "--workers", "1", "-q"],
        "train": ["--config", f"{base}/recipe.toml", *store, "-o", f"{folder}/run", "-q"],
        "eval": ["--llm", "m", "--base-url", NOWHERE, *store, "-o", f"{folder}/eval", "-q", *_IMPATIENT],
        "plot": [f"{base}/runs", "-o", f"{folder}/curves.svg", "-q"],
    }
    return Case([verb, *argv[verb]], stop=_UP if verb in {"serve", "view"} else "")


def verbs() -> list[str]:
    return [name for panel in VERBS.values() for name in panel]


def bad_options(rng: Random, base: Path, folder: Path) -> Case:
    """A good command, and then other values for one or two of its options or its argument."""
    verb = rng.choice(verbs())
    case = good(verb, base, folder)
    hints = get_type_hints(next(panel[verb] for panel in VERBS.values() if verb in panel))
    group: Any = typer.main.get_command(app)
    options = [option for option in group.commands[verb].params if option.name != "help"]
    if verb == "serve":  # an address that is not this machine's alone is no test's business
        options = [option for option in options if option.name != "host"]
    for option in rng.sample(options, min(len(options), rng.choice([1, 1, 2]))):
        value = _value(option, str(hints.get(option.name, "str")), rng, base, folder)
        if option.param_type_name == "argument":
            at = 1 if len(case.argv) > 1 and not case.argv[1].startswith("-") else len(case.argv)
            case.argv[at : at + 1] = [value]
        elif option.is_flag:
            case.argv.append(rng.choice([*option.opts, *option.secondary_opts]))
        else:
            case.argv += [f"{option.opts[0]}={value}"] if option.opts[0].startswith("--") else [option.opts[0], value]
    return case


def _value(option: Any, kind: str, rng: Random, base: Path, folder: Path) -> str:
    if option.name in _AMOUNTS:
        return rng.choice(["0", "-1", "3", "1" + "0" * 12, "1" + "0" * 400, "nan", ""])
    if option.name == "port":  # a port of our own choice might be in use
        return rng.choice(["-1", "65536", "1" + "0" * 30, "nan", "", "x"])
    if "int" in kind:
        return integer(rng)
    if "float" in kind:
        return number(rng)
    if "Path" in kind:
        odd = [lambda: str(folder / rng.choice(NAMES)), lambda: bad_input(folder, rng)]
        return rng.choice([*odd, lambda: _copied(rng.choice(sorted(base.iterdir())), folder)])()
    if option.name in {"source", "questions", "rollouts", "prompt", "licences"}:
        name = rng.choice(["musique", "jsonl", "2wiki", "decompose", "bamboogle", "x", ""])
        return f"{name}={rng.choice([bad_input(folder, rng), text(rng), f'{base}/corpus.jsonl'])}"
    return text(rng)


def _copied(path: Path, folder: Path) -> str:
    """A good file or folder of another kind, perhaps; a copy, as the command may write to it."""
    copy = folder / f"a-{path.name}"
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, copy)
    return str(copy)
