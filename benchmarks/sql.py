"""How fast SQL over a large store is, beside plain DuckDB views of the same files, and how much memory it takes.

Makes a store of invented trajectories (or takes the one of an earlier run), then asks each query through `sql`'s own
connection and through plain views, in turn, each time in a new process. Prints medians, the ratio of pairs and peaks
of memory; and how many attempts to get out of a store are refused.

    python benchmarks/sql.py [--trajectories 1000000] [--folder FOLDER] [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))
from stepsearch_data.core.errors import QueryError
from stepsearch_data.pipeline.catalog import catalog, write_catalog
from stepsearch_data.pipeline.context import TableWriter
from stepsearch_data.pipeline.store import Store
from stepsearch_data.schemas.tables import QUALITY, QUERIES, REJECTS, ROUNDS, TRAJECTORIES, VOTES, Table
from stepsearch_data.sql import connect, query
from tests.escapes import bench, escapes
from tests.tree import tree

MEMORY = 3 << 30  # what `sql` gives DuckDB unless it is told otherwise
ENOUGH = 60  # seconds for a query; after them it is not asked again
ASKED_OF_BOTH = {
    "count by hops": "SELECT source, hops, count(*) AS n FROM trajectories GROUP BY ALL ORDER BY ALL",
    "filter, top 50, rollouts": """SELECT question_id, question, rollout FROM trajectories WHERE hops = 4 AND complete
        ORDER BY key_reward DESC, question_id LIMIT 50""",
    "filter, top 50, no text": """SELECT question_id, hops, key_reward FROM trajectories WHERE hops = 4 AND complete
        ORDER BY key_reward DESC, question_id LIMIT 50""",
    "LIMIT 50": "SELECT * FROM trajectories LIMIT 50",
    "one by id": "SELECT * FROM trajectories WHERE question_id = (SELECT max(question_id) FROM trajectories)",
    "text search": "SELECT count(*) FROM trajectories WHERE rollout LIKE '%qz%'",
    "mean length of rollouts": "SELECT avg(length(rollout)) FROM trajectories",
    "join with quality": """SELECT split, difficulty, count(*) FROM trajectories JOIN quality USING (question_id)
        GROUP BY ALL ORDER BY ALL""",
    "mean gain by hop": "SELECT hop, avg(information_gain), count(*) FROM rounds GROUP BY ALL ORDER BY ALL",
    "queries kept by method": "SELECT method, count(*), avg(kept::INT) FROM queries GROUP BY ALL ORDER BY ALL",
    "every trajectory": "SELECT * FROM trajectories",
}
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
TABLES: dict[str, dict[Table[Any], str]] = {  # by stage
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
                   documents: list_transform([1, 2, 3], lambda rank: {rank: rank::BIGINT,
                       passage_id: md5((n + rank)::VARCHAR)[:16], title: text[:12], text: NULL, score: 1.0,
                       engine: 'bm25', is_gold: rank = 1}) FROM hop ORDER BY n, hop""",
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
                   method: 'method_' || q FROM (SELECT * FROM hop, range(1, 6) AS b(q)) ORDER BY n, hop, q"""
    },
    "filter": {
        VOTES: """
            SELECT query_id: question_id || '/' || hop || '/' || q, question_id, hop, asked: 3, engines: 3,
                   valid_engines: q % 4, needed: 2, kept: q % 4 > 1, waiting: false, gold_rank: 1 + n % 3
            FROM (SELECT * FROM hop, range(1, 6) AS b(q)) ORDER BY n, hop, q"""
    },
}


def make(folder: Path, trajectories: int) -> Store:
    """Make a store of this many trajectories, or open that of an earlier run."""
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
                        writers[table].write(connection.sql(select).to_arrow_table())
                for writer in writers.values():
                    writer.finish()
                    writer.close()
                rows = {table.name: writer.count for table, writer in writers.items()}
                outputs = {table.name: str(table.schema) for table in tables}
                fingerprint = {"version": 1, "config": {}, "inputs": {}, "outputs": outputs}
                store.commit(stage, "0" * 12, fingerprint, staged, rows)
    write_catalog(store)
    return store


class Taken(NamedTuple):
    """The cost of a query: seconds to connect and to answer, rows, and peak MiB."""

    opened: float
    answered: float
    rows: int
    peak: float


def take(store: Store, sql: str, *, plain: bool) -> Taken:
    """Run a query in a new process, so that its peak memory is the query's."""
    end, other = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(other, pickle.dumps(_ask(store, sql, plain=plain)))
        os._exit(0)
    os.close(other)
    with open(end, "rb") as file:
        told = file.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{sql} ended with status {status}")
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    opened, answered, rows = pickle.loads(told)  # noqa: S301 - our own child wrote it
    return Taken(opened, answered, rows, usage.ru_maxrss / scale)


