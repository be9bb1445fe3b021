"""Where questions come from: a file per dataset, each one `Dataset`, and readers of files and of the Hub."""

from stepsearch_data.core.plugins import Registry

OWN = "jsonl"
"""The format of a user's own questions and documents."""
CORPUS = "corpus"
"""Documents of a user's own, without questions."""
ASKED_ONLY = ("qa", "bamboogle")
"""Datasets of questions and answers alone: they can be asked and compared with, not built from."""
_MODULES = {  # imported when their dataset is needed: a help text needs the names alone
    "musique": "musique",
    "hotpotqa": "hotpotqa",
    "2wiki": "two_wiki",
    "stepsearch": "stepsearch",
    OWN: "jsonl",
    CORPUS: "corpus",
    "qa": "asked",
    "bamboogle": "bamboogle",
}
DATASETS = Registry(
    "stepsearch_data.datasets",
    "dataset",
    {name: f"stepsearch_data.sources.{module}:DATASET" for name, module in _MODULES.items()},
)
BUILT = tuple(name for name in _MODULES if name not in ASKED_ONLY)
