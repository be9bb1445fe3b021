"""Folders whose names are strange, and stores, indexes, releases and runs in which something is damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random

from tests.bad.case import Case
from tests.bad.commands import FORMATS, good
from tests.bad.values import NAMES, damage, dumped, instead_of_file, number, spoil, text

READERS = ["status", "sql", "show", "audit", "report", "view", "export", "publish", "verify", "search", "serve"]
READERS += ["explain", "build", "retry-failed", "train", "eval"]
_OF_ROLLOUTS = ("curriculum", "traces", "atif")
_EXPORTED = [form for form in FORMATS if form not in _OF_ROLLOUTS]  # the store has none


def odd_names(rng: Random, base: Path, folder: Path) -> Case:
    """Files and folders whose names are strange, and yet names: everything works."""
    place = folder / rng.choice(NAMES)
    place.mkdir()
    at = place.name if rng.random() < 0.5 and place.name[0] not in "-~" else os.fspath(place)
    copies = {"store": "store", "musique.jsonl": "m.jsonl", "rollouts.jsonl": "r.jsonl", "corpus.jsonl": "c.jsonl"}
    copies |= {"index": "index", "release": "release", "runs": "runs", "template.txt": "template.txt"}
    copies |= {"rollouts.parquet": "r.parquet"}
    for name, copy in copies.items():
        (shutil.copytree if (base / name).is_dir() else shutil.copyfile)(base / name, place / copy)
    store = ["--store", f"{at}/store"]
    engines = ["--engine", "bm25", "--engine", "chargram"]
    commands: list[Case] = [
        Case(
            ["build", "--store", f"{at}/new", "--source", f"musique={at}/m.jsonl", *engines],
            store=f"{place}/new",
            rows=2,
        ),
        Case(["build", *store, "--set", "filter.k=5", *engines]),
        Case(["index", "--corpus", f"{at}/c.jsonl", *engines], rows=20, indexed=f"{place}/c.jsonl.index"),
        Case(["search", "words", "--index", f"{at}/index"]),
        Case(["search", "words", "--corpus", f"{at}/c.jsonl"]),
        Case(["search", "words", *store]),
        Case(["serve", "--index", f"{at}/index", "--port", "0", "--engine", "bm25"], stop="http://127.0.0.1"),
        Case(["score", f"{at}/r.jsonl", "--workers", "1"], rows=3, scored=f"{place}/r.scores"),
        Case(["score", f"{at}/r.parquet", "--workers", "1"], rows=3, scored=f"{place}/r.scores"),
        Case(["report", *store, "-o", f"{at}/page", "--rollouts", f"p={at}/r.jsonl"]),
        Case(["report", *store, "-o", f"{at}/page", "--folder"]),
        Case(["view", *store, "--port", "0", "--no-open"], stop="http://127.0.0.1"),
        *(Case(["export", "-f", form, "-o", f"{at}/out", *store, "--all"]) for form in _EXPORTED),
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
    case.works = "\\udc" not in ascii(place.name)  # what is no UTF-8 may be refused, in words
    return case


def bad_store(rng: Random, base: Path, folder: Path) -> Case:
    """A store in which one file is damaged, foreign, or none."""
    store = folder / "store"
    shutil.copytree(base / "store", store)
    _harm(store, rng)
    return _reader(rng, base, folder, str(store))


def _harm(root: Path, rng: Random) -> None:
    """Damage one file of a folder, the one that tells what is there more often than others."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    records = [path for path in files if path.name in {"manifest.json", "release.json"}]
    file = rng.choice(records if rng.random() < 0.3 else files)
    how = rng.choice(["damage", "damage", "instead", "swap", "spoil", "spoil", "folder"])
    if how == "damage":
        file.write_bytes(damage(file.read_bytes(), rng))
    elif how == "swap":
        file.write_bytes(rng.choice(files).read_bytes())
    elif how == "spoil" and file.suffix in {".json", ".jsonl"}:
        file.write_bytes(_spoiled(file, rng))
    else:
        instead_of_file(file.parent if how == "folder" and file.parent != root else file, rng)
    if rng.random() < 0.1:
        (root / "retries.json").write_bytes(dumped(spoil({"queries": {"q": 1}}, rng)))
    if rng.random() < 0.1 and (root / "log").is_dir():
        lines = [b"[]\n1\nnull\n{}\n", b"\xff\n", b'{"cached": 1, "engine": []}\n']
        (root / "log" / f"{rng.choice(['builds', 'search_calls', 'llm_calls'])}.jsonl").write_bytes(rng.choice(lines))


def _spoiled(file: Path, rng: Random) -> bytes:
    """A JSON file, or the first line of a JSON Lines file, with some places spoilt."""
    first, *rest = [file.read_bytes()] if file.suffix == ".json" else file.read_bytes().splitlines()
    tree = json.loads(first)
    for _ in range(rng.choice([1, 1, 3])):
        tree = spoil(tree, rng)
    return b"\n".join([dumped(tree), *rest])


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
