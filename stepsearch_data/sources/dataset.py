"""What a dataset declares: how its rows are read, and every fact that another part of the pipeline needs of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stepsearch_data.rewards import musique_answer
from stepsearch_data.sources import DATASETS
from stepsearch_data.sources.record import Loaded, Record

Score = Callable[[str, Sequence[str]], tuple[float, float]]
"""Exact match and F1 of a prediction, each in [0, 1], given the golds, the main one first."""


@dataclass(frozen=True)
class Publication:
    """The authors and the licence of a public dataset, as a release of its texts states them."""

    credit: str  # authors, address and licence in words, as the licence asks for
    licence: str  # as the Hub names it
    bibtex: str
    tag: str  # in the Hub's `source_datasets`


@dataclass(frozen=True)
class AliasTable:
    """A table of other names of answers, which an official script accepts; it lies beside the rows.

    `row` reads a line of it: an answer's id, and names. Raises RowRejected.
    """

    file: str
    columns: str
    row: Callable[[Record], tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Dataset:
    """A dataset: one in each file of this package, and any that another package declares.

    `parse` makes a question of a row, raising RowRejected; None where rows hold questions and answers alone, whose
    hops are `hops` (0: not known). Rows are recognised by their fields: all of one of the `signatures`.
    `data_source` is its name in the scorers of Search-R1 and verl, `released_as` in the scripts of the StepSearch
    release. Both know a fixed list of names and score all of them by the same rule, so other datasets use MuSiQue's.
    """

    name: str
    doc: str
    parse: Callable[[Record], Loaded] | None = None
    hops: int = 0
    signatures: tuple[frozenset[str], ...] = ()
    score: Score = musique_answer
    publication: Publication | None = None
    data_source: str = "musique"
    released_as: str = "musi"
    hub: str = ""  # where the Hub has it, as a source names it
    suffix: str = "json"  # that its files usually have
    sample: str = ""  # file of the embedded one
    aliases: AliasTable | None = None
    single_hops: Callable[[str], list[str]] | None = None  # ids of the questions that a question id is made of
    notes: Mapping[str, str] = field(default_factory=dict)  # what to report of questions with a note, by its beginning
    gold_elsewhere: tuple[str, str] = ("", "")  # where rows without a gold paragraph have one, and what to do
    documents: bool = False  # rows are documents, which are cut into passages and mined
    version: int = 1  # goes up when `parse` makes other rows


def dataset_of(name: str) -> Dataset:
    """Return the dataset that rows name; a plain one where the package that declares it is not installed.

    Raises ConfigError where that package is broken.
    """
    return DATASETS.load(name, Dataset) if name in DATASETS.points else Dataset(name, "")


def recognise(fields: set[str], *others: str) -> list[str]:
    """Return the names of our datasets, and of the others named, that rows of these fields may be of.

    Where one signature holds all fields of another, only the larger one counts.
    """
    fits = [
        (name, signature)
        for name in dict.fromkeys((*DATASETS.ours, *others))
        for signature in dataset_of(name).signatures
        if signature <= fields
    ]
    return [name for name, signature in fits if not any(signature < other for _, other in fits)]
