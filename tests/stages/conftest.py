"""A stage run by itself: rows in, rows out, through real Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepsearch_data.pipeline.context import StageContext, read_rows
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.schemas.rows import Row
from stepsearch_data.schemas.tables import INDEX, REJECTS, TABLES, Folder, Table
from stepsearch_data.search.kinds import Engine, Service

Tables = dict[str, Any]
RunStage = Callable[..., Tables]
BY_NAME: dict[str, Any] = {**{table.name: table for table in TABLES}, INDEX.name: INDEX}


@pytest.fixture
def run_stage(tmp_path: Path) -> RunStage:
    """Call with a stage, its config and the rows of its inputs; get the rows of its tables, and its folders."""

    def run(
        stage: Stage,
        config: StageConfig | None = None,
        engines: Sequence[Engine] = (),
        max_reject_share: float = 1.0,
        marked: Collection[str] = (),
        **tables: list[Row] | Path,
    ) -> Tables:
        inputs = {
            BY_NAME[name]: rows if isinstance(rows, Path) else _write(tmp_path, BY_NAME[name], rows)
            for name, rows in tables.items()
        }
        out = tmp_path / f"out-{stage.name}-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        service = Service(replay=tmp_path / "replay.sqlite")
        context = StageContext(
            stage.name,
            stage.writes,
            config or stage.config(),
            inputs,
            out,
            max_reject_share=max_reject_share,
            engines=engines,
            service=service,
            marked=marked,
        )
        try:
            stage.run(context)
            context.finish()
        finally:
            context.close()
        written = [output for output in stage.writes if isinstance(output, Table)]
        rows: Tables = {t.name: list(read_rows(out / f"{t.name}.parquet", t)) for t in (*written, REJECTS)}
        return {**rows, **{o.name: out / o.name for o in stage.writes if isinstance(o, Folder)}}

    return run


def _write(folder: Path, table: Table[Any], rows: list[Row]) -> Path:
    pq.write_table(table.to_arrow(rows), folder / f"{table.name}.parquet")
    return folder / f"{table.name}.parquet"
