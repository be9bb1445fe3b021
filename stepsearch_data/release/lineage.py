"""What a store was made from, and how to make it again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from stepsearch_data.pipeline.run_file import toml
from stepsearch_data.pipeline.stage import digest
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.release.licences import Origin
from stepsearch_data.schemas.tables import PASSAGES

Lines = Iterable[str]
_HEAD = """\
# What made this release. Official files are not in it: put yours beside this file under the names below, which a
# build checks by nothing but its result: compare `stepsearch-data status --json` with `store` in release.json.
"""


def lineage(store: Store, manifest: Manifest, found: Sequence[Origin]) -> dict[str, Any]:
    """Every input by what identifies it, and the recipe of every stage by its digest.

    `cost` sums the calls of language models that were paid for, as far as the store has its log of them.
    """
    passages = manifest.output(PASSAGES.name)
    assert passages
    recipes = {name: entry.recipe for name, entry in manifest.stages.items()}
    return {
        "sources": [asdict(origin) for origin in found],
        "files": {name: recipe["files"] for name, recipe in recipes.items() if recipe.get("files")},
        "corpus": {"sha256": passages.digest, "passages": passages.rows},
        "models": {name: model for name, recipe in recipes.items() if (model := model_of(recipe["config"]))},
        "prompts": {name: recipe["prompts"] for name, recipe in recipes.items() if recipe.get("prompts")},
        "engines": {name: r for name, r in recipes["retrieve"].get("engines", {}).items() if name != "use"},
        "stages": {
            name: {
                "recipe": digest(entry.recipe),
                "version": entry.recipe["version"],
                "outputs": {key: output.digest for key, output in entry.outputs.items()},
            }
            for name, entry in manifest.stages.items()
        },
        "cost": cost(store),
    }


def model_of(config: dict[str, Any]) -> str | None:
    """The language model that a stage asked; None for rules."""
    model = config.get("llm")
    return None if model in (None, "offline") else str(model)


def cost(store: Store) -> list[dict[str, Any]]:
    """By stage and model: calls that were paid, their tokens and US dollars."""
    totals: dict[tuple[str, str], dict[str, Any]] = {}
    for call in store.read_log("llm_calls"):
        if call["cached"]:
            continue
        key = (call["stage"], call["model"])
        total = totals.setdefault(key, {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0})
        total["calls"] += 1
        for name in ("prompt_tokens", "completion_tokens", "cost"):
            total[name] += call[name]
    rows = [{"stage": stage, "model": model, **total} for (stage, model), total in sorted(totals.items())]
    return [{**row, "cost": round(row["cost"], 6)} for row in rows]


def run_file(manifest: Manifest, found: Sequence[Origin]) -> str:
    """A run file that makes this store again, from files of the same content."""
    parts = [_HEAD, 'store = "store"', "sources = [", *_sources(found), "]"]
    for name, entry in manifest.stages.items():
        parts += ["", f"[{name}]", *_section(entry.recipe)]
    engines = manifest.stages["retrieve"].recipe.get("engines", {})
    parts += ["", "[engines]", f"use = {toml(engines.get('use', []))}"]
    for name in engines.get("use", []):
        recipe = engines[name]
        decides = {key: value for key, value in recipe.items() if key not in ("version", "corpus")}
        parts += ["", f"[engines.{name}]", *_settings(decides)]
        if "corpus" in recipe:
            parts += [f'# index = ""  # of another corpus: {recipe["corpus"]}']
    return "\n".join(parts) + "\n"


def _sources(found: Sequence[Origin]) -> Lines:
    for number, origin in enumerate(found, start=1):
        if origin.of == "sample":
            yield f"  {toml(f'{origin.kind}=sample')},"
        elif "@" in origin.digest:  # a dataset of the Hub, at its commit
            yield f"  {toml(f'{origin.kind}=hf:{_location(origin.digest)}')},"
        else:
            suffix = "jsonl" if origin.kind in ("musique", "jsonl") else "json"
            yield f"  {toml(f'{origin.kind}=source-{number}.{suffix}')},  # sha256 {origin.digest}"


def _location(commit: str) -> str:
    """`repo@sha:config/split` as a source names it: without the slash where there is no config."""
    return commit.replace(":/", ":")


def _section(recipe: dict[str, Any]) -> Lines:
    yield from _settings(recipe["config"])
    for name, content in recipe.get("files", {}).items():
        yield f"# {name}: {content}"
    for name, content in recipe.get("prompts", {}).items():
        yield f"# prompt {name}: sha256 {content}"


def _settings(values: dict[str, Any]) -> Lines:
    return (f"{name} = {toml(value)}" for name, value in values.items() if value is not None)
