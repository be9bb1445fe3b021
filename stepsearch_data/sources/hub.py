"""Rows of a dataset repository on the Hugging Face Hub, streaming, through `datasets`; or one file of it, as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.remote.hub import hint_for, reason_of
from stepsearch_data.remote.secrets import check_hub
from stepsearch_data.sources.tabular import without_nulls

_FORM = re.compile(r"hf:(?P<repo>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?:(?P<config>[^/:]+)/)?(?P<split>[^/:]+))?")
FILES = "hf://datasets/"
_FILE = re.compile(FILES + r"(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<path>.+)")
_HINT = "the Hub needs an extra: pip install 'stepsearch-data[hub]'"


@dataclass(frozen=True)
class HubDataset:
    """`hf:REPO[@REV][:[CONFIG/]SPLIT]`; the split is `train` where none is named."""

    repo: str
    revision: str | None
    config: str | None
    split: str

    @cached_property
    def sha(self) -> str:
        """Look up the commit that the revision names, once. Raises SourceError."""
        check_hub()
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise SourceError("reading from the Hub needs huggingface_hub", _HINT) from error
        try:
            return str(HfApi().dataset_info(self.repo, revision=self.revision).sha)
        except Exception as error:  # the client raises its own, httpx's and OSError
            raise _failed(f"cannot read {self.repo} on the Hub", error) from error

    def commit(self) -> str:
        """Return repository, resolved commit and split, which identify the rows."""
        return f"{self.repo}@{self.sha}:{self.config or ''}/{self.split}"


def parse(location: str) -> HubDataset:
    """Read a location of the form above. Raises ConfigError."""
    match = _FORM.fullmatch(location)
    if not match:
        raise ConfigError(f"{location}: expected hf:REPO[@REVISION][:[CONFIG/]SPLIT]")
    return HubDataset(match["repo"], match["revision"], match["config"], match["split"] or "train")


def parse_file(location: str) -> tuple[HubDataset, str]:
    """Read `hf://datasets/USER/NAME[@REVISION]/PATH`: the repository and the file's path. Raises ConfigError."""
    match = _FILE.fullmatch(location)
    if not match:
        raise ConfigError(f"{location}: expected {FILES}USER/NAME/PATH", "a revision stands after NAME: NAME@REVISION")
    return HubDataset(match["repo"], match["revision"], None, "train"), match["path"]


def download(location: str) -> Path:
    """Return the local copy of a file of a repository, in the cache of the Hub's client. Raises SourceError."""
    dataset, path = parse_file(location)
    sha = dataset.sha
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(dataset.repo, path, repo_type="dataset", revision=sha))
    except Exception as error:  # the client raises its own, httpx's and OSError
        raise _failed(f"cannot fetch {location} from the Hub", error) from error


def rows(dataset: HubDataset) -> Iterator[dict[str, Any]]:
    """Yield all rows of the split, in order."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise SourceError("reading from the Hub needs datasets", _HINT) from error
    sha = dataset.sha
    path = f"hf://datasets/{dataset.repo}"  # a bare name would also mean a folder of this name
    try:
        for row in load_dataset(path, name=dataset.config, split=dataset.split, revision=sha, streaming=True):
            yield without_nulls(row)
    except Exception as error:  # network errors have a dozen types
        raise _failed(f"reading {dataset.repo} from the Hub failed", error) from error


def _failed(what: str, error: Exception) -> SourceError:
    hint = hint_for(error, "check the name, the revision, the config and the split; run again to resume")
    return SourceError(f"{what}: {reason_of(error)}", hint)
