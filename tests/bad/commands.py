"""Every verb with a good command of its own, and one or two of its options with a bad value."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any, get_type_hints

from typer.main import get_command

from stepsearch_data.cli import COMMANDS, app
from tests.bad.case import Case
from tests.bad.process import NOWHERE
from tests.bad.values import NAMES, bad_place, integer, number, text

FORMATS = ["verl", "stepsearch", "search-r1", "verl-sft", "trl-sft", "trl-grpo", "trl-dpo", "trl-stepwise"]
FORMATS += ["llama-factory", "sharegpt", "skyrl", "verifiers", "corpus", "marks-jsonl", "argilla", "label-studio"]
FORMATS += ["curriculum", "traces", "atif"]
IMPATIENT = ["--set", "llm.patience=0.1", "--set", "llm.max_attempts=1"]
_HUGE = ["0", "-1", "3", "1" + "0" * 12, "1" + "0" * 400, "nan", ""]
# Much work or patience may take long, and a port of our choice may be in use.
_FEW = dict.fromkeys(("questions", "paragraphs", "per_question", "sentences"), _HUGE)
_FEW["patience"] = ["0", "-1", "nan", "inf", "1e400", "1" + "0" * 400, "", "x"]
_FEW["port"] = ["-1", "65536", "1" + "0" * 30, "nan", "", "x"]
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
        "rollouts": ["--llm", "m", "--base-url", NOWHERE, *store, "-o", f"{folder}/played", "-q", *IMPATIENT],
        "doctor": ["--llm", "m", "--set", "llm.timeout=1", *IMPATIENT],
        "sql": ["SELECT * FROM trajectories", *store],
        "schema": [],
        "show": store,
        "audit": store,
        "compare": [f"{base}/store", f"{base}/store"],
        "report": [*store, "-o", f"{folder}/report", "-q"],
        "view": [*store, "--port", "0", "--no-open"],
        "mark": store,
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
        "eval": ["--llm", "m", "--base-url", NOWHERE, *store, "-o", f"{folder}/eval", "-q", *IMPATIENT],
        "plot": [f"{base}/runs", "-o", f"{folder}/curves.svg", "-q"],
    }
    return Case([verb, *argv[verb]], stop=_UP if verb in {"serve", "view"} else "")


def verbs() -> list[str]:
    return [name for panel in COMMANDS.values() for name in panel]


def bad_options(rng: Random, base: Path, folder: Path) -> Case:
    """A good command, and then other values for one or two of its options or its argument."""
    verb = rng.choice(verbs())
    case = good(verb, base, folder)
    hints = get_type_hints(next(panel[verb] for panel in COMMANDS.values() if verb in panel))
    group: Any = get_command(app)
    # No help, and no address that is not this machine's alone.
    options = [option for option in group.commands[verb].params if option.name not in {"help", "host"}]
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
    if option.name in _FEW:
        return rng.choice(_FEW[option.name])
    if "int" in kind or "float" in kind:
        return integer(rng) if "int" in kind else number(rng)
    if "Path" in kind:
        there = _copied(rng.choice(sorted(base.iterdir())), folder)
        return rng.choice(
            [str(folder / rng.choice(NAMES)), bad_place(folder, rng, written=option.name in {"output", "path"}), there]
        )
    if option.name in {"source", "questions", "rollouts", "prompt", "licences"}:
        name = rng.choice(["musique", "jsonl", "2wiki", "decompose", "bamboogle", "x", ""])
        return f"{name}={rng.choice([bad_place(folder, rng), text(rng), f'{base}/corpus.jsonl'])}"
    if option.name == "engine":
        name = rng.choice(["bm25", "http", "dense", "serper", "chargram", "x", ""])
        return f"{name}{rng.choice(['', '=', '=' + text(rng), f'={base}/index'])}"
    return text(rng)


def _copied(path: Path, folder: Path) -> str:
    """A good file or folder of another kind, perhaps; a copy, as the command may write to it."""
    copy = folder / f"a-{path.name}"
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, copy)
    return str(copy)
