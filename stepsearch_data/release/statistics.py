"""The numbers of a card: of the released files, and of the store that they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from stepsearch_data.audit import Numbers, audit
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.release.markdown import code, table
from stepsearch_data.release.record import Record
from stepsearch_data.release.tables import CONFIGS, TRAJECTORIES
from stepsearch_data.schemas.tables import QUESTIONS, REJECTS
from stepsearch_data.schemas.tables import TRAJECTORIES as BUILT

_MEASURES = {
    "queries": "queries",
    "hop_hit_at_3": "hop hit@3",
    "pass_at_1": "pass@1",
    "pass_at_3": "pass@3",
    "pass_at_5": "pass@5",
    "kept_share": "kept",
    "leaks": "leaks",
}
_VOTED = {"queries": "queries", "answered": "answered", "valid": "valid", "gold_at_1": "gold@1", "gold_at_3": "gold@3"}


@dataclass(frozen=True)
class Statistics:
    """What a card counts. `folder` is the release's."""

    folder: Path
    record: Record
    store: Store
    manifest: Manifest

    def licences(self) -> list[str]:
        """All licences that rows are under."""
        found = {name for config in CONFIGS for name in self._columns(config.name, "licence")["licence"].unique()}
        return sorted(found)

    def example(self) -> dict[str, Any]:
        """The first row of the default config."""
        path = next(iter(self.record.configs[TRAJECTORIES.name].values())).files[0]
        with pq.ParquetFile(self.folder / path) as file:
            row: dict[str, Any] = next(file.iter_batches(batch_size=1)).to_pylist()[0]
        return row

    def funnel(self) -> str:
        """By source: questions that were loaded, trajectories that were built, and those released, by split."""
        loaded = self._by_source(self._stored(QUESTIONS.name))
        built = self._by_source(self._stored(BUILT.name))
        splits = {split: self._by_source(self._split(split)) for split in self.record.configs[TRAJECTORIES.name]}
        rows = (
            (source, count, built.get(source, 0), *(of.get(source, 0) for of in splits.values()))
            for source, count in sorted(loaded.items())
        )
        return table(("source", "questions", "trajectories built", *(f"released: {name}" for name in splits)), rows)

    def hops(self) -> str:
        """Released trajectories by source and number of hops."""
        found = self._columns(TRAJECTORIES.name, "source", "hops").group_by("source", "hops").len()
        counts = {(source, hops): rows for source, hops, rows in found.iter_rows()}
        columns = sorted({hops for _, hops in counts})
        sources = sorted({source for source, _ in counts})
        rows = ((source, *(counts.get((source, hops), 0) for hops in columns)) for source in sources)
        return table(("source", *(f"{hops} {'hop' if hops == 1 else 'hops'}" for hops in columns)), rows)

    def queries(self) -> str:
        """What queries find, by source."""
        return _measured("source", self._audited["by_source"], _MEASURES)

    def engines(self) -> str:
        """How each engine voted."""
        return _measured("engine", self._audited["by_engine"], _VOTED)

    def gates(self) -> str:
        """Trajectories that a gate has flagged, by source; and the gates that looked at nothing."""
        idle = self._audited["unchecked"]
        gates = {gate: counts for gate, counts in self._audited["by_gate"].items() if any(counts.values())}
        sources = sorted(self._audited["by_source"])
        rows = ((gate, *(counts.get(source, 0) for source in sources)) for gate, counts in gates.items())
        flagged = table(("gate", *sources), rows) if gates else "None."
        looked = "\n".join(f"- {code(gate)}: {why}" for gate, why in idle.items())
        return f"{flagged}\n\nGates that looked at nothing:\n\n{looked}" if idle else flagged

    def rejects(self) -> list[tuple[str, int]]:
        """Rows that a stage set aside, by stage."""
        counts = ((name, entry.outputs[REJECTS.name].rows or 0) for name, entry in self.manifest.stages.items())
        return [(name, count) for name, count in counts if count]

    @cached_property
    def _audited(self) -> dict[str, dict[str, Any]]:
        return audit(self.store)

    def _stored(self, name: str) -> pl.DataFrame:
        output = self.manifest.output(name)
        assert output
        return pl.read_parquet(self.store.path(output), glob=False, columns=["source"])

    def _split(self, split: str) -> pl.DataFrame:
        files = self.record.configs[TRAJECTORIES.name][split].files
        return pl.read_parquet([self.folder / path for path in files], glob=False, columns=["source"])

    def _columns(self, config: str, *names: str) -> pl.DataFrame:
        files = [path for split in self.record.configs[config].values() for path in split.files]
        return pl.read_parquet([self.folder / path for path in files], glob=False, columns=list(names))

    @staticmethod
    def _by_source(rows: pl.DataFrame) -> dict[str, int]:
        return dict(rows.group_by("source").len().iter_rows())


def _measured(what: str, parts: dict[str, Numbers], measures: dict[str, str]) -> str:
    def row(name: str, numbers: Numbers) -> Iterable[object]:
        return (name, *(numbers[measure] for measure in measures))

    return table((what, *measures.values()), [tuple(row(name, numbers)) for name, numbers in parts.items()])
