"""What is asked in an evaluation: questions, be they a split of a store or of files (`benchmarks`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.exports.reading import split_names
from stepsearch_data.pipeline.catalog import connect
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.tables import QUALITY, TRAJECTORIES
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer.data import load_examples, subsample, to_task
from stepsearch_data.trainer.search_env import Task


class Questions(Protocol):
    """Questions, in an order that stays. `rejects` tells of each row that cannot be asked, as it is met."""

    rejects: list[str]

    @property
    def name(self) -> str:
        """Name them."""

    def count(self) -> int:
        """Return how many there are at most; 0 if unknown. Raises StepSearchError for a split without any."""

    def digest(self) -> str:
        """Return what identifies them."""

    def __iter__(self) -> Iterator[Task]:
        """Yield the questions. Raises StepSearchError where there is none."""


@dataclass
class SplitOfStore:
    """The complete trajectories of a split that passed the gates; `limit` of each source, drawn."""

    store: Store
    split: str
    template: Template
    limit: int | None = None
    rejects: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name the store and the split."""
        return f"{self.store.root}:{self.split}"

    def count(self) -> int:
        """Count the rows of the split."""
        with self.store.reading() as manifest:
            self.store.tables(manifest, TRAJECTORIES)
            known = split_names(self.store, manifest)
            if self.split not in known:
                raise ConfigError(f"the store has no split {self.split}", f"it has {' and '.join(known)}")
            with connect(self.store, manifest) as connection:
                gates = manifest.output(QUALITY.name) is not None
                passed = " JOIN quality USING (question_id) WHERE passed AND split = $split AND" if gates else " WHERE"
                sql = f"SELECT trajectories.source, count(*) FROM trajectories{passed} complete GROUP BY ALL"
                rows = connection.sql(sql, params={"split": self.split} if gates else {}).fetchall()
        total = sum(min(int(count), self.limit or count) for _, count in rows)
        if not total:
            raise SourceError(
                f"the split {self.split} of {self.store.root} holds no question",
                "another with --split, or build the store with --set quality.validation=0.1",
            )
        return total

    def digest(self) -> str:
        """Return the digest of the store."""
        return self.store.digest()

    def __iter__(self) -> Iterator[Task]:
        """See `Questions.__iter__`."""
        examples = load_examples(self.store, self.split)
        for example in examples if self.limit is None else subsample(examples, self.limit, each_source=True):
            yield to_task(example, self.template)