def _ask(store: Store, sql: str, *, plain: bool) -> tuple[float, float, int]:
    begin = time.perf_counter()
    manifest = store.manifest()
    if plain:
        os.chdir(store.root)
        connection = duckdb.connect()
        connection.execute(f"SET memory_limit = '{MEMORY}B'")
        connection.execute(catalog(manifest))
    else:
        connection = connect(store, manifest, MEMORY)
    opened = time.perf_counter()
    rows = sum(batch.num_rows for batch in connection.sql(sql).to_arrow_reader(2_048))
    return opened - begin, time.perf_counter() - opened, rows


def compare(store: Store, name: str, sql: str, runs: int) -> list[Taken]:
    """Print the cost of a query with `sql`'s connection and with plain views. Return the former."""
    pairs: list[tuple[Taken, Taken]] = []
    begin = time.perf_counter()
    while len(pairs) < runs and (not pairs or time.perf_counter() - begin < ENOUGH):
        pairs.append((take(store, sql, plain=False), take(store, sql, plain=True)))
    ours, plain = zip(*pairs, strict=True)
    ratio = statistics.median(a.answered / b.answered for a, b in pairs)
    if {taken.rows for taken in ours} != {taken.rows for taken in plain}:
        sys.exit(f"{name}: not the same rows")
    milliseconds = [statistics.median(taken.answered for taken in door) * 1e3 for door in (ours, plain)]
    peaks = [max(taken.peak for taken in door) for door in (ours, plain)]
    print(
        f"{name:26}{milliseconds[0]:10,.0f} ms, plain {milliseconds[1]:10,.0f} ms, ratio {ratio:5.2f}, "
        f"peak {peaks[0]:6,.0f} MiB, plain {peaks[1]:6,.0f} MiB, {len(pairs)} pairs",
        flush=True,
    )
    return list(ours)


def refused(store: Store) -> tuple[int, int]:
    """Return how many escapes are refused, and how many there are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench(store.root, folder)
        before, tried = tree(folder), escapes(folder)
        return sum(_is_refused(Store(folder / "store"), sql) and tree(folder) == before for sql in tried), len(tried)


def _is_refused(store: Store, sql: str) -> bool:
    try:
        with query(store, sql) as reader:
            reader.read_all()
    except QueryError:
        return True
    return False


def main() -> None:
    """Run the benchmark and print one line per query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=1_000_000, help="of the invented store")
    parser.add_argument("--folder", type=Path, help="where the store is made, and found again; else a temporary one")
    parser.add_argument("--runs", type=int, default=5, help="pairs of each query; the median is printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        store = make(folder, options.trajectories)
        print(
            {name: output.rows for entry in store.manifest().stages.values() for name, output in entry.outputs.items()}
        )
        taken = [compare(store, name, sql, options.runs) for name, sql in ASKED_OF_BOTH.items()]
        opened = statistics.median(one.opened for of in taken for one in of)
        print(f"to connect {opened * 1e3:,.0f} ms")
        print("{} of {} escapes refused".format(*refused(make(folder, 100))))


if __name__ == "__main__":
    main()
