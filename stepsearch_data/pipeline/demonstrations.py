"""Questions that templates have written: they show how a build works, and are not for training."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from stepsearch_data.core.errors import StoreError

TEMPLATE = "written by a template: a demonstration, not for training"
"""The note of such a question."""


def refuse_templates(questions: Path, switch: str = "--allow-templates") -> None:
    """Raise StoreError where some questions of a file were written by templates; `switch` is what would allow them."""
    notes = pc.list_flatten(pq.read_table(questions, columns=["notes"])["notes"].combine_chunks())
    count = pc.sum(pc.equal(notes, TEMPLATE)).as_py() or 0
    if count:
        raise StoreError(
            f"{count:,} questions were written by templates, for demonstrations",
            f"let a model write them: stepsearch-data build --llm MODEL; or take them all the same: {switch}",
        )
