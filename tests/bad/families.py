"""Kinds of bad input, each a function from chance to a case."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.search.kinds import kind_of, kinds
from stepsearch_data.stages import STAGES
from tests.bad.case import Case
from tests.bad.commands import FORMATS, IMPATIENT, bad_options, good, verbs
from tests.bad.folders import bad_index, bad_release, bad_runs, bad_store, odd_names
from tests.bad.sources import ROWS, answer, deep_text, passage, rollout, write_rows, write_table
from tests.bad.values import TEXTS, damage, instead_of_file, integer, number, text

Family = Callable[[Random, Path, Path], Case]
_ALL = ["--set", "run.max_reject_share=1"]


def bad_source(rng: Random, base: Path, folder: Path) -> Case:
    """Rows of a source that are wrong, in a file that may be, too."""
    kind = rng.choice(list(ROWS))
    if kind in {"musique", "jsonl"} and rng.random() < 0.2:  # the others' tuples are no columns
        file, rows = write_table(folder / "rows.parquet", ROWS[kind], rng)
    else:
        file, rows = write_rows(folder / "rows", ROWS[kind], rng)
    called = kind if rng.random() < 0.9 else rng.choice(list(ROWS))
    engines = [["--engine", "bm25", "--engine", "chargram"], ["--engine", "bm25"], ["--to", "load"], ["--to", "load"]]
    argv = ["build", "--store", f"{folder}/store", "--source", f"{called}={file}", *rng.choice(engines), *_ALL]
    return Case(argv, rows=rows, store=f"{folder}/store")


def bad_questions(rng: Random, base: Path, folder: Path) -> Case:
    """Such a file for `eval`, whose policy does not answer, and as evaluation data of the quality gates."""
    kind = rng.choice(list(ROWS))
    file, _ = write_rows(folder / "rows", ROWS[kind], rng)
    if rng.random() < 0.2:
        file = folder / "rows.csv"
        file.write_bytes(damage(b"id,Question,Answer\n" + b'1,"Who, and why?",me\n' * 4, rng))
    if rng.random() < 0.5:
        case = good("eval", base, folder)
        case.argv += ["--questions", f"{rng.choice([kind, kind, 'bamboogle'])}={file}"]
        return case
    argv = ["build", "--store", f"{folder}/store", "--source", f"musique={base}/musique.jsonl"]
    settings = {"eval_sources": json.dumps([f"{kind}={file}"]), "eval_single_hop_ids": json.dumps(str(file))}
    name = rng.choice(list(settings))
    return Case([*argv, "--set", f"quality.{name}={settings[name]}"])


def bad_rollouts(rng: Random, base: Path, folder: Path) -> Case:
    """Rollouts or answers, JSON or Parquet, to be scored or shown."""
    make = rng.choice([rollout, rollout, answer])
    if rng.random() < 0.5:
        file, rows = write_rows(folder / "rollouts", make, rng)
    else:
        file, rows = write_table(folder / "rollouts.parquet", make, rng)
    other = rng.choice(["report", "build", *[""] * 10])
    if other:
        case = good(other, base, folder)
        path = ["--rollouts", f"p={file}"]
        case.argv += path if other == "report" else ["--set", f"quality.rollouts={json.dumps(str(file))}"]
        return case
    given = [str(file)] if make is rollout else ["--answers", str(file)]
    return Case(["score", *given, "-o", f"{folder}/x.parquet", "--workers", "1"], rows=rows, scored=f"{folder}/x")


def bad_corpus(rng: Random, base: Path, folder: Path) -> Case:
    """Passages to be indexed, in each of the formats."""
    if rng.random() < 0.6:
        file, rows = write_rows(folder / "passages", passage, rng)
    elif rng.random() < 0.6:
        file, rows = write_table(folder / "passages.parquet", passage, rng)
    else:
        file, rows = folder / "passages.tsv", None
        file.write_bytes(damage(b"id\ttext\ttitle\n" + b"1\tsome words\tA title\n" * 5, rng))
    engines = [["--engine", name] for name in ("bm25", "chargram", "rank-bm25", "tantivy")]
    argv = ["index", "--corpus", str(file), "--index", f"{folder}/index", *rng.choice(engines)]
    return Case(argv, rows=rows, indexed=f"{folder}/index")


def bad_settings(rng: Random, base: Path, folder: Path) -> Case:
    """A setting of a stage, an engine, a model or the run with another value."""
    models: dict[str, Any] = {stage.name: stage.config for stage in STAGES}
    models["llm"] = LlmSettings
    for name in kinds():
        kind = kind_of(name)
        models |= {f"engines.{name}": kind.config, f"engines.{name} ": kind.settings}
    names = [f"{section.strip()}.{field}" for section, model in models.items() for field in model.model_fields]
    names += ["run.workers", "run.max_reject_share", "engines.use", "x.y", "load", ".", "load.x.y", "engines.bm25.kind"]
    key = rng.choice(names)
    value = rng.choice(
        [integer(rng), number(rng), text(rng), json.dumps(rng.choice(["x", None, [], {}, [1], {"a": 1}]))]
    )
    value = rng.choice([value, deep_text(rng)]) if rng.random() < 0.05 else value
    section = key.split(".")[1] if key.startswith("engines.") else ""
    engine = ["--engine", section] if section in {"bm25", "chargram", "tantivy", "rank-bm25"} else []
    argv = ["build", "--store", f"{folder}/store", "--source", f"musique={base}/musique.jsonl", *engine]
    if rng.random() < 0.3 and "." in key and "engines" not in key:
        name = "STEPSEARCH_" + key.upper().replace(".", "_", 1)
        return Case([*argv, "--quiet"], env={name: value.replace("\0", "")})
    if key.startswith("llm.") and key != "llm.patience" and rng.random() < 0.6:
        case = good("doctor", base, folder)
        case.argv += ["--set", f"{key}={value}"]
        case.env = rng.choice([{}, {"OPENAI_API_KEY": text(rng)}])
        return case
    if rng.random() < 0.2:
        return Case(["explain", *argv[1:], "--set", f"{key}={value}"])
    return Case([*argv, "--set", f"{key}={value}"])


def bad_run_file(rng: Random, base: Path, folder: Path) -> Case:
    """A run file, a recipe, a template or a prompt that is none."""
    name = rng.choice(["stepsearch.toml", "recipe.toml", "template.txt", "prompt.txt"])
    file = folder / f"input{Path(name).suffix}"
    _write_bad_text(file, (base / name).read_text(), rng)
    if name == "stepsearch.toml":
        flags = rng.choice([["--store", f"{folder}/store"], []])
        return Case([rng.choice(["build", "explain", "status"]), "--config", str(file), *flags])
    if name == "recipe.toml":
        return Case(["train", "--config", str(file)])
    if name == "template.txt":
        argv = ["export", "-f", rng.choice(FORMATS), "-o", f"{folder}/o", "--store", f"{base}/store"]
        return Case([*argv, "-t", str(file)])
    case = good("build", base, folder)
    case.argv += ["--llm", "m", "--prompt", f"{rng.choice(['decompose', 'queries', 'x'])}={file}", *IMPATIENT]
    return case


def _write_bad_text(file: Path, text: str, rng: Random) -> None:
    how = rng.choice(["damage", "deep", "encode", "lines", "nothing", "values"])
    if how == "damage":
        file.write_bytes(damage(text.encode(), rng))
    elif how == "deep":
        file.write_text(deep_text(rng))
    elif how == "encode":
        file.write_bytes(text.encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"])))
    elif how == "values" and file.suffix == ".toml":
        file.write_text(_spoiled_toml(text, rng), errors="replace")
    elif how == "lines":
        lines = text.splitlines(keepends=True)
        rng.shuffle(lines)
        file.write_text("".join(lines[: rng.randrange(len(lines) + 1)]))
    else:
        instead_of_file(file, rng)


def _spoiled_toml(toml: str, rng: Random) -> str:
    """One value of a TOML file replaced."""
    lines = toml.splitlines()
    at = rng.choice([n for n, line in enumerate(lines) if "=" in line])
    key = lines[at].lstrip("# ").split("=")[0]
    value = rng.choice(
        [integer(rng), number(rng), json.dumps(text(rng)), "[]", "{}", "[[[]]]", "1979-05-27", "0x" + "f" * 40]
    )
    lines[at] = f"{key}= {value}"
    return "\n".join(lines)


def bad_query(rng: Random, base: Path, folder: Path) -> Case:
    """SQL and search queries."""
    queries = [
        *TEXTS,
        "SELECT",
        "SELECT 1; SELECT 2",
        "SELECT * FROM nothing",
        "SELECT " + "(" * 3_000,
        "WITH",
        "SELECT 1/0",
    ]
    queries += [
        "SELECT * FROM '/etc/passwd'",
        "COPY (SELECT 1) TO 'x'",
        "SELECT [1] || 'x'",
        "SELECT 'x'::INT",
        "PRAGMA x",
    ]
    queries += [
        "SELECT " + "1+" * 5_000 + "1",
        "SELECT chr(0)",
        "SELECT 1e400",
        "SELECT interval 1 year",
        "SELECT '\x1b[2J'",
    ]
    queries += [f"SELECT range({10**n})" for n in (3, 6)] + [
        "SELECT date '294247-01-10'",
        "SELECT nan",
        "SELECT 1 AS a, 2 AS a",
    ]
    form = rng.choice(["table", "csv", "json", "jsonl", "parquet"])
    query = rng.choice(queries)
    if rng.random() < 0.3:
        data = query.encode("utf-8", "surrogateescape")
        return Case(["sql", "-", "--store", f"{base}/store", "-f", form], stdin=rng.choice([data, damage(data, rng)]))
    if rng.random() < 0.6:
        return Case(["sql", "--store", f"{base}/store", "-f", form, "--", query.replace("\0", "")])
    return Case(["search", "--store", f"{base}/store", "--", query.replace("\0", "")])


def bad_places(rng: Random, base: Path, folder: Path) -> Case:
    """Outputs that cannot be written, a stdout that takes nothing."""
    verb = rng.choice(verbs())
    case = good(verb, base, folder)
    if rng.random() < 0.6:
        case.stdout = rng.choice(["/dev/full", "closed", "broken", "", ""])
        case.longest = case.longest if case.stdout else rng.choice([4_000, 10_000, 40_000])
        return case
    outside = [Path("/dev/full"), Path("/proc")] if os.geteuid() else [folder]
    place = rng.choice([folder / "locked", folder / "file", folder / "folder", *outside])
    (folder / "file").write_text("a file")
    (folder / "folder" / "inner").mkdir(parents=True)
    (folder / "locked").mkdir(mode=0o500)
    outputs = [argument for argument in case.argv if argument.startswith(f"{folder}/")]
    case.argv = [rng.choice([f"{place}/x", str(place)]) if argument in outputs else argument for argument in case.argv]
    return case


FAMILIES: list[tuple[Family, int]] = [
    (bad_source, 20),
    (bad_options, 20),
    (bad_settings, 10),
    (odd_names, 10),
    (bad_store, 12),
    (bad_rollouts, 7),
    (bad_run_file, 6),
    (bad_corpus, 5),
    (bad_index, 5),
    (bad_questions, 3),
    (bad_release, 3),
    (bad_runs, 3),
    (bad_query, 4),
    (bad_places, 4),
]


def family_of(seed: int, number: int) -> Family:
    """The kind of bad input that this case is."""
    families, weights = zip(*FAMILIES, strict=True)
    chosen: Family = Random(f"{seed}/{number}").choices(families, weights)[0]
    return chosen


def make_case(seed: int, number: int, base: Path, folder: Path) -> Case:
    """The case of that number, its files in the folder; the same for equal seeds."""
    return family_of(seed, number)(Random(f"{seed}:{number}"), base, folder)
