"""Find the model that is played, and the recipe that it was trained by: in a run, in a folder or on the Hub."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.validation import in_words
from stepsearch_data.remote.hub import hint_for, reason_of
from stepsearch_data.remote.secrets import check_hub
from stepsearch_data.templates.files import TEMPLATES
from stepsearch_data.trainer.recipe import MAIN, Recipe, load_recipe, read_recipe
from stepsearch_data.trainer.run_folder import BEST, RECIPE, RECIPE_TOML, Best

_ADAPTER = "adapter_config.json"
_MODEL_FILES = ("config.json", _ADAPTER)


@dataclass(frozen=True)
class Weights:
    """A model that is played, and what it was trained with, where that is told."""

    name: str
    """Its folder, or its name on the Hub."""
    location: str
    """The folder or the name to load it from."""
    revision: str
    """Of the model on the Hub that is loaded: the commit of this one, or the revision of an adapter's base."""
    commit: str | None
    """The commit on the Hub; None for a folder."""
    recipe: Recipe | None
    store: Path | None = None
    """The store that it was trained on, where that is on this machine."""

    @property
    def template(self) -> str | None:
        """Return the template that it was trained with, if that is told. Raises ConfigError for a file that is gone."""
        if self.recipe is None:
            return None
        template = self.recipe.template
        if template not in TEMPLATES and not Path(template).is_file():
            name = Path(template).name
            where = f"beside its {RECIPE_TOML}" if self.commit else "in its place"
            raise ConfigError(
                f"{self.name} was trained with the template {name}, which is not there: {template}",
                f"name the file with --template, or put it {where}",
            )
        return template


def find_weights(location: str, *, best: bool = False) -> Weights:
    """Find a model, and the recipe of its run, or of the repository that it was published in.

    `location` is a run, one of its checkpoints, the folder of a model, or `USER/NAME` or `USER/NAME@REVISION` on the
    Hub. Raises ConfigError.
    """
    found = find_checkpoint(location, best=best)
    folder = Path(found)
    if not folder.is_dir():
        return _on_hub(*found.partition("@")[::2])
    published = _published_recipe(folder)
    recipe = published or _run_recipe(folder)
    store = recipe.store if recipe and not published else None
    return Weights(found, found, recipe.model.revision if recipe else MAIN, None, recipe, store)


def find_checkpoint(location: str, *, best: bool = False) -> str:
    """Find the folder of a model: the location itself, a checkpoint's policy, or a run's newest checkpoint, or `best`.

    A name that is not a folder may be one of the Hub. Raises ConfigError where there is no model.
    """
    folder = Path(location)
    if best:
        return find_checkpoint(str(folder / _best(folder).checkpoint))
    if not folder.exists() and location.partition("@")[0].count("/") == 1 and not location.startswith((".", "/")):
        return location
    numbered = {int(path.name[11:]): path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()}
    newest = [numbered[max(numbered)]] if numbered else []
    for found in (folder, folder / "policy", *(part for path in newest for part in (path / "policy", path))):
        if any((found / name).is_file() for name in _MODEL_FILES):
            return str(found)
    missing = "holds no model" if folder.exists() else "is not a folder"
    raise ConfigError(f"{location} {missing}", "name a run, one of its checkpoints, or a folder with a config.json")


def _best(run: Path) -> Best:
    try:
        return Best.model_validate_json((run / BEST).read_bytes())
    except OSError as error:
        hint = "it needs a run of `train` that has held-out questions and has asked them"
        raise ConfigError(f"{run} names no best checkpoint", hint) from error
    except ValidationError as error:
        raise ConfigError(f"{run / BEST} does not name a checkpoint: {in_words(error)}", "name one yourself") from error


def _on_hub(repo: str, revision: str) -> Weights:
    """Fetch the recipe and the template of a model on the Hub; all is of the commit that the revision names now."""
    folder = _fetch(repo, revision or MAIN, [RECIPE_TOML, _ADAPTER])
    commit = folder.name
    recipe = _published_recipe(folder)
    if recipe and recipe.template not in TEMPLATES:
        _fetch(repo, commit, [glob.escape(Path(recipe.template).name)])
    if not (folder / _ADAPTER).is_file():
        return Weights(repo, repo, commit, commit, recipe)
    # By its name, its base would be loaded at this commit, which it does not have.
    folder = _fetch(repo, commit, None)
    return Weights(repo, str(folder), recipe.model.revision if recipe else MAIN, commit, recipe)


def _fetch(repo: str, revision: str, patterns: list[str] | None) -> Path:
    """Return the folder in the cache of the Hub's client, named after the commit, with the files of these names."""
    check_hub()
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise ConfigError(
            f"{repo} is not a folder, and the Hub needs huggingface_hub", "pip install 'stepsearch-data[train]'"
        ) from error
    disable_progress_bars()
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the client raises its own, httpx's and OSError
        raise ConfigError(
            f"{repo} is not a folder, and cannot be fetched from the Hub: {reason_of(error)}",
            hint_for(error, "check the name and the revision: USER/NAME, or USER/NAME@REVISION"),
        ) from error


def _run_recipe(model: Path) -> Recipe | None:
    """Read what a checkpoint was trained with, if its run tells."""
    told = [folder / RECIPE for folder in (model, *model.parents[:2]) if (folder / RECIPE).is_file()]
    return read_recipe(told[0], "move it away, and name its settings") if told else None


def _published_recipe(folder: Path) -> Recipe | None:
    """Read what a published policy was trained with, if it is one.

    Its store is somewhere else. Its template is a file beside it, whatever folder the recipe names: it is a stranger's.
    """
    file = folder / RECIPE_TOML
    if not file.is_file():
        return None
    try:
        recipe = load_recipe(file)
    except ConfigError as error:
        raise ConfigError(
            f"this version cannot read {error.message}",
            f"a newer version may; or copy the repository to a folder, and mend {RECIPE_TOML} or take it away",
        ) from error
    if recipe.template in TEMPLATES:
        return recipe
    return recipe.model_copy(update={"template": str(folder / Path(recipe.template).name)})
