"""A trained policy as a model repository: its files, a card, what it was trained with and on, and how it answered."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from stepsearch_data.core.atomic import part_of, place
from stepsearch_data.core.errors import ConfigError, PublishError
from stepsearch_data.core.files import digest_of
from stepsearch_data.core.intervals import share_interval
from stepsearch_data.core.markdown import code, fence, plain, table
from stepsearch_data.core.toml import write_value
from stepsearch_data.core.version import __version__
from stepsearch_data.evaluation.plot.chart import draw, write
from stepsearch_data.evaluation.plot.curves import Curves
from stepsearch_data.evaluation.plot.runs import Run, load_runs
from stepsearch_data.evaluation.setup import find_checkpoint
from stepsearch_data.release.hub import Hub
from stepsearch_data.release.record import CARD, File
from stepsearch_data.release.verify import fetch_record, look
from stepsearch_data.remote.secrets import show_url
from stepsearch_data.templates.files import TEMPLATES, load_template
from stepsearch_data.trainer.recipe import Recipe, read_recipe
from stepsearch_data.trainer.run_folder import METRICS, RECIPE

NAME = "training.json"
PICTURE, RECIPE_TOML = "curves.png", "recipe.toml"
_ADAPTER = "adapter_config.json"
_DRAWN = ("eval_em", "reward", "searches", "kl")
_VERSIONS = ("torch", "transformers", "trl", "accelerate", "peft")
_EVALUATION = "metrics.json"  # of `eval --output`
_GIT = ".gitattributes"  # which the Hub makes


_ABOUT = """\
A policy that answers multi-hop questions by searching, trained with StePPO, which is PPO with a reward for every search
(arXiv 2505.15107), by stepsearch-data {version}. It {searches} and is shown documents, until it
writes `<answer> … </answer>`. These are its weights after update {update:,}."""
_LIMITS = "It was trained with at most {max_turns} searches of {topk} documents each, and {max_length:,} tokens."
_MEASURED = """\
Exact match and F1 are by each source's own script. Intervals of the questions held out in training are Wilson's, others
are bootstrapped. Questions that chose a checkpoint flatter it."""


@dataclass(frozen=True)
class Policy:
    """A policy in a folder, ready to be published."""

    folder: Path
    version: str | None
    update: int
    contents: Mapping[str, File]
    mark: str = NAME

    @property
    def label(self) -> str:
        """Return what its commit is called."""
        return f"Policy {self.version or f'after update {self.update}'}"

    def files(self) -> dict[str, File]:
        """Return its files by their paths, as they were written."""
        return {**self.contents}

    def owns(self, path: str) -> bool:
        """Tell whether a file of the repository is this policy's to replace or delete."""
        return path != _GIT


@dataclass(frozen=True)
class Card:
    """What is told of a policy. `data` is the release that it was trained on, USER/NAME or USER/NAME@TAG."""

    name: str
    version: str | None = None
    best: bool = False
    data: str | None = None
    evaluations: Sequence[Path] = ()


def write_policy(run: Path, folder: Path, card: Card) -> Policy:
    """Write a run's newest policy, or its best, with its card into a folder, which is replaced.

    An adapter whose base is a folder of this machine is merged into it. Raises ConfigError where there is no run,
    PublishError where an evaluation is of another policy or that base is gone, TrainError.
    """
    model = Path(find_checkpoint(str(run), best=card.best))
    checkpoint = model.parent
    if not (run / RECIPE).is_file() or not (checkpoint / "update.json").is_file():
        raise ConfigError(f"{run} is not a run of `train`", "name the folder that --output of `train` named")
    check_folder(folder)
    base = _base_folder(model)
    recipe = read_recipe(run / RECIPE, "publish it with the version that trained it")
    update = orjson.loads((checkpoint / "update.json").read_bytes())["update"]
    (trained, *_), _ = load_runs([run])
    part = part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if base:
        _merge(model, base, part)
    else:
        _copy_model(model, part)
    drawn = _draw(trained, part / PICTURE)
    (part / RECIPE_TOML).write_text(recipe_text(recipe), encoding="utf-8")
    shutil.copyfile(run / METRICS, part / METRICS)
    evaluated = [row for path in card.evaluations for row in _evaluated(path, model)]
    results = [*_held_out(trained, update), *evaluated]
    told = {
        "package": __version__,
        "versions": dict(_versions()),
        "base_model": _base(recipe),
        "update": update,
        "store": trained.info.store or None,
        "data": card.data,
        "rewards": recipe.rewards.name,
        "results": results,
    }
    (part / NAME).write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    (part / CARD).write_text(_text(card, recipe, told, drawn=drawn), encoding="utf-8")
    files = {path.name: File(sha256=digest_of(path), bytes=path.stat().st_size) for path in sorted(part.iterdir())}
    place(part, folder)
    return Policy(folder, card.version, update, files)


def check_folder(folder: Path) -> None:
    """Raise ConfigError where a folder, which is replaced by a policy, holds something else."""
    if folder.exists() and not (folder / NAME).is_file():
        raise ConfigError(f"{folder} holds something else than a policy", "name another folder with --output")


def check_repository(hub: Hub) -> None:
    """Raise PublishError where a repository has files, and none that tells of a policy: they would be lost."""
    found = hub.find()
    there = hub.tree(found.sha) if found else {}
    foreign = [path for path in there if path not in {CARD, _GIT}]
    if foreign and NAME not in there:
        named = ", ".join(foreign[:3])
        raise PublishError(f"{hub.repo} holds data that no release wrote: {named}", "choose another name")


