"""The configs of a release: their tables, and their features as the Hub's `datasets` reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from stepsearch_data.release import rows
from stepsearch_data.schemas.tables import Table


@dataclass(frozen=True)
class Config(Table):
    """A config of the dataset: a table whose files tell `datasets` their features."""

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema, the meaning of each column and the features of all of them in its metadata."""
        plain = super().schema
        info = {"info": {"features": {field.name: _feature(field.type) for field in plain}}}
        return plain.with_metadata({"huggingface": json.dumps(info)})

    @property
    def features(self) -> list[dict[str, Any]]:
        """The same features as a card's `dataset_info` lists them."""
        return [_listed(field) for field in self.schema]


def _feature(kind: pa.DataType) -> Any:
    """A list is written `[…]`, which `datasets` of all versions reads."""
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": dtype(kind), "_type": "Value"}


def _listed(field: pa.Field) -> dict[str, Any]:
    if not pa.types.is_list(field.type):
        return {"name": field.name, "dtype": dtype(field.type)}
    inner = field.type.value_type
    return {
        "name": field.name,
        "list": [_listed(part) for part in inner] if pa.types.is_struct(inner) else dtype(inner),
    }


def dtype(kind: pa.DataType) -> str:
    """What `datasets` calls a type of ours."""
    return {pa.float64(): "float64", pa.bool_(): "bool"}.get(kind) or str(kind)


TRAJECTORIES = Config("trajectories", rows.ReleasedTrajectory, rows_per_group=200)
SUB_QUESTIONS = Config("sub_questions", rows.ReleasedSubQuestion, rows_per_group=5_000)
QUERIES = Config("queries", rows.ReleasedQuery, rows_per_group=10_000)
CORPUS = Config("corpus", rows.ReleasedPassage, rows_per_group=5_000)
CONFIGS = (TRAJECTORIES, SUB_QUESTIONS, QUERIES, CORPUS)
"""The first is the default."""
