"""What is left of documents, step by step, from links to trajectories, and what a question that is left has cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsearch_data.pipeline.store import Manifest
from stepsearch_data.schemas.rows import KEPT
from stepsearch_data.schemas.tables import COMPOSED, MINING, QUALITY, TRAJECTORIES, VERDICTS, Table
from stepsearch_data.stages.model.config import OFFLINE
from stepsearch_data.stages.proof.decision import CHECKS, READINGS

if TYPE_CHECKING:
    import duckdb

_MINED = "SELECT trim(concat(step, ' ', part)), count FROM mining"
_STATUS = "SELECT status, count(*) FROM composed GROUP BY status"
_ASKED = """
SELECT DISTINCT "check" FROM checks SEMI JOIN composed USING (question_id) WHERE outcome IN ('passed', 'failed', 'void')
"""
_FAILED = """
SELECT coalesce(first_failed, if(passed, 'passed', 'open')), count(*)
FROM verdicts SEMI JOIN composed USING (question_id) GROUP BY ALL
"""
READ = f""" "check" IN {READINGS} AND outcome IN ('passed', 'failed') """
"""Condition, in SQL, of a check that a model was asked for."""
_BY_RULES = f"""
SELECT count(*) FROM verdicts SEMI JOIN composed USING (question_id)
ANTI JOIN (FROM checks WHERE {READ}) USING (question_id) WHERE passed
"""
_WHOLE = """
SELECT count(*), count(*) FILTER (complete), count(*) FILTER (complete AND {passed})
FROM trajectories {quality} SEMI JOIN composed USING (question_id)
"""
_PAID = "SELECT stage, bool_and(cached OR cost > 0), sum(cost) FROM llm_calls GROUP BY stage"
_OWN = "SELECT avg((question_id IN (SELECT question_id FROM composed))::INT) FROM {rows}"
_ASKS = {
    "compose": "composed",
    "verify": f"checks WHERE {READ}",
    "decompose": "sub_questions WHERE method = 'model'",
    "queries": "queries",
}
"""The stages that ask a model, and the rows about questions that it was asked for, by which sources share the cost."""


class Step(NamedTuple):
    """How many are left after a step, of how many, and the US dollars that all calls up to it cost.

    `of` is None where it is no share of a step before; `dollars` where no model was asked, or the cost is not known.
    """

    name: str
    left: int
    of: int | None = None
    dollars: float | None = None

    @property
    def each(self) -> float | None:
        """Return the dollars for each that is left."""
        return None if self.dollars is None or not self.left else self.dollars / self.left


def steps(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Step]:
    """Return the steps as far as they are built; none for a store without documents."""
    found = [Step(*row) for row in _rows(connection, _MINED)] if _built(manifest, MINING) else []
    if not found or not _built(manifest, COMPOSED):
        return found
    drawn = sum(step.left for step in found if step.name.startswith("drawn "))
    found += _composed(connection, manifest, drawn)
    if _built(manifest, VERDICTS):
        found += _checked(connection, manifest, drawn, found[-1].left)
    if _built(manifest, TRAJECTORIES):
        passed = next(step.left for step in found if step.name == "passed")
        found += _trajectories(connection, manifest, passed)
    return found


def _composed(connection: duckdb.DuckDBPyConnection, manifest: Manifest, drawn: int) -> Iterator[Step]:
    status = dict(_rows(connection, _STATUS))
    status["no reply"] = drawn - sum(status.values())
    kept = status.pop(KEPT, 0)
    yield from (Step(f"not composed: {name}", count, drawn) for name, count in sorted(status.items()) if count)
    yield Step("composed", kept, drawn, _dollars(connection, manifest, "compose"))


def _checked(connection: duckdb.DuckDBPyConnection, manifest: Manifest, drawn: int, composed: int) -> Iterator[Step]:
    failed = dict(_rows(connection, _FAILED))
    asked = {check for (check,) in _rows(connection, _ASKED)} & {*gates(manifest)}
    left, passed = composed, failed.get("passed", 0)
    for check in (check for check in CHECKS if check in asked):
        yield Step(check, left - failed.get(check, 0), left)
        left -= failed.get(check, 0)
    if left > passed:
        yield Step("without a verdict", left - passed, composed)
    yield Step("passed", passed, drawn, _dollars(connection, manifest, "compose", "verify"))
    ((by_rules,),) = _rows(connection, _BY_RULES)
    if by_rules:
        yield Step("passed by rules alone", by_rules, passed)


def _trajectories(connection: duckdb.DuckDBPyConnection, manifest: Manifest, passed: int) -> Iterator[Step]:
    judged = _built(manifest, QUALITY)
    sql = _WHOLE.format(passed="passed" if judged else "NULL", quality="JOIN quality USING (question_id)" * judged)
    (counts,) = _rows(connection, sql)
    dollars = _dollars(connection, manifest, *_ASKS)
    names = ("trajectories", "complete", *(("fit",) if judged else ()))
    yield from (Step(name, count, passed, dollars) for name, count in zip(names, counts, strict=False))


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def _built(manifest: Manifest, table: Table[Any]) -> bool:
    return manifest.output(table.name) is not None


def model_of(manifest: Manifest, stage: str) -> str | None:
    """Return the language model that a stage asked; None for rules and templates."""
    found = manifest.stages[stage].fingerprint["config"].get("llm", OFFLINE) if stage in manifest.stages else OFFLINE
    return None if found == OFFLINE else str(found)


def gates(manifest: Manifest) -> list[str]:
    """Return the checks that a question must not fail, as the store was built."""
    found: list[str] = manifest.stages[manifest.writer(VERDICTS.name)].fingerprint["config"]["gates"]
    return found


def unasked(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[str]:
    """Return the gates and readings that no composed question was asked: what none was checked for."""
    asked = {check for (check,) in connection.execute(_ASKED).fetchall()}
    return [check for check in CHECKS if check in {*gates(manifest), *READINGS} - asked]


def _dollars(connection: duckdb.DuckDBPyConnection, manifest: Manifest, *stages: str) -> float | None:
    """Return what composed questions have cost in these stages; None where none asked, or a price or record is missing.

    A stage that also asked about questions of other sources shares its cost by the number of rows.
    """
    paid = {stage: (known, dollars) for stage, known, dollars in _rows(connection, _PAID)}
    asking = [stage for stage in stages if model_of(manifest, stage)]
    total = 0.0
    for stage in asking:
        ((own,),) = _rows(connection, _OWN.format(rows=_ASKS[stage]))
        known, dollars = paid.get(stage, (False, 0.0))
        if own and not known:
            return None
        total += (own or 0.0) * dollars
    return total if asking else None
