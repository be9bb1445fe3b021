"""How fast SQL over a large store is, beside plain DuckDB views of the same files.

Makes a store of invented trajectories (or takes the one of an earlier run), then asks each query through `sql`'s own
connection and through plain views, in turn in one process; prints medians, ratios and peaks of memory.

    python benchmarks/sql.py [--trajectories 1000000] [--folder FOLDER] [--runs 5]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))
from stepsearch_data.pipeline.catalog import write_catalog
from stepsearch_data.pipeline.context import TableWriter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.tables import QUALITY, QUERIES, REJECTS, ROUNDS, TRAJECTORIES, VOTES, Table

CHUNK = 20_000  # trajectories that are made at a time
POOL = """
CREATE TABLE pool AS SELECT i, string_agg(chr((97 + hash(i, w, c) % 26)::INT) || if(c = 5, ' ', ''), '') AS text
FROM range(20000) AS a(i), range(12) AS b(w), range(6) AS d(c) GROUP BY i
"""
ASKED = """
CREATE OR REPLACE TABLE asked AS
SELECT n, source: ['musique', 'hotpotqa', '2wiki'][1 + n % 3], hops: (2 + hash(n) % 3)::BIGINT, text: pool.text,
       question_id: hops || 'hop__' || hash(n, 1) % 1000000 || '_' || n  -- in no order, as real ones are
FROM range({start}, {stop}) AS a(n) JOIN pool ON i = hash(n, 2) % 20000 ORDER BY n
"""
HOPS = "CREATE OR REPLACE TABLE hop AS SELECT * FROM asked, unnest(range(1, hops + 1)) AS b(hop) ORDER BY n, hop"
TABLES: dict[str, dict[Table, str]] = {  # by stage
    "trajectories": {
        TRAJECTORIES: """
            SELECT question_id, source, question_type: hops || 'hop', question: text, answer: text[:12], hops,
                   answer_aliases: [], complete: n % 7 > 0, answerable: true, answer_reward: 1.0,
                   key_reward: round(hash(n, 3) % 1000 / 1000, 3),
                   rollout: (SELECT string_agg(pool.text, ' ') FROM unnest(range(hops * 14)) AS c(k)
                             JOIN pool ON i = hash(n, k) % 20000) FROM asked ORDER BY n""",
        ROUNDS: """
            SELECT question_id, round: hop, hop, role: 'gold', sub_question: text, sub_answer: text[:12],
                   query: text[:24], query_id: question_id || '/' || hop || '/1', kept: true, gold_rank: 1 + n % 3,
                   alternatives: [text[:18], text[-18:]], information_gain: hash(n, hop) % 1000 / 1000,
                   redundancy_penalty: 0.0, step_reward: information_gain,
                   documents: list_transform([1, 2, 3], lambda rank: {{rank: rank::BIGINT,
                       passage_id: md5((n + rank)::VARCHAR)[:16], title: text[:12], text: NULL, score: 1.0,
                       engine: 'bm25', is_gold: rank = 1}}) FROM hop ORDER BY n, hop""",
    },
    "quality": {
        QUALITY: """
            SELECT question_id, source, passed: n % 9 > 0, flags: [], reasons: [],
                   split: if(n % 10 = 0, 'validation', 'train'), split_group: md5(n::VARCHAR)[:16], duplicate_of: NULL,
                   difficulty: ['easy', 'medium', 'hard'][1 + n % 3], difficulty_score: hash(n, 4) % 1000 / 1000,
                   pass_rate: NULL FROM asked ORDER BY n"""
    },
    "queries": {
        QUERIES: """
            SELECT query_id: question_id || '/' || hop || '/' || q, question_id, hop, n: q, query: text[:6 * q],
                   form: 'form_' || q FROM (SELECT * FROM hop, range(1, 6) AS b(q)) ORDER BY n, hop, q"""
    },
    "filter": {
        VOTES: """
            SELECT query_id: question_id || '/' || hop || '/' || q, question_id, hop, asked: 3, engines: 3,
                   valid_engines: q % 4, needed: 2, kept: q % 4 > 1, waiting: false, gold_rank: 1 + n % 3
            FROM (SELECT * FROM hop, range(1, 6) AS b(q)) ORDER BY n, hop, q"""
    },
}


def make(folder: Path, trajectories: int) -> Store:
    """A store of so many trajectories; that of an earlier run where there is one."""
    store = Store(folder / f"store-{trajectories}")
    if (store.root / "catalog.sql").exists():
        return store
    connection = duckdb.connect()
    connection.execute(POOL)
    with store.locked():
        for stage, tables in TABLES.items():
            with store.staging() as staged:
                writers = {table: TableWriter(staged / f"{table.name}.parquet", table) for table in (*tables, REJECTS)}
                for start in range(0, trajectories, CHUNK):
                    connection.execute(ASKED.format(start=start, stop=min(start + CHUNK, trajectories)))
                    connection.execute(HOPS)
                    for table, select in tables.items():
                        writers[table].write(
                            connection.sql(select.replace("{{", "{").replace("}}", "}")).to_arrow_table()
                        )
                for writer in writers.values():
                    writer.close()
                rows = {table.name: writer.count for table, writer in writers.items()}
                recipe = {"version": 1, "config": {}, "inputs": {}, "outputs": {}}
                store.commit(stage, "0" * 12, recipe, staged, rows)
    write_catalog(store)
    return store


if __name__ == "__main__":
    t = time.time()
    make(Path(sys.argv[1]), int(sys.argv[2]))
    print(time.time() - t)
