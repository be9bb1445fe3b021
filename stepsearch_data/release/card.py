"""The dataset card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.release.licences import Origin
from stepsearch_data.release.record import Record
from stepsearch_data.release.tables import CONFIGS


def front_matter(record: Record, found: Sequence[Origin]) -> dict[str, Any]:
    """The card's YAML."""
    return {
        "configs": [
            {
                "config_name": config.name,
                **({"default": True} if config is CONFIGS[0] else {}),
                "data_files": [
                    {"split": split, "path": f"data/{config.name}/{split}-*.parquet"}
                    for split in record.configs[config.name]
                ],
            }
            for config in CONFIGS
        ],
        "dataset_info": [_info(record, config.name, config.features) for config in CONFIGS],
    }


def _info(record: Record, name: str, features: list[dict[str, Any]]) -> dict[str, Any]:
    splits = record.configs[name]
    return {
        "config_name": name,
        "features": features,
        "splits": [{"name": s, "num_bytes": part.bytes, "num_examples": part.rows} for s, part in splits.items()],
        "download_size": sum(record.files[path].bytes for part in splits.values() for path in part.files),
        "dataset_size": sum(part.bytes for part in splits.values()),
    }


def card(folder: Path, store: Store, manifest: Manifest, record: Record, found: Sequence[Origin]) -> str:
    """The text of README.md."""
    import yaml

    return f"---\n{yaml.safe_dump(front_matter(record, found), sort_keys=False, allow_unicode=True)}---\n"
