"""What is told of a published policy: its card, for people and for the Hub, and the recipe that trained it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepsearch_data.core.markdown import code, fence, plain, table
from stepsearch_data.core.toml import write_value
from stepsearch_data.core.version import __version__
from stepsearch_data.remote.secrets import show_url
from stepsearch_data.templates.files import TEMPLATES, load_template
from stepsearch_data.trainer.recipe import Recipe
from stepsearch_data.trainer.run_folder import METRICS, RECIPE_TOML, TEMPLATE

PICTURE = "curves.png"
_ABOUT = """\
A policy that answers multi-hop questions by searching, trained with StePPO, which is PPO with a reward for every search
(arXiv 2505.15107), by stepsearch-data {version}. It {searches} and is shown documents, until it
writes `<answer> … </answer>`. These are its weights after update {update:,}."""
_LIMITS = "It was trained with at most {max_turns} searches of {topk} documents each, and {max_length:,} tokens."
_MEASURED = """\
Exact match and F1 are by each source's own script. Intervals of the questions held out in training are Wilson's, others
are bootstrapped. Questions that chose a checkpoint flatter it."""


@dataclass(frozen=True)
class Card:
    """What is told of a policy. `data` is the release that it was trained on, USER/NAME or USER/NAME@TAG."""

    name: str
    version: str | None = None
    best: bool = False
    data: str | None = None
    evaluations: Sequence[Path] = ()


def card_text(card: Card, recipe: Recipe, told: Mapping[str, Any], *, drawn: bool) -> str:
    """Write the card: what the Hub reads, then what people do."""
    base, store, data = told["base_model"], told["store"], card.data
    where = f', revision="{card.version}"' if card.version else ""
    named = f"{card.name}@{card.version}" if card.version else card.name
    source = f"the release [{plain(data)}](/datasets/{data.partition('@')[0]})" if data else "a store"
    rows = [
        (row["questions"], row["metric"], row["n"], f"{row['value']:.3f}", _ends(row["interval"]))
        for row in told["results"]
    ]
    results = table(("questions", "metric", "n", "value", "95 %"), rows) if rows else "None was given to this card."
    parts = [
        _front_matter(card, told),
        f"# {plain(card.name)}",
        _ABOUT.format(version=__version__, update=told["update"], searches=_searches(recipe)),
        "## Use",
        f"With a search engine of yours, in the form of [its recipe]({RECIPE_TOML}){_template(recipe)}:",
        fence(f"stepsearch-data eval {named} --index INDEX --questions qa=questions.jsonl --limit 20", "bash"),
        fence(
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{card.name}"{where})\n'
            f'model = AutoModelForCausalLM.from_pretrained("{card.name}"{where})',
            "python",
        ),
        _LIMITS.format(**vars(recipe.limits)),
        "## Evaluation",
        results,
        _MEASURED,
        "## Training",
        f"- Base model: {code(base) if base else 'a model that is not on the Hub'}",
        f"- Data: {source}" + (f", SHA-256 {code(store)}" if store else ", whose digest was not recorded"),
        f"- Rewards: {code(told['rewards'])}",
        f"- Versions: {', '.join(f'{name} {version}' for name, version in told['versions'].items())}",
        *([f"![Curves of the training]({PICTURE})"] if drawn else []),
        f"[`{METRICS}`]({METRICS}) has all metrics. The recipe, for `stepsearch-data train --config {RECIPE_TOML}`:",
        fence(recipe_text(recipe), "toml"),
        "## Licence",
        "That of the base model, and of the data that it was trained on: neither was looked up for this card.",
    ]
    return "\n\n".join(parts) + "\n"


def _searches(recipe: Recipe) -> str:
    """Say how the policy searches, by its template; one that is gone is taken for one of tags."""
    known = recipe.template in TEMPLATES or has_template(recipe)
    tool = load_template(recipe.template).tool if known else None
    return f"calls the function {code(tool['name'])}" if tool else "writes `<search> … </search>`"


def _template(recipe: Recipe) -> str:
    """Say which template is to be named: one that was gone when the card was written."""
    if recipe.template in TEMPLATES or has_template(recipe):
        return ""
    return f"; its template {code(Path(recipe.template).name)} is not here, and is to be named with `--template`"


def has_template(recipe: Recipe) -> bool:
    """Tell whether the recipe names a template of its own, and it is there."""
    return recipe.template not in TEMPLATES and Path(recipe.template).is_file()


def _ends(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–"


def _front_matter(card: Card, told: Mapping[str, Any]) -> str:
    import yaml  # comes with huggingface_hub

    results: dict[str, list[dict[str, Any]]] = {}
    for row in told["results"]:
        ends = f" (95 %: {_ends(row['interval'])})" if row["interval"] else ""
        kind = "exact_match" if row["metric"] == "exact match" else "f1"
        results.setdefault(row["questions"], []).append(
            {"type": kind, "value": round(row["value"], 4), "name": f"{row['metric']}{ends}"}
        )
    task = {"type": "question-answering", "name": "Multi-hop questions with search"}
    data = card.data.partition("@")[0] if card.data else None
    index = [
        {"task": task, "dataset": {"name": name, "type": data or "stepsearch-data"}, "metrics": metrics}
        for name, metrics in results.items()
    ]
    fields: dict[str, Any] = {
        **({"base_model": told["base_model"]} if told["base_model"] else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "unknown",
        "language": ["en"],
        **({"datasets": [data]} if data else {}),
        "tags": ["stepsearch", "steppo", "ppo", "search-agents", "multi-hop"],
        **({"model-index": [{"name": card.name.rpartition("/")[2], "results": index}]} if index else {}),
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1_000_000)}---"


def recipe_text(recipe: Recipe) -> str:
    """Write a recipe as TOML, without the folders of this machine."""
    data = recipe.model_dump(mode="json", exclude_none=True, exclude={"output"})
    data["store"] = Path(data["store"]).name
    data["model"]["path"] = base_of(recipe) or Path(data["model"]["path"]).name
    if recipe.template not in TEMPLATES:
        data["template"] = TEMPLATE if has_template(recipe) else Path(recipe.template).name
    if recipe.critic and Path(recipe.critic).is_absolute():
        data["critic"] = Path(recipe.critic).name
    if recipe.vllm and recipe.vllm.server_base_url:
        data["vllm"]["server_base_url"] = show_url(recipe.vllm.server_base_url)
    lines = [f"{key} = {write_value(value)}" for key, value in data.items() if not isinstance(value, dict)]
    for section, values in data.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *(f"{key} = {write_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def base_of(recipe: Recipe) -> str | None:
    """Return the model on the Hub that training started from; None for one of this machine."""
    path = recipe.model.path
    return None if Path(path).is_absolute() or path.count("/") > 1 or path.startswith(".") else path
