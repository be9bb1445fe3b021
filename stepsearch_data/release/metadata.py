"""The YAML at the top of a card: what the Hub and `datasets` read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepsearch_data.core.errors import PublishError
from stepsearch_data.release.licences import Origin
from stepsearch_data.release.record import DATA, Record
from stepsearch_data.release.tables import CONFIGS, TRAJECTORIES

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = "1M<n<10M"
_EXTENDS = {
    "musique": "extended|other-musique",
    "hotpotqa": "extended|hotpot_qa",
    "2wiki": "extended|other-2wikimultihopqa",
}


def front_matter(record: Record, found: Sequence[Origin], licences: Sequence[str]) -> str:
    """The YAML block with its rules. Raises PublishError where PyYAML is not installed."""
    try:
        import yaml
    except ImportError as error:
        raise PublishError("a card needs PyYAML", "pip install 'stepsearch-data[hub]'") from error
    text = yaml.safe_dump(metadata(record, found, licences), sort_keys=False, allow_unicode=True, width=1_000_000)
    return f"---\n{text}---"


def metadata(record: Record, found: Sequence[Origin], licences: Sequence[str]) -> dict[str, Any]:
    """The fields of the card's YAML."""
    return {
        "pretty_name": record.name.rpartition("/")[2],
        "license": licences[0] if len(licences) == 1 else list(licences),
        "language": ["en"],
        "annotations_creators": ["machine-generated"],
        "language_creators": _writers(record, found),
        "source_datasets": sorted({_EXTENDS[o.kind] if o.of == "official" else "original" for o in found}),
        "size_categories": [_size(sum(split.rows for split in record.configs[TRAJECTORIES.name].values()))],
        "task_categories": ["question-answering", "text-generation", "reinforcement-learning"],
        "tags": ["multi-hop", "search-agents", "retrieval", "trajectories", "stepsearch"],
        "configs": [_config(record, config.name, default=config is TRAJECTORIES) for config in CONFIGS],
        "dataset_info": [_info(record, config.name, config.features) for config in CONFIGS],
    }


def _writers(record: Record, found: Sequence[Origin]) -> list[str]:
    """Who wrote the texts, in the Hub's words."""
    written = {"expert-generated" if origin.of == "sample" else "found" for origin in found}
    return sorted(written | ({"machine-generated"} if record.lineage["models"] else set()))


def _size(rows: int) -> str:
    return next((name for below, name in _SIZES if rows < below), _LARGER)


def _config(record: Record, name: str, *, default: bool) -> dict[str, Any]:
    files = [{"split": split, "path": f"{DATA}/{name}/{split}-*.parquet"} for split in record.configs[name]]
    return {"config_name": name, **({"default": True} if default else {}), "data_files": files}


def _info(record: Record, name: str, features: list[dict[str, Any]]) -> dict[str, Any]:
    splits = record.configs[name]
    return {
        "config_name": name,
        "features": features,
        "splits": [{"name": s, "num_bytes": part.bytes, "num_examples": part.rows} for s, part in splits.items()],
        "download_size": sum(record.files[path].bytes for part in splits.values() for path in part.files),
        "dataset_size": sum(part.bytes for part in splits.values()),
    }
