"""A DAG of three stages over numbers: `load` reads them, `sign` maps them to -1, 0 or 1, `count` counts those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from stepsearch_data.core.progress import Reporter
from stepsearch_data.pipeline.config import RunConfig, RunSettings
from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.pipeline.runner import Runner
from stepsearch_data.pipeline.stage import Needs, Stage, StageConfig
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.rows import Row
from stepsearch_data.schemas.tables import Table
from stepsearch_data.sql import query


class Number(Row):
    """A number."""

    value: int = Field(description="the number")


class Count(Row):
    """How often a sign occurs."""

    sign: int = Field(description="-1, 0 or 1")
    times: int = Field(description="how often it occurs")


NUMBERS = Table("numbers", Number, rows_per_group=10)
SIGNS = Table("signs", Number, rows_per_group=10)
COUNTS = Table("counts", Count, rows_per_group=10)


class Plain(StageConfig):
    """Nothing to choose."""


class SignConfig(StageConfig):
    """How signs are made."""

    flip: bool = Field(default=False, description="count the other way round")
    note: str | None = Field(default=None, description="changes the fingerprint, but no row")


def _load(context: StageContext) -> None:
    for source in context.sources:
        for position, text in enumerate(source.path.read_text().split(), start=1):
            try:
                context.writer(NUMBERS).append(Number(value=int(text)))
                context.accept(source.kind)
            except ValueError:
                context.reject(source.kind, position, None, "not a number", text)


def _sign(context: StageContext) -> None:
    config = context.config(SignConfig)
    for row in read_rows(context.inputs[NUMBERS], NUMBERS):
        sign = (row.value > 0) - (row.value < 0)
        context.writer(SIGNS).append(Number(value=-sign if config.flip else sign))


def _count(context: StageContext) -> None:
    counted = Counter(row.value for row in read_rows(context.inputs[SIGNS], SIGNS))
    for sign, times in sorted(counted.items()):
        context.writer(COUNTS).append(Count(sign=sign, times=times))


LOAD = Stage("load", "read numbers", (), (NUMBERS,), Plain, _load, needs=Needs.SOURCES)
SIGN = Stage("sign", "numbers to signs", (NUMBERS,), (SIGNS,), SignConfig, _sign)
COUNT = Stage("count", "count signs", (SIGNS,), (COUNTS,), Plain, _count)
STAGES = (LOAD, SIGN, COUNT)


class World:
    """A source file and a store, and builds of it."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "numbers.txt"
        self.source.write_text("1 2 -3 0 5")
        self.store = Store(folder / "store")

    def job(
        self,
        *,
        stages: Sequence[Stage] = STAGES,
        sign: SignConfig | None = None,
        only: Sequence[str] = ("load", "sign", "count"),
        sources: Sequence[str] | None = None,
        force: bool = False,
        max_reject_share: float = 0.2,
    ) -> Runner:
        """A build; by default of all stages from the source file."""
        given = (f"jsonl={self.source}",) if sources is None else tuple(sources)
        configs = {"load": Plain(), "sign": sign or SignConfig(), "count": Plain()}
        run = RunSettings(workers=1, max_reject_share=max_reject_share)
        return Runner(stages, RunConfig(self.store.root, given, run, configs), only, force=force)

    def ran(self, **options: Any) -> list[str]:
        """Build; the names of the stages that ran."""
        return [outcome.stage for outcome in self.job(**options).run(Reporter(quiet=True)) if outcome.ran]

    def planned(self, **options: Any) -> dict[str, tuple[str, ...]]:
        """The reasons for which stages would run; none for a stage that is current."""
        return {decision.stage: decision.reasons for decision in self.job(**options).plan()}

    def rows(self, table: Table[Any]) -> list[tuple[Any, ...]]:
        """Rows of a committed table."""
        output = self.store.manifest().output(table.name)
        assert output is not None
        return [tuple(row.model_dump().values()) for row in read_rows(self.store.path(output), table)]

    def sql(self, text: str) -> list[dict[str, Any]]:
        """Rows of a query over the store's views."""
        with query(self.store, text) as reader:
            return reader.read_all().to_pylist()  # type: ignore[no-any-return]  # pyarrow ships no types
