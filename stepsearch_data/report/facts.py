"""The tables of the overview: engines, calls, gates, and where everything comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stepsearch_data.pipeline.stage import digest
from stepsearch_data.pipeline.store import Manifest
from stepsearch_data.report.links import trajectories
from stepsearch_data.report.shapes import Facts
from stepsearch_data.schemas.tables import PASSAGES, QUALITY
from stepsearch_data.stages import STAGES
from stepsearch_data.stages.gates.config import GATES, QualityConfig, action, unchecked
from stepsearch_data.stages.model import PROMPTS, load_prompt

if TYPE_CHECKING:
    import duckdb

_SHORT = 12  # digits of a digest that tell it from others
_DECLARED = {stage.name: stage for stage in STAGES}
_ENGINES = """
SELECT engine, count(*) AS queries, count(*) FILTER (answered) AS answered,
       round(avg(b.valid::INT) FILTER (answered), 4) AS valid,
       round(avg(coalesce(b.gold_rank <= 1, false)::INT) FILTER (answered), 4) AS "gold at 1",
       round(avg(coalesce(b.gold_rank <= 3, false)::INT) FILTER (answered), 4) AS "gold in top 3",
       count(*) FILTER (b.valid AND v.valid_engines = 1 AND v.engines > 1) AS "valid alone",
       count(*) FILTER (answered AND NOT b.valid AND v.valid_engines = v.engines - 1 AND v.engines > 1)
       AS "not valid alone"
FROM engine_votes b JOIN votes v USING (query_id) GROUP BY engine ORDER BY engine
"""
_LLM_CALLS = """
SELECT stage, model, count(*) FILTER (NOT cached) AS paid, count(*) FILTER (cached) AS replayed,
       sum(prompt_tokens) FILTER (NOT cached)::BIGINT AS "prompt tokens",
       sum(completion_tokens) FILTER (NOT cached)::BIGINT AS "reply tokens",
       round(sum(cost), 6) AS "US dollars",
       round(median(latency) FILTER (NOT cached), 3) AS "median seconds",
       round(quantile_cont(latency, 0.95) FILTER (NOT cached), 3) AS "95th percentile"
FROM llm_calls GROUP BY ALL ORDER BY stage, model
"""
_SEARCH_CALLS = """
SELECT engine, count(*) FILTER (NOT cached) AS sent, count(*) FILTER (cached) AS replayed,
       sum(queries)::BIGINT AS queries, sum(failed)::BIGINT AS failed,
       round(median(latency) FILTER (NOT cached), 4) AS "median seconds",
       round(quantile_cont(latency, 0.95) FILTER (NOT cached), 4) AS "95th percentile"
FROM search_calls GROUP BY ALL ORDER BY engine
"""
_SOURCES = """
SELECT q.source, count(*) AS questions, count(*) FILTER (q.answerable) AS answerable, count(id) AS trajectories
FROM questions q LEFT JOIN listing ON id = question_id GROUP BY q.source ORDER BY q.source
"""
_MARKED = """
SELECT mark, count(*) AS trajectories FROM (SELECT unnest(marks) AS mark FROM listing) WHERE mark <> 'none'
GROUP BY mark ORDER BY list_position(['good', 'bad', 'note'], mark)
"""
_FLAGGED = "SELECT flag, count(*) FROM (SELECT unnest(flags) AS flag FROM quality) GROUP BY flag"


def tables(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Facts]:
    """Return all tables that have rows. None of them names a path of the user's machine, or a key."""
    found = [
        _engines(connection),
        _queried("Calls of language models", connection, _LLM_CALLS),
        _queried("Calls of search engines", connection, _SEARCH_CALLS),
        _gates(connection, manifest),
        _sources(connection),
        _inputs(manifest),
        _engine_settings(manifest),
        _stages(manifest),
        _prompts(manifest),
    ]
    return [facts for facts in found if facts["rows"]]


def marked(connection: duckdb.DuckDBPyConnection) -> list[Facts]:
    """Return a table of the reader's marks, if there are any."""
    found = _queried("Marks", connection, _MARKED)
    found["links"] = [{"trajectories": trajectories(marks=mark)} for mark, _ in found["rows"]]
    return [found] if found["rows"] else []


def _queried(title: str, connection: duckdb.DuckDBPyConnection, sql: str) -> Facts:
    cursor = connection.execute(sql)
    columns = [column[0] for column in cursor.description or []]
    return _facts(title, columns, [list(row) for row in cursor.fetchall()])


def _engines(connection: duckdb.DuckDBPyConnection) -> Facts:
    found = _queried("Search engines", connection, _ENGINES)
    for engine, *_ in found["rows"]:
        said = f"queries.valid.{engine}"
        found["links"].append(
            {
                "queries": trajectories({"queries.hop_min": 1}),
                "answered": trajectories({said: [True, False]}),
                "valid alone": trajectories({said: True, "queries.valid": 1, "queries.engines_min": 2}),
                "not valid alone": trajectories({said: False, "queries.invalid": 1, "queries.engines_min": 2}),
            }
        )
    return found