def check_data(run: Path, hub: Hub, revision: str | None) -> None:
    """Raise PublishError where a release on the Hub is not that of the store that a run was trained on."""
    sha, _ = look(hub, revision)
    with tempfile.TemporaryDirectory() as folder:
        released = fetch_record(hub, sha, Path(folder)).store
    (trained, *_), _ = load_runs([run])
    if released != trained.info.store:
        recorded = trained.info.store[:12] or "not recorded"
        raise PublishError(
            f"{hub.repo} is not the release of the store that {run} was trained on ({released[:12]}, {recorded})",
            "name its release, or leave out --data",
        )


def recipe_text(recipe: Recipe) -> str:
    """Write a recipe as TOML, without the folders of this machine."""
    data = recipe.model_dump(mode="json", exclude_none=True, exclude={"output"})
    data["store"] = Path(data["store"]).name
    data["model"]["path"] = _base(recipe) or Path(data["model"]["path"]).name
    if recipe.template not in TEMPLATES:
        data["template"] = Path(recipe.template).name
    if recipe.critic and Path(recipe.critic).is_absolute():
        data["critic"] = Path(recipe.critic).name
    if recipe.vllm and recipe.vllm.server_base_url:
        data["vllm"]["server_base_url"] = show_url(recipe.vllm.server_base_url)
    lines = [f"{key} = {write_value(value)}" for key, value in data.items() if not isinstance(value, dict)]
    for section, values in data.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *(f"{key} = {write_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _base(recipe: Recipe) -> str | None:
    """Return the model on the Hub that training started from; None for one of this machine."""
    path = recipe.model.path
    return None if Path(path).is_absolute() or path.count("/") > 1 or path.startswith(".") else path


def _base_folder(model: Path) -> Path | None:
    """Return the folder of this machine that an adapter is for, if there is one. Raises PublishError if it is gone."""
    adapter = model / _ADAPTER
    if not adapter.is_file():
        return None
    base = Path(orjson.loads(adapter.read_bytes())["base_model_name_or_path"])
    if base.is_absolute() and not base.is_dir():
        raise PublishError(f"{model} is an adapter for {base}, which is gone", "nobody can use it without: restore it")
    return base if base.is_dir() else None


def _copy_model(model: Path, part: Path) -> None:
    for path in model.iterdir():
        if path.is_file() and path.name != CARD:  # that of peft is a form to fill in
            shutil.copyfile(path, part / path.name)


def _merge(model: Path, base: Path, part: Path) -> None:
    """Merge an adapter into its base, which nobody else has: a cold start."""
    from stepsearch_data.trainer.start import require_torch

    with require_torch():
        from stepsearch_data.trainer.loading import load_merged, load_tokenizer
    load_merged(str(base), str(model)).save_pretrained(part)
    load_tokenizer(str(model)).save_pretrained(part)


def _draw(run: Run, file: Path) -> bool:
    """Draw the run's curves; tell whether it could be done."""
    measured = [name for name in _DRAWN if len(run.points(name, "updates")[0]) > 1]
    if not measured:
        return False
    curves = Curves([run], measured)
    try:
        write(draw([*curves.bands(curves.smoothing())], "updates", curves.smoothing()), file)
    except ConfigError:  # the extra `charts` is not there
        return False
    return True


def _held_out(run: Run, update: int) -> Iterator[dict[str, Any]]:
    """Yield exact match of the questions that training held out, with Wilson's interval where their number is known."""
    found = next((line["eval_em"] for line in run.lines if line["update"] == update and "eval_em" in line), None)
    if found is None:
        return
    n = run.info.held_out
    interval = share_interval(round(found * n), n) if n else None
    ends = [interval.low, interval.high] if interval else None
    yield {
        "questions": "held out in training",
        "metric": "exact match",
        "n": n or None,
        "value": found,
        "interval": ends,
    }


def _evaluated(folder: Path, model: Path) -> Iterator[dict[str, Any]]:
    """Yield exact match and F1 of an evaluation, by source. Raises PublishError where it is not of this policy."""
    try:
        told = orjson.loads((folder / _EVALUATION).read_bytes())
        asked, sources = told["settings"]["model"], told["by_source"]
        rows = [
            {
                "questions": source,
                "metric": name,
                "n": row["questions"],
                "value": row[key],
                "interval": row[f"{key}_interval"],
            }
            for source, row in sources.items()
            for name, key in (("exact match", "em"), ("F1", "f1"))
        ]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise PublishError(f"{folder} holds no finished evaluation", "stepsearch-data eval RUN --output DIR") from error
    if Path(asked).resolve() != model.resolve():
        raise PublishError(f"{folder} is the evaluation of another policy: {asked}", f"of this one: {model}")
    yield from rows


def _versions() -> Iterator[tuple[str, str]]:
    for name in _VERSIONS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _text(card: Card, recipe: Recipe, told: Mapping[str, Any], *, drawn: bool) -> str:
    """Write the card: what the Hub reads, then what people do."""
    base, store, data = told["base_model"], told["store"], card.data
    where = f', revision="{card.version}"' if card.version else ""
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
        "In its own environment, with a search engine; a template of its own is to be named with `--template`:",
        fence(f"stepsearch-data eval {card.name} --index INDEX --questions qa=questions.jsonl --limit 20", "bash"),
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
    known = recipe.template in TEMPLATES or Path(recipe.template).is_file()
    tool = load_template(recipe.template).tool if known else None
    return f"calls the function {code(tool['name'])}" if tool else "writes `<search> … </search>`"


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
