"""What good commands need, made once: a source, a store, a corpus with its index, a release, rollouts, runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bad.sources import answer, passage, rollout
from tests.rows import hotpotqa, jsonl, musique, two_wiki, write_lines

_LOOK = ["--dry-run", "--max-rejects", "1", "--allow-paths", "--patience", "0.1"]
Cli = Callable[[list[str]], None]
TRUTHS = [
    ("Tosca", "Giacomo Puccini", "Lucca"),
    ("Norma", "Vincenzo Bellini", "Catania"),
    ("Aida", "Giuseppe Verdi", "Roncole"),
]


def make_base(folder: Path, cli: Cli) -> None:
    """Fill an empty folder, by the command line itself."""
    for name, make in {"musique": musique, "hotpotqa": hotpotqa, "2wiki": two_wiki, "jsonl": jsonl}.items():
        write_lines(folder / f"{name}.jsonl", [make(f"{name}-{number}") for number in range(2)])
    write_lines(folder / "corpus.jsonl", [passage(f"p{number}") for number in range(20)])
    write_lines(folder / "rollouts.jsonl", [rollout(f"q{number}") for number in range(3)])
    write_lines(folder / "answers.jsonl", [answer(f"q{number}") for number in range(3)])
    pq.write_table(pa.Table.from_pylist([rollout(f"q{number}") for number in range(3)]), folder / "rollouts.parquet")
    sources = [f"--source=musique={folder}/synth.jsonl", f"--source=hotpotqa={folder}/hotpotqa.jsonl"]
    engines = ["--engine", "bm25", "--engine", "chargram"]
    for argv in (
        ["synth", "-o", f"{folder}/synth.jsonl", "-n", "6", "--per-question", "5", "--quiet"],
        ["build", "--store", f"{folder}/store", *sources, *engines, "--set", "quality.validation=0.4"],
        ["index", "--corpus", f"{folder}/corpus.jsonl", "--index", f"{folder}/index", *engines],
        ["publish", "ann/data", "--store", f"{folder}/store", "--output", f"{folder}/release", *_LOOK],
        ["init", f"{folder}/stepsearch.toml"],
    ):
        cli(argv)
    for name, seed in (("weak", 1), ("weak", 2), ("strong", 1), ("strong", 2)):
        run = folder / "runs" / f"{name}-seed{seed}"
        run.mkdir(parents=True)
        write_lines(run / "metrics.jsonl", [{"update": n, "eval_em": n / 9, "rollouts": 8} for n in range(4)])
        (run / "run.json").write_text(json.dumps({"variant": name, "seed": seed}))
    (folder / "recipe.toml").write_text('store = "store"\n[model]\npath = "model"\n[schedule]\nupdates = 1\n')
    (folder / "prompt.txt").write_text("${question} ${hops} ${titles} ${n}\n")
    template = Path(__file__).resolve().parents[2] / "stepsearch_data" / "templates" / "tools.txt"
    shutil.copyfile(template, folder / "template.txt")
