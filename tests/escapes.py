"""SQL that tries to get out of a store: to read what is not its own, to write, or to do more than to ask.

STORE and BENCH stand for a store's folder and the one around it, where a secret lies: see `bench`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb

SECRET = "the secret outside"

_READS = r"""
SELECT * FROM read_text('BENCH/secret.txt')
SELECT * FROM read_text('STORE/../secret.txt')
SELECT * FROM read_text('STORE/stages/../../secret.txt')
SELECT * FROM read_text('secret.txt')
SELECT * FROM read_text('../secret.txt')
SELECT * FROM read_text('STORE/link.txt')
SELECT * FROM read_text('STORE/link/secret.csv')
SELECT * FROM read_csv('STORE/link/*.csv')
SELECT * FROM glob('BENCH/*')
SELECT * FROM glob('STORE/../*')
SELECT * FROM glob('STORE/link/*')
SELECT * FROM read_blob('BENCH/secret.txt')
SELECT * FROM read_csv('BENCH/other/secret.csv')
SELECT * FROM read_json('BENCH/secret.txt')
SELECT * FROM read_parquet('BENCH/secret.parquet')
SELECT * FROM parquet_metadata('BENCH/secret.parquet')
SELECT * FROM parquet_schema('BENCH/secret.parquet')
SELECT * FROM sniff_csv('BENCH/other/secret.csv')
SELECT * FROM read_text('STORE/manifest.json')
SELECT * FROM read_parquet('STORE/stages/*/questions.parquet')
SELECT * FROM 'BENCH/secret.parquet'
SELECT * FROM "BENCH/other/secret.csv"
SELECT * FROM 'file:BENCH/secret.parquet'
SELECT * FROM 'file://BENCH/secret.parquet'
SELECT * FROM query_table('BENCH/secret.parquet')
SELECT * FROM query('FROM read_text(''BENCH/secret.txt'')')
WITH x AS (FROM read_text('BENCH/secret.txt')) SELECT * FROM x
SELECT (SELECT content FROM read_text('BENCH/secret.txt'))
EXPLAIN ANALYZE SELECT * FROM read_text('BENCH/secret.txt')
DESCRIBE FROM 'BENCH/secret.parquet'
SUMMARIZE FROM 'BENCH/secret.parquet'
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''BENCH/secret.txt'')'))
SELECT * FROM read_duckdb('BENCH/secret.db')
SELECT * FROM read_csv('/dev/stdin')
SELECT * FROM read_text('/proc/self/environ')
SELECT * FROM read_csv('http://127.0.0.1:9/secret.csv')
SELECT * FROM read_parquet('https://example.com/secret.parquet')
SELECT * FROM 's3://bucket/secret.parquet'
SELECT * FROM read_text('hf://datasets/a/b/secret.txt')
SELECT getenv('STEPSEARCH_TEST_SECRET')
SELECT * FROM a_python_variable
SELECT * FROM SECRET
SELECT * FROM python_map_function('a')
SELECT * FROM pandas_scan(1)
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM read_text('store://manifest.json')
SELECT * FROM read_text('store://../secret.txt')
SELECT * FROM read_text('store://STORE/../secret.txt')
SELECT * FROM read_text('store:///etc/hostname')
SELECT * FROM read_parquet('store://trajectories-0/../../secret.parquet')
SELECT * FROM read_parquet(['store://trajectories-0', 'BENCH/secret.parquet'])
SELECT * FROM read_parquet(['store://trajectories-0', 'store://../secret.parquet'])
SELECT * FROM read_parquet('store://*')
SELECT * FROM read_parquet('store://**/*')
SELECT * FROM glob('store://*')
SELECT * FROM parquet_file_metadata('BENCH/secret.parquet')
SELECT * FROM parquet_kv_metadata('BENCH/secret.parquet')
SELECT * FROM parquet_full_metadata('BENCH/secret.parquet')
SELECT * FROM parquet_page_index('BENCH/secret.parquet')
SELECT * FROM parquet_bloom_probe('BENCH/secret.parquet', 'a', 1)
SELECT * FROM parquet_scan('BENCH/secret.parquet')
SELECT * FROM read_ndjson_objects('BENCH/secret.txt')
SELECT * FROM read_single_csv_file('BENCH/other/secret.csv')
SELECT * FROM read_csv_auto('BENCH/other/*.csv', filename = true)
SELECT * FROM read_duckdb('store://trajectories-0')
SELECT f.* FROM (VALUES ('BENCH/secret.txt')) AS v(path), LATERAL read_text(v.path) AS f
SELECT * FROM query_table(['trajectories', 'BENCH/secret.parquet'])
SELECT * FROM query('FROM query(''FROM read_text(''''BENCH/secret.txt'''')'')')
PIVOT (FROM read_csv('BENCH/other/secret.csv')) ON a USING count(*)
UNPIVOT (FROM read_csv('BENCH/other/secret.csv')) ON a
SELECT * FROM read_blob('/proc/self/mem')
SELECT * FROM read_text('/proc/self/fd/3')
SELECT * FROM read_text('/dev/fd/0')
SELECT * FROM read_text('~/secret.txt')
SELECT * FROM read_text('file://localhostBENCH/secret.txt')
SELECT * FROM 'gs://bucket/secret.parquet'
SELECT * FROM 'r2://bucket/secret.parquet'
SELECT * FROM read_blob('abfss://container@account.dfs.core.windows.net/secret')
SELECT * FROM read_blob('memory://secret')
SELECT * FROM sqlite_scan('BENCH/secret.db', 't')
SELECT * FROM postgres_scan('host=127.0.0.1', 'public', 't')
SELECT * FROM read_xlsx('BENCH/secret.xlsx')
SELECT * FROM duckdb_secrets(redact = false)
SELECT * FROM arrow_scan_dumb(1, 2, 3)
SELECT * FROM python_arrow_scan(1)
"""
# What would write, change settings, or run more than one thing; some hide it from a reader of prefixes.
_ACTS = r"""
COPY questions TO 'STORE/stolen.parquet'
COPY (SELECT 1) TO 'STORE/manifest.json'
COPY (SELECT 1) TO 'BENCH/stolen.csv'
COPY (SELECT 1) TO 'stolen.csv'
copy(select 1)to'STORE/stolen.csv'
COPY questions FROM 'BENCH/secret.parquet'
EXPORT DATABASE 'STORE/stolen'
IMPORT DATABASE 'STORE/stolen'
EXPLAIN COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
eXpLaIn AnAlYzE cOpY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN\nANALYZE\n\tCOPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE\u00a0COPY (SELECT 1) TO 'STORE/stolen.csv'
/* c */ EXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
-- c\nEXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN /* c */ ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN/**/ANALYZE/**/COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE /* SELECT 1 */ COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE -- SELECT 1\nCOPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE (FORMAT json) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE /*)SELECT 1 --*/) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE --)SELECT 1 --\n) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE, FORMAT ')SELECT 1 --') COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE, ")SELECT 1 --") COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN (ANALYZE true) COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN EXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1) TO 'STORE/stolen.csv'
SELECT 1; COPY (SELECT 1) TO 'STORE/stolen.csv'
COPY (SELECT 1) TO 'STORE/stolen.csv'; SELECT 1
EXPLAIN SELECT 1; COPY (SELECT 1) TO 'STORE/stolen.csv'
SELECT 1; SELECT 2
SELECT * FROM query('COPY (SELECT 1) TO ''STORE/stolen.csv''')
WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') SELECT * FROM x
WITH x AS (COPY (SELECT 1) TO 'STORE/manifest.json') SELECT * FROM x
SELECT * FROM (WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') SELECT * FROM x)
SELECT (WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') SELECT count(*) FROM x)
EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') SELECT * FROM x
SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''STORE/stolen.csv'') SELECT * FROM x')
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1) TO ''STORE/a.csv'') FROM x'))
WITH x AS (INSERT INTO questions VALUES (1) RETURNING *) SELECT * FROM x
WITH x AS (DELETE FROM questions RETURNING *) SELECT * FROM x
WITH x AS (UPDATE questions SET hops = 1 RETURNING *) SELECT * FROM x
INSERT INTO questions VALUES (1)
UPDATE questions SET hops = 1
DELETE FROM questions
MERGE INTO questions USING hits ON true WHEN MATCHED THEN DELETE
TRUNCATE questions
CREATE TABLE t AS SELECT 1
CREATE TEMP TABLE t AS SELECT 1
CREATE OR REPLACE VIEW questions AS SELECT 1
CREATE MACRO m() AS 1
CREATE SECRET s (TYPE s3)
CREATE TYPE t AS ENUM ('a')
DROP VIEW questions
ALTER VIEW questions RENAME TO q
COMMENT ON VIEW questions IS 'x'
ATTACH 'BENCH/new.db' AS db
ATTACH 'STORE/new.db'
ATTACH ':memory:' AS db
ATTACH 'http://127.0.0.1:9/x.db' AS db
DETACH memory
USE memory
INSTALL httpfs
INSTALL httpfs FROM community
LOAD httpfs
LOAD 'BENCH/evil.duckdb_extension'
UPDATE EXTENSIONS
SET enable_external_access = true
SET GLOBAL threads = 1
SET allowed_directories = ['/']
SET VARIABLE x = 1
RESET ALL
RESET threads
PRAGMA threads = 1
PRAGMA enable_profiling
PRAGMA database_list
CALL pragma_version()
CALL enable_logging(storage = 'file', storage_path = 'STORE/stolen')
SELECT * FROM enable_logging('QueryLog', storage = 'file', storage_path = 'STORE/stolen')
SELECT * FROM enable_profiling()
PREPARE p AS SELECT 1
EXECUTE p
DEALLOCATE p
BEGIN
COMMIT
CHECKPOINT
VACUUM
ANALYZE
SELECT ?
SELECT $name

