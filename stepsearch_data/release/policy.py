"""A trained policy as a model repository: its files, what it was trained with and on, and how it answered."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from stepsearch_data.core.atomic import part_of, place
from stepsearch_data.core.errors import ConfigError, PublishError
from stepsearch_data.core.intervals import share_interval
from stepsearch_data.core.version import __version__
from stepsearch_data.evaluation.plot.chart import draw, write
from stepsearch_data.evaluation.plot.curves import Curves
from stepsearch_data.evaluation.plot.runs import Run, load_runs
from stepsearch_data.evaluation.rollout_file import METRICS as MEASURES
from stepsearch_data.evaluation.weights import find_checkpoint
from stepsearch_data.release.hub import Hub
from stepsearch_data.release.policy_card import PICTURE, Card, base_of, card_text, has_template, recipe_text
from stepsearch_data.release.publish import refuse_foreign
from stepsearch_data.release.record import CARD, File
from stepsearch_data.release.verify import fetch_record, look
from stepsearch_data.trainer.recipe import read_recipe
from stepsearch_data.trainer.run_folder import METRICS, RECIPE, RECIPE_TOML, TEMPLATE, UPDATE

NAME = "training.json"
_ADAPTER = "adapter_config.json"
_DRAWN = ("eval_em", "reward", "searches", "kl")
_VERSIONS = ("torch", "transformers", "trl", "accelerate", "peft")
_GIT = ".gitattributes"  # which the Hub makes


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


def write_policy(run: Path, folder: Path, card: Card) -> Policy:
    """Write a run's newest policy, or its best, with its card into a folder, which is replaced.

    An adapter whose base is a folder of this machine is merged into it. Raises ConfigError where there is no run,
    PublishError where an evaluation is of another policy or that base is gone, TrainError.
    """
    model = Path(find_checkpoint(str(run), best=card.best))
    checkpoint = model.parent
    if not (run / RECIPE).is_file() or not (checkpoint / UPDATE).is_file():
        raise ConfigError(f"{run} is not a run of `train`", "name the folder that --output of `train` named")
    check_folder(folder)
    base = _base_folder(model)
    recipe = read_recipe(run / RECIPE, "publish it with the version that trained it")
    update = orjson.loads((checkpoint / UPDATE).read_bytes())["update"]
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
    if has_template(recipe):
        shutil.copyfile(recipe.template, part / TEMPLATE)
    shutil.copyfile(run / METRICS, part / METRICS)
    evaluated = [row for path in card.evaluations for row in _evaluated(path, model)]
    results = [*_held_out(trained, update), *evaluated]
    told = {
        "package": __version__,
        "versions": dict(_versions()),
        "base_model": base_of(recipe),
        "update": update,
        "store": trained.info.store or None,
        "data": card.data,
        "rewards": recipe.rewards.name,
        "results": results,
    }
    (part / NAME).write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    (part / CARD).write_text(card_text(card, recipe, told, drawn=drawn), encoding="utf-8")
    files = {path.name: File.of(path) for path in sorted(part.iterdir())}
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
    refuse_foreign(hub, foreign, there, NAME)


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
        told = orjson.loads((folder / MEASURES).read_bytes())
        asked, sources = Path(told["settings"]["model"]), told["by_source"]
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
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise PublishError(f"{folder} holds no finished evaluation", "stepsearch-data eval RUN --output DIR") from error
    if asked.resolve() != model.resolve():
        raise PublishError(f"{folder} is the evaluation of another policy: {asked}", f"of this one: {model}")
    yield from rows


def _versions() -> Iterator[tuple[str, str]]:
    for name in _VERSIONS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