def _sources(connection: duckdb.DuckDBPyConnection) -> Facts:
    found = _queried("Sources", connection, _SOURCES)
    found["links"] = [{"trajectories": trajectories(source=source)} for source, *_ in found["rows"]]
    return found


def _gates(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> Facts:
    config = decided_by(manifest, "quality", "config")
    flagged = dict(connection.execute(_FLAGGED).fetchall())
    gates = [gate for gate in GATES if manifest.output(QUALITY.name)]
    entry = manifest.stages.get("quality")
    idle = unchecked(entry.fingerprint) if entry else {}
    fields = QualityConfig.model_fields
    rows: list[list[str | float | None]] = [
        [gate, config.get(gate), idle.get(gate, flagged.get(gate, 0)), fields[gate].description or ""] for gate in gates
    ]
    found = _facts("Quality gates", ["gate", "does", "trajectories", "fails when"], rows)
    found["links"] = [{} if gate in idle else {"trajectories": trajectories(flags=gate)} for gate in gates]
    return found


def _inputs(manifest: Manifest) -> Facts:
    """List what was read, by digest."""
    rows: list[list[str | float | None]] = [
        [name, content] for name, content in decided_by(manifest, "load", "inputs").items()
    ]
    corpus = manifest.output(PASSAGES.name)
    if corpus:
        rows.append([f"corpus of {corpus.rows:,} passages", corpus.digest])
    return _facts("Inputs", ["input", "SHA-256"], rows)


def _engine_settings(manifest: Manifest) -> Facts:
    engines = decided_by(manifest, "retrieve", "engines")
    rows: list[list[str | float | None]] = [
        [name, engine.get("kind"), _settings({key: value for key, value in engine.items() if key != "kind"})]
        for name, engine in engines.items()
        if isinstance(engine, dict)
    ]
    return _facts("Engines and their settings", ["engine", "kind", "settings"], rows)


def _stages(manifest: Manifest) -> Facts:
    order = [*(name for name in _DECLARED if name in manifest.stages), *(manifest.stages.keys() - _DECLARED.keys())]
    rows = []
    for name in order:
        entry = manifest.stages[name]
        made = ", ".join(
            f"{output.rows:,} {key}" for key, output in sorted(entry.outputs.items()) if output.rows is not None
        )
        own_files = _DECLARED[name].config.files if name in _DECLARED else ()
        config = {key: value for key, value in decided_by(manifest, name, "config").items() if key not in own_files}
        rows.append([name, made, entry.fingerprint.get("version"), digest(entry.fingerprint), _settings(config)])
    return _facts("Stages", ["stage", "rows", "version", "fingerprint", "settings"], rows)


def _prompts(manifest: Manifest) -> Facts:
    rows: list[list[str | float | None]] = []
    ours = {hashlib.sha256(text.encode()).hexdigest(): text for text in map(_our_prompt, PROMPTS)}
    for stage in manifest.stages:
        model = decided_by(manifest, stage, "config").get("llm")
        for name, content in decided_by(manifest, stage, "prompts").items():
            text = ours.get(content, "the builder's own prompt, of which the store keeps only the digest")
            rows.append([name, stage, model, content[:_SHORT], text])
    return _facts("Prompts", ["prompt", "stage", "model", "SHA-256", "text"], rows)


def _our_prompt(name: str) -> str:
    return load_prompt(name).text


def _facts(title: str, columns: list[str], rows: list[list[str | float | None]]) -> Facts:
    return {"title": title, "columns": columns, "rows": rows, "links": []}


def rejecting(manifest: Manifest) -> list[str]:
    """Return the gates that reject a trajectory, and not only flag it."""
    return [
        gate for gate, value in decided_by(manifest, "quality", "config").items() if action(gate, value) == "reject"
    ]


def decided_by(manifest: Manifest, stage: str, part: str) -> dict[str, Any]:
    """Return a part of a stage's fingerprint, empty where it has none; a foreign fingerprint may hold anything."""
    entry = manifest.stages.get(stage)
    found = entry.fingerprint.get(part) if entry else None
    return found if isinstance(found, dict) else {}


def _settings(config: Mapping[str, Any]) -> str:
    """Write settings in words, without those that are not set."""
    return ", ".join(f"{name} = {value}" for name, value in config.items() if value not in (None, [], {}, ""))


def percent(share: float | None) -> str | None:
    """Write a share in percent."""
    return None if share is None else f"{100 * share:.1f} %"


def interval(low: float | None, high: float | None) -> str | None:
    """Write an interval of a share in percent."""
    return None if low is None or high is None else f"{100 * low:.1f} – {100 * high:.1f} %"
