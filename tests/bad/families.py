"""Kinds of bad input, each a function from chance to a case."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from stepsearch_data.pipeline.llm.settings import LlmSettings
from stepsearch_data.pipeline.search.kinds import kind_of, kinds
from stepsearch_data.stages import STAGES
from tests.bad.case import Case
from tests.bad.commands import bad_options, good, verbs
from tests.bad.sources import ROWS, answer, deep_text, passage, rollout, write_rows, write_table
from tests.bad.values import NAMES, TEXTS, damage, dumped, instead_of_file, integer, number, spoil, text

Family = Callable[[Random, Path, Path], Case]
FORMATS = ["verl", "stepsearch", "search-r1", "verl-sft", "trl-sft", "trl-grpo", "trl-dpo", "trl-stepwise"]
FORMATS += ["llama-factory", "sharegpt", "verifiers", "corpus"]
READERS = ["status", "sql", "show", "audit", "report", "view", "export", "publish", "verify", "search", "serve"]
READERS += ["explain", "build", "retry-failed", "train", "eval"]
_ALL = ["--set", "run.max_reject_share=1"]


def bad_source(rng: Random, base: Path, folder: Path) -> Case:
    """Rows of a source that are wrong, in a file that may be, too."""
    kind = rng.choice(list(ROWS))
    file, rows = write_rows(folder / "rows", ROWS[kind], rng)
    called = kind if rng.random() < 0.9 else rng.choice(list(ROWS))
    engines = [["--engine", "bm25", "--engine", "chargram"], ["--engine", "bm25"], ["--to", "load"], ["--to", "load"]]
    argv = ["build", "--store", f"{folder}/store", "--source", f"{called}={file}", *rng.choice(engines), *_ALL]
    return Case(argv, rows=rows, store=f"{folder}/store")


def bad_questions(rng: Random, base: Path, folder: Path) -> Case:
    """Such a file for `eval`, whose policy does not answer, and as evaluation data of the quality gates."""
    kind = rng.choice(list(ROWS))
    file, _ = write_rows(folder / "rows", ROWS[kind], rng)
    if rng.random() < 0.5:
        case = good("eval", base, folder)
        case.argv += ["--questions", f"{rng.choice([kind, kind, 'bamboogle'])}={file}"]
        return case
    argv = ["build", "--store", f"{folder}/store", "--source", f"musique={base}/musique.jsonl"]
    return Case([*argv, "--set", f"quality.evaluation={json.dumps([f'{kind}={file}'])}"])


def bad_rollouts(rng: Random, base: Path, folder: Path) -> Case:
    """Rollouts or answers, JSON or Parquet, to be scored or shown."""
    make = rng.choice([rollout, rollout, answer])
    if rng.random() < 0.5:
        file, rows = write_rows(folder / "rollouts", make, rng)
    else:
        file, rows = write_table(folder / "rollouts.parquet", make, rng)
    if rng.random() < 0.15:
        case = good("report", base, folder)
        case.argv += ["--rollouts", f"p={file}"]
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


def odd_names(rng: Random, base: Path, folder: Path) -> Case:
    """Files and folders whose names are strange, and yet names: everything works."""
    place = folder / rng.choice(NAMES)
    place.mkdir()
    copies = {"store": "store", "musique.jsonl": "m.jsonl", "rollouts.jsonl": "r.jsonl", "corpus.jsonl": "c.jsonl"}
    copies |= {"index": "index", "release": "release", "runs": "runs", "template.txt": "template.txt"}
    copies |= {"rollouts.parquet": "r.parquet"}
    for name, copy in copies.items():
        (shutil.copytree if (base / name).is_dir() else shutil.copyfile)(base / name, place / copy)
    at = os.fspath(place)
    store = ["--store", f"{at}/store"]
    engines = ["--engine", "bm25", "--engine", "chargram"]
    commands: list[Case] = [
        Case(
            ["build", "--store", f"{at}/new", "--source", f"musique={at}/m.jsonl", *engines], store=f"{at}/new", rows=2
        ),
        Case(["build", *store, "--set", "filter.k=5", *engines]),
        Case(["index", "--corpus", f"{at}/c.jsonl", *engines], rows=20, indexed=f"{at}/c.jsonl.index"),
        Case(["search", "words", "--index", f"{at}/index"]),
        Case(["search", "words", "--corpus", f"{at}/c.jsonl"]),
        Case(["search", "words", *store]),
        Case(["serve", "--index", f"{at}/index", "--port", "0", "--engine", "bm25"], stop="http://127.0.0.1"),
        Case(["score", f"{at}/r.jsonl", "--workers", "1"], rows=3, scored=f"{at}/r.scores"),
        Case(["score", f"{at}/r.parquet", "--workers", "1"], rows=3, scored=f"{at}/r.scores"),
        Case(["report", *store, "-o", f"{at}/page", "--rollouts", f"p={at}/r.jsonl"]),
        Case(["report", *store, "-o", f"{at}/page", "--folder"]),
        Case(["view", *store, "--port", "0", "--no-open"], stop="http://127.0.0.1"),
        *(Case(["export", "-f", form, "-o", f"{at}/out", *store, "--all"]) for form in FORMATS),
        Case(["export", "-f", "verl", "-o", f"{at}/out", *store, "--all", "--template", f"{at}/template.txt"]),
        Case(
            ["publish", "ann/data", *store, "-o", f"{at}/rel", "--dry-run", "--patience", "0.1", "--max-rejects", "1"]
        ),
        Case(["verify", f"{at}/release"]),
        Case(["verify", f"{at}/store"]),
        *(Case([verb, *store]) for verb in ("status", "audit", "show", "explain")),
        Case(
            [
                "sql",
                "SELECT * FROM trajectories JOIN queries USING (question_id)",
                *store,
                "-f",
                "parquet",
                "-o",
                f"{at}/x",
            ]
        ),
        Case(["plot", f"{at}/runs", "-o", f"{at}/c.svg"]),
        Case(["synth", "-o", f"{at}/world.jsonl", "-n", "3"]),
        Case(["init", f"{at}/run.toml"]),
    ]
    case = rng.choice(commands)
    case.works = True
    return case


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
    value = rng.choice([integer, number, text, lambda r: json.dumps(r.choice(["x", None, [], {}, [1], {"a": 1}]))])(rng)
    value = rng.choice([value, deep_text(rng)]) if rng.random() < 0.05 else value
    section = key.split(".")[1] if key.startswith("engines.") else ""
    engine = ["--engine", section] if section in {"bm25", "chargram", "tantivy", "rank-bm25"} else []
    argv = ["build", "--store", f"{folder}/store", "--source", f"musique={base}/musique.jsonl", *engine]
    if rng.random() < 0.3 and "." in key and "engines" not in key:
        name = "STEPSEARCH_" + key.upper().replace(".", "_", 1)
        return Case([*argv, "--quiet"], env={name: value.replace("\0", "")})
    if rng.random() < 0.2:
        return Case(["explain", *argv[1:], "--set", f"{key}={value}"])
    return Case([*argv, "--set", f"{key}={value}"])


def bad_run_file(rng: Random, base: Path, folder: Path) -> Case:
    """A run file, a recipe, a template or a prompt that is none."""
    verb, name = rng.choice(
        [("build", "stepsearch.toml"), ("train", "recipe.toml"), ("export", "template.txt")] * 2 + [("prompt", "")]
    )
    data = (base / name).read_bytes() if name else b"${question} ${hops} {question}"
    file = folder / f"input{Path(name).suffix}"
    how = rng.choice(["damage", "deep", "encode", "lines", "nothing", "values"])
    if how == "damage":
        file.write_bytes(damage(data, rng))
    elif how == "deep":
        file.write_text(deep_text(rng))
    elif how == "encode":
        file.write_bytes(data.decode().encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"])))
    elif how == "values" and name.endswith("toml"):
        file.write_text(_spoiled_toml(data.decode(), rng), errors="replace")
    elif how == "lines":
        lines = data.splitlines(keepends=True)
        rng.shuffle(lines)
        file.write_bytes(b"".join(lines[: rng.randrange(len(lines) + 1)]))
    else:
        instead_of_file(file, rng)
    if verb == "build":
        flags = rng.choice([["--store", f"{folder}/store"], []])
        return Case(
            [rng.choice(["build", "explain", "status"]), "--config", str(file), *flags][: 3 if not flags else None]
        )
    if verb == "train":
        return Case(["train", "--config", str(file)])
    if verb == "export":
        return Case(
            ["export", "-f", rng.choice(FORMATS), "-o", f"{folder}/o", "--store", f"{base}/store", "-t", str(file)]
        )
    case = good("build", base, folder)
    case.argv += ["--llm", "m", "--prompt", f"{rng.choice(['decompose', 'queries', 'x'])}={file}"]
    case.argv += ["--set", "llm.patience=0.1", "--set", "llm.max_attempts=1"]
    return case


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


def bad_store(rng: Random, base: Path, folder: Path) -> Case:
    """A store in which one file is damaged, foreign, or none."""
    store = folder / "store"
    shutil.copytree(base / "store", store)
    _harm(store, rng)
    return _reader(rng, base, folder, str(store))


def _harm(root: Path, rng: Random) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    file = rng.choice(files)
    if rng.random() < 0.3:
        file = next(path for path in files if path.name in {"manifest.json", "release.json"})
    how = rng.choice(["damage", "damage", "instead", "swap", "spoil", "spoil", "folder"])
    if how == "damage":
        file.write_bytes(damage(file.read_bytes(), rng))
    elif how == "swap":
        shutil.copyfile(rng.choice(files), file)
    elif how == "folder":
        instead_of_file(file.parent if file.parent != root else file, rng)
    elif how == "spoil" and file.suffix in {".json", ".jsonl"}:
        first, *rest = [file.read_bytes()] if file.suffix == ".json" else file.read_bytes().splitlines()
        tree = json.loads(first)
        for _ in range(rng.choice([1, 1, 3])):
            tree = spoil(tree, rng)
        file.write_bytes(b"\n".join([dumped(tree), *rest]))
    else:
        instead_of_file(file, rng)
    if rng.random() < 0.1:
        (root / "retries.json").write_bytes(dumped(spoil({"queries": {"q": 1}}, rng)))
    if rng.random() < 0.1:
        (root / "log").mkdir(exist_ok=True)
        name = rng.choice(["builds", "search_calls", "llm_calls"])
        (root / "log" / f"{name}.jsonl").write_bytes(
            rng.choice([b"[]\n1\nnull\n{}\n", b"\xff\n", b'{"cached": 1, "engine": []}\n'])
        )


def _reader(rng: Random, base: Path, folder: Path, store: str) -> Case:
    """A verb that reads a store, at this one."""
    verb = rng.choice(READERS)
    case = good(verb, base, folder)
    case.argv = [argument.replace(f"{base}/store", store) for argument in case.argv]
    if verb == "verify":
        case.argv[1] = store
    if verb == "export":
        case.argv[2] = rng.choice(FORMATS)
        case.argv += rng.choice([[], ["--all"]])
    if verb == "build":
        case.argv = ["build", "--store", store, *rng.choice([[], ["--force"], ["--set", "filter.k=4"], ["--dry-run"]])]
    if verb == "sql":
        names = [
            "trajectories",
            "questions",
            "queries",
            "hits",
            "rejects",
            "passages",
            "builds",
            "search_calls",
            "stages",
        ]
        case.argv[1] = f"SELECT * FROM {rng.choice(names)}"
    return case


def bad_index(rng: Random, base: Path, folder: Path) -> Case:
    """An index in which one file is damaged, foreign, or none."""
    index = folder / "index"
    shutil.copytree(base / "index", index)
    _harm(index, rng)
    engine = rng.choice([[], ["--engine", "bm25"], ["--engine", "chargram"]])
    if rng.random() < 0.6:
        return Case(["search", "words of a query", "--index", str(index), *engine])
    if rng.random() < 0.5:
        return Case(["serve", "--index", str(index), "--port", "0", *engine], stop="http://127.0.0.1")
    return Case(["index", "--corpus", f"{base}/corpus.jsonl", "--index", str(index), *engine])


def bad_release(rng: Random, base: Path, folder: Path) -> Case:
    """A release in which one file is damaged, foreign, or none."""
    shutil.copytree(base / "release", folder / "release")
    _harm(folder / "release", rng)
    if rng.random() < 0.6:
        return Case(["verify", f"{folder}/release"])
    argv = [
        "publish",
        "ann/data",
        "--store",
        f"{base}/store",
        "-o",
        f"{folder}/release",
        "--dry-run",
        "--max-rejects",
        "1",
    ]
    return Case([*argv, "--patience", "0.1"])


def bad_runs(rng: Random, base: Path, folder: Path) -> Case:
    """Runs of a training whose metrics or descriptions are damaged."""
    shutil.copytree(base / "runs", folder / "runs")
    runs = folder / "runs"
    file = rng.choice(sorted(path for path in runs.rglob("*") if path.is_file()))
    how = rng.choice(["damage", "instead", "spoil", "spoil"])
    if how == "damage":
        file.write_bytes(damage(file.read_bytes(), rng))
    elif how == "instead":
        instead_of_file(file, rng)
    else:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        lines[rng.randrange(len(lines))] = spoil(rng.choice(lines), rng)
        file.write_bytes(b"".join(dumped(line) + b"\n" for line in lines))
    extra = rng.choice(
        [[], ["--x", "rollouts"], ["--x", "tokens"], ["--at", number(rng)], ["--json"], ["--metric", text(rng)]]
    )
    return Case(["plot", str(runs), "-o", f"{folder}/c{rng.choice(['.svg', '.html', '.png', ''])}", *extra])


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
    if rng.random() < 0.4:
        case.stdout = rng.choice(["/dev/full", "closed", "broken"])
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


def make_case(seed: int, number_of_case: int, base: Path, folder: Path) -> tuple[str, Case]:
    """The case of that number; the same for equal seeds."""
    rng = Random(f"{seed}/{number_of_case}")
    (family,) = rng.choices([family for family, _ in FAMILIES], [weight for _, weight in FAMILIES])
    return family.__name__, family(rng, base, folder)
