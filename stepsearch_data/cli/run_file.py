"""The commented run file that `init` writes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stepsearch_data.core.toml import write_value
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.pipeline.config import EnginesSection, RunSettings
from stepsearch_data.pipeline.stage import Stage
from stepsearch_data.search.kinds import kind_of, kinds
from stepsearch_data.sources import DATASETS
from stepsearch_data.sources.dataset import dataset_of

_HEAD = """\
# A run of stepsearch-data: stepsearch-data build --config THIS_FILE
# Flag > environment (STEPSEARCH_FILTER_K=5) > this file > default. Paths are relative to this file.

store = "store"
# KIND=PATH or KIND=hf:REPO[@REV][:[CONFIG/]SPLIT]; KIND is
{kinds}
sources = ["musique=sample", "hotpotqa=sample"]

[run]  # how the build runs; nothing here changes a row"""


def run_file(stages: Sequence[Stage]) -> str:
    """Write a run file that holds every setting, explained, at its default."""
    datasets = [dataset for name in DATASETS.names() if (dataset := dataset_of(name)).parse]
    listed = "\n".join(f"#   {d.name}: {d.doc}{d.hub and f' ({d.hub})'}" for d in datasets)
    parts = [_HEAD.format(kinds=listed), *_settings(RunSettings)]
    parts += ["\n[llm]  # how a model is reached; the key comes from OPENAI_API_KEY", *_settings(LlmSettings)]
    parts += ["\n[prompts]  # your own prompts", '# decompose = "decompose.txt"']
    parts += ["\n[engines]  # the search engines that vote", *_settings(EnginesSection)]
    for name in kinds():
        kind = kind_of(name)
        parts += [f"\n# [engines.{name}]  # {kind.doc}", *_commented(kind.config), *_commented(kind.settings)]
    for stage in stages:
        parts += [f"\n[{stage.name}]  # {stage.doc}", *_settings(stage.config)]
    return "\n".join(parts) + "\n"


def _settings(model: type[BaseModel]) -> Iterable[str]:
    for name, info in model.model_fields.items():
        for line in textwrap.wrap(info.description or "", 100):
            yield f"# {line}"
        unset = info.default in (None, "", {}, PydanticUndefined)
        yield f"# {name} =" if unset else f"{name} = {write_value(info.default)}"


def _commented(model: type[BaseModel]) -> Iterable[str]:
    """Yield the lines of settings that change nothing until a `#` is removed."""
    return (line if line.startswith("#") else f"# {line}" for line in _settings(model))
