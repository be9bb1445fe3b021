"""One trajectory out of a store of any size: of each table, only the row groups that hold its rows are read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stepsearch_data.pipeline.questions import QuestionRows
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.report.records import NO_MARKS, Marks, record, tables_of
from stepsearch_data.report.rollouts import NONE, Rollouts
from stepsearch_data.report.shapes import Record
from stepsearch_data.schemas.rows import Passage, RetrievedDocument, Round
from stepsearch_data.schemas.tables import PASSAGES, QUESTIONS, ROUNDS, TRAJECTORIES, Table
from stepsearch_data.templates.examples import Paragraph


class Lookup:
    """The trajectories of a store, by the ids of their questions; all ids are kept in memory, and nothing else."""

    def __init__(self, store: Store, manifest: Manifest, rollouts: Rollouts = NONE) -> None:
        self._rollouts = rollouts
        paths = store.tables(manifest, QUESTIONS, PASSAGES)
        self._questions = _Rows(paths[QUESTIONS], QUESTIONS, "question_id")
        self._passages = _Rows(paths[PASSAGES], PASSAGES, "passage_id")
        self._related = {table: _Rows(path, table, "question_id") for table, path in tables_of(store, manifest).items()}

    def find(self, question_id: str, marks: Marks = NO_MARKS) -> Record | None:
        """Find the trajectory of a question, if it has one."""
        found = self._questions.of([question_id])
        related = {table: rows.of([question_id]) for table, rows in self._related.items()}
        if not found or not related[TRAJECTORIES]:
            return None
        rounds: list[Round] = related[ROUNDS]
        shown = {document.passage_id for step in rounds for document in step.documents if document.passage_id}
        passages: dict[str, Passage] = {passage.passage_id: passage for passage in self._passages.of(shown)}

        def paragraph(document: RetrievedDocument) -> Paragraph:
            held = passages[document.passage_id] if document.passage_id else document
            return Paragraph(held.title, held.text or "")

        return record(QuestionRows(found[0], related), paragraph, self._rollouts, marks)


class _Rows:
    """The rows of a table by key."""

    def __init__(self, path: Path, table: Table[Any], key: str) -> None:
        self._path, self._table, self._key = path, table, key
        with pq.ParquetFile(path) as file:
            groups = (file.read_row_group(number, columns=[key]) for number in range(file.num_row_groups))
            self._held = [group[key].unique() for group in groups]

    def of(self, keys: Collection[str]) -> list[Any]:
        """Read the rows of these keys, in the table's order."""
        wanted = pa.array(keys, pa.string())
        rows: list[Any] = []
        with pq.ParquetFile(self._path) as file:
            for number, held in enumerate(self._held):
                if pc.any(pc.is_in(held, wanted)).as_py():
                    group = file.read_row_group(number)
                    rows += self._table.from_arrow(group.filter(pc.is_in(group[self._key], wanted)))
        return rows
