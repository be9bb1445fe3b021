"""What checks found in questions: shares with intervals, and examples with what was said against them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from stepsearch_data.attrition import READ, gates
from stepsearch_data.audit import count_checks
from stepsearch_data.pipeline.store import Manifest
from stepsearch_data.report.facts import interval, percent
from stepsearch_data.report.links import trajectory
from stepsearch_data.report.shapes import Facts
from stepsearch_data.schemas.rows import FAULTY
from stepsearch_data.schemas.tables import CANDIDATES, COMPOSED, MINING, VERDICTS
from stepsearch_data.stages.proof.decision import CHECKS

if TYPE_CHECKING:
    import duckdb

SHARES = ("source", "check", "kind", "asked", "failed", "share", "95 % interval", "judged by", "passages of the corpus")
_MOST = 3  # examples of a check
_BY_MODEL = f"SELECT count(*) > 0 FROM checks WHERE {READ}"
_EXAMPLES = """
WITH against AS (
    SELECT "check", question_id, source,
           arg_min({{'judge': judge, 'reason': reason, 'answer': answer, 'quotes': quotes}}, (part, sample)) AS said
    FROM checks JOIN verdicts USING (question_id, source)
    WHERE outcome = 'failed' AND list_contains(failed, "check") AND list_contains(?, "check")
    GROUP BY "check", question_id, source
    QUALIFY row_number() OVER (PARTITION BY "check" ORDER BY md5(question_id)) <= {most}
), asked AS ({questions})
SELECT "check", source, question_id, question, asked.answer, said.reason, said.answer, said.quotes, said.judge,
       question_id IN (SELECT id FROM listing)
FROM against JOIN asked USING (question_id) ORDER BY list_position(?, "check"), md5(question_id)
"""
_FAULTY = f"""
SELECT 'composed', source, question_id, question, answer, reason, '', [], 'rules', false
FROM composed WHERE status = '{FAULTY}' ORDER BY md5(question_id) LIMIT {_MOST}
"""


def checked(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Facts]:
    """Tabulate what speaks against questions; nothing where none is of documents and no model was asked."""
    ((by_model,),) = connection.execute(_BY_MODEL).fetchall()
    mined = manifest.output(MINING.name)
    if manifest.output(VERDICTS.name) is None or not (by_model or (mined and mined.rows)):
        return []
    return [each for each in (_shares(connection, manifest), _examples(connection, manifest)) if each["rows"]]


def shares(by_check: Mapping[str, Mapping[str, Any]], deciding: Collection[str]) -> list[list[Any]]:
    """List what `audit` counted of each source and check, with the columns `SHARES`."""
    listed = []
    for part, of in by_check.items():
        source, _, check = part.rpartition(" ")
        kind, told = "gate" if check in deciding else "hint", interval(of["low"], of["high"])
        listed.append([source, check, kind, of["asked"], of["failed"], of["share"], told, of["judge"], of["passages"]])
    return listed


def _shares(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> Facts:
    listed = shares(count_checks(connection, manifest), gates(manifest))
    rows = [[*row[:5], percent(row[5]), *row[6:]] for row in listed]
    return {"title": "What checks speak against", "columns": [*SHARES], "rows": rows, "links": []}


def _examples(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> Facts:
    """List questions that are faulty or fail a gate, drawn by their ids, with the first sample against each."""
    columns = ["check", "source", "question", "answer", "judged by", "because", "the judge's answer", "quoted"]
    found: Facts = {"title": "Questions that failed a check", "columns": columns, "rows": [], "links": []}
    tables = [table.name for table in CANDIDATES if manifest.output(table.name)]
    questions = " UNION ALL ".join(f"SELECT question_id, question, answer FROM {name}" for name in tables)
    sql = _EXAMPLES.format(questions=questions, most=_MOST)
    rows = connection.execute(_FAULTY).fetchall() if manifest.output(COMPOSED.name) else []
    rows += connection.execute(sql, [gates(manifest), list(CHECKS)]).fetchall()
    for check, source, name, question, answer, reason, said, quotes, judge, listed in rows:
        quoted = " … ".join(f"“{quote}”" for quote in quotes)
        found["rows"].append([check, source, question, answer, judge, reason, said or None, quoted or None])
        found["links"].append({"question": trajectory(name)} if listed else {})
    return found
