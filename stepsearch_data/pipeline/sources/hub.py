"""Rows of a dataset repository on the Hugging Face Hub, streaming, through `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stepsearch_data.pipeline.errors import ConfigError, SourceError

_FORM = re.compile(r"hf:(?P<repo>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?:(?P<config>[^/]+)/)?(?P<split>[^/]+))?")
_HINT = "the Hub needs an extra: pip install 'stepsearch-data[hub]'"


@dataclass(frozen=True)
class HubDataset:
    """`hf:REPO[@REV][:[CONFIG/]SPLIT]`; the split is `train` where none is named."""

    repo: str
    revision: str | None
    config: str | None
    split: str

    def commit(self) -> str:
        """Repository, resolved commit and split: what the rows are identified by."""
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise SourceError("reading from the Hub needs huggingface_hub", _HINT) from error
        try:
            sha = HfApi().dataset_info(self.repo, revision=self.revision).sha
        except Exception as error:  # the client raises its own, httpx's and OSError
            raise SourceError(f"cannot reach {self.repo} on the Hub: {_first_line(error)}", _help(error)) from error
        return f"{self.repo}@{sha}:{self.config or ''}/{self.split}"


def parse(location: str) -> HubDataset:
    """Read a location of the form above. Raises ConfigError."""
    match = _FORM.fullmatch(location)
    if not match:
        raise ConfigError(f"{location}: expected hf:REPO[@REVISION][:[CONFIG/]SPLIT]")
    return HubDataset(match["repo"], match["revision"], match["config"], match["split"] or "train")


def rows(dataset: HubDataset) -> Iterator[dict[str, Any]]:
    """All rows of the split, in order."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise SourceError("reading from the Hub needs datasets", _HINT) from error
    try:
        yield from load_dataset(
            dataset.repo,
            name=dataset.config,
            split=dataset.split,
            revision=dataset.revision,
            streaming=True,
        )
    except Exception as error:  # a network's faults arrive as a dozen types
        raise SourceError(f"reading {dataset.repo} from the Hub failed: {_first_line(error)}", _help(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _help(error: Exception) -> str:
    if "401" in str(error) or "403" in str(error) or "gated" in str(error).lower():
        return "set HF_TOKEN to a token that may read it"
    return "check the name, the revision, the config and the split; run again to resume"