;
-- nothing
SELECT
SELEKT 1
SELECT 'never closed
SELECT \udcff
WITH x AS (COPY (SELECT 1) TO 'store://trajectories-0') FROM x
WITH x AS (COPY (SELECT 1) TO 'store://trajectories-0' (USE_TMP_FILE false)) FROM x
WITH x AS (COPY (SELECT 1) TO 'store://trajectories-0' (FORMAT parquet, OVERWRITE true)) FROM x
WITH x AS (COPY (SELECT 1) TO 'store://trajectories-0' (FORMAT json, USE_TMP_FILE false)) FROM x
WITH x AS (COPY (SELECT 1 AS a) TO 'store://trajectories-0' (FORMAT csv, PARTITION_BY (a), OVERWRITE)) FROM x
WITH x AS (COPY (SELECT 1 AS a) TO 'STORE/stages' (PARTITION_BY (a), APPEND, WRITE_PARTITION_COLUMNS)) FROM x
WITH x AS (COPY (SELECT 1) TO 'STORE/stolen' (FORMAT csv, PER_THREAD_OUTPUT)) FROM x
WITH x AS (COPY (SELECT 1) TO 'store://new' (RETURN_FILES)) FROM x
WITH x AS (COPY (SELECT 1) TO 'store://../stolen.csv') FROM x
WITH x AS (COPY (SELECT 1) TO 'stolen.csv') FROM x
WITH x AS (COPY (SELECT 1) TO 'STORE/.lock' (USE_TMP_FILE false)) FROM x
WITH x AS (COPY (SELECT 1) TO '/dev/stdout') FROM x
WITH x AS (COPY (SELECT 1) TO '/proc/self/fd/2') FROM x
WITH x AS MATERIALIZED (COPY (SELECT 1) TO 'STORE/stolen.csv') FROM x
WITH RECURSIVE x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') FROM x
WITH x AS (SELECT 1), y AS (COPY x TO 'STORE/stolen.csv') FROM x, y
SELECT 1 UNION ALL (WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') FROM x)
SELECT 1 WHERE EXISTS (WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') FROM x)
FROM range(2) r, LATERAL (WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') FROM x)
DESCRIBE WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') FROM x
SUMMARIZE WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') FROM x
PIVOT (WITH x AS (COPY (SELECT 1 AS a) TO 'STORE/stolen.csv') FROM x) ON a
WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') PIVOT rounds ON hop USING count(*)
EXPLAIN (ANALYZE) WITH x AS (COPY (SELECT 1) TO 'STORE/stolen.csv') FROM x
COPY (PIVOT rounds ON hop USING count(*)) TO 'STORE/stolen.csv'
/* FROM */ COPY (PIVOT rounds ON hop USING count(*)) TO 'STORE/stolen.csv'
EXPLAIN ANALYZE COPY (PIVOT rounds ON hop USING count(*)) TO 'STORE/stolen.csv'
CREATE TABLE t AS PIVOT rounds ON hop USING count(*)
INSERT INTO questions PIVOT rounds ON hop USING count(*)
PREPARE p AS PIVOT rounds ON hop USING count(*)
EXPLAIN EXPLAIN ANALYZE PIVOT rounds ON hop USING count(*)
PIVOT rounds ON hop USING count(*); COPY (SELECT 1) TO 'STORE/stolen.csv'
PIVOT rounds ON hop USING count(*)); COPY (SELECT 1) TO 'STORE/stolen.csv'; (FROM questions
COPY (SELECT 1) TO PROGRAM 'touch BENCH/stolen'
COPY FROM DATABASE memory TO other
COPY trajectories TO 'store://trajectories-0' (FORMAT parquet)
EXPORT DATABASE 'store://trajectories-0'
IMPORT DATABASE 'BENCH/other'
ATTACH 'store://trajectories-0' AS db (READ_ONLY)
ATTACH OR REPLACE ':memory:' AS memory
ATTACH 'BENCH/new.db' AS db (TYPE sqlite)
SET disabled_filesystems = ''
RESET disabled_filesystems
SET lock_configuration = false
SET allowed_paths = ['BENCH/secret.txt']
SET memory_limit = '1TB'
SET temp_directory = 'STORE/spilled'
SET profiling_output = 'STORE/stolen.json'
PRAGMA memory_limit = '1TB'
PRAGMA profile_output = 'STORE/stolen.json'
PRAGMA enable_verification
PRAGMA copy_database('memory', 'other')
CALL read_text('BENCH/secret.txt')
CALL force_checkpoint()
CREATE FUNCTION f() AS 1
CREATE TEMP MACRO m() AS TABLE FROM read_text('BENCH/secret.txt')
CREATE SCHEMA s
CREATE SEQUENCE s
CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')
DROP MACRO m
ALTER TABLE questions ADD COLUMN x INT
FORCE CHECKPOINT
FORCE INSTALL httpfs
INSTALL 'BENCH/evil.duckdb_extension'
LOAD 'store://trajectories-0'
SELECT * FROM register_external_resource('x')
SELECT * FROM add_grammar_extension('x')
SELECT * FROM disable_logging()
START TRANSACTION
ROLLBACK
SELECT $$ ; $$; COPY (SELECT 1) TO 'STORE/stolen.csv'
SELECT e'\\''; COPY (SELECT 1) TO 'STORE/stolen.csv' --'
SELECT 1 /* /* */ */ ; COPY (SELECT 1) TO 'STORE/stolen.csv' --*/
EXPLAIN (FORMAT $$)SELECT 1--$$) COPY (SELECT 1) TO 'STORE/stolen.csv'
\ufeffCOPY (SELECT 1) TO 'STORE/stolen.csv'
COPY\u200b(SELECT 1) TO 'STORE/stolen.csv'
\uff23\uff2f\uff30\uff39 (SELECT 1) TO 'STORE/stolen.csv'
SELECT 1\u037e COPY (SELECT 1) TO 'STORE/stolen.csv'
SELECT 1\x00; COPY (SELECT 1) TO 'STORE/stolen.csv'
\\copy questions TO 'STORE/stolen.csv'
.shell touch BENCH/stolen
"""


def escapes(folder: Path) -> list[str]:
    """All of them, for a store in `folder` that `bench` has made."""
    lines = [*_READS.strip().split("\n"), *_ACTS.strip().split("\n")]
    sql = [line.encode().decode("unicode_escape") for line in lines]
    return [text.replace("STORE", f"{folder}/store").replace("BENCH", str(folder)) for text in sql]


def bench(store: Path, folder: Path) -> None:
    """Copy a store into a folder, with a secret beside it, and links from the store to the secret."""
    shutil.copytree(store, folder / "store")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "other").mkdir()
    (folder / "other" / "secret.csv").write_text(f"a\n{SECRET}\n")
    duckdb.connect().execute(f"COPY (SELECT '{SECRET}' AS a) TO '{folder / 'secret.parquet'}'")
    (folder / "store" / "link.txt").symlink_to(folder / "secret.txt")
    (folder / "store" / "link").symlink_to(folder / "other")
