"""The command line: what each verb prints where, and how it ends."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stepsearch_data import __version__
from stepsearch_data.cli import app
from stepsearch_data.schemas.tables import TABLES
from stepsearch_data.stages import STAGES
from stepsearch_data.stages.model import PROMPTS
from tests.conftest import Run
from tests.rows import QUESTION, jsonl, musique, write_lines
from tests.tree import tree

VERBS = sorted(command.name or command.callback.__name__ for command in app.registered_commands if command.callback)
NAMES = [stage.name for stage in STAGES]
USUAL = [stage.name for stage in STAGES if not stage.optional]
HEAVY = ("torch", "polars", "duckdb", "pyarrow", "bm25s", "numpy", "numba", "datasets", "aiohttp")
HELP = f"""
import sys
from stepsearch_data.cli import app
for arguments in [["--help"], ["--version"], *([verb, "--help"] for verb in {VERBS})]:
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code, arguments
print("heavy:", sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
"""
Done = subprocess.CompletedProcess[str]


def test_help_is_there_for_every_verb_and_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stderr == "heavy: []\n"
    assert {"audit", "build", "explain", "init", "schema", "show", "sql", "stages", "status", "synth"} <= set(VERBS)
    assert all(verb in done.stdout for verb in VERBS)


def test_help_names_every_prompt(cli: Run) -> None:
    told = " ".join(cli("build", "--help", env={"COLUMNS": "500"}).stdout.split())
    assert f"Your own prompt: one of {', '.join(sorted(PROMPTS))}." in told


@pytest.mark.long
def test_a_build_that_asks_nobody_imports_no_client(tmp_path: Path) -> None:
    code = """
import sys
import stepsearch_data as ssd
imported = set(sys.modules)
ssd.build(sys.argv[1], limit=3, progress=False)
print(sorted({"openai", "httpx2", "aiohttp"} & set(sys.modules)), sorted(imported & {"pydantic", "pyarrow"}))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[] []\n"


def test_the_version_is_printed(cli: Run) -> None:
    done = cli("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def refused(done: Done, code: int) -> str:
    """A refusal: nothing on stdout, one line of error and at most one of hint, no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    error, *rest = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert len(rest) <= 1
    assert all(line.startswith("hint: ") for line in rest)
    return done.stderr


def data(done: Done) -> Any:
    """The JSON on stdout of a run that had nothing to complain about."""
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_stages_lists_them_in_order(cli: Run) -> None:
    listed = data(cli("stages", "--json"))
    assert [stage["name"] for stage in listed] == NAMES
    assert listed[0]["reads"] == ["sources"]
    assert all(stage["doc"] and stage["writes"] for stage in listed)
    assert all(name in cli("stages").stdout for name in NAMES)


def test_schema_gives_every_column_a_meaning(cli: Run) -> None:
    described = data(cli("schema", "--json"))
    assert set(described) == {table.name for table in TABLES}
    for name, table in described.items():
        assert table["doc"], name
        for column in table["columns"]:
            assert column["meaning"], (name, column["name"])
            assert column["type"]
            assert isinstance(column["nullable"], bool)
    queries = {column["name"] for column in described["queries"]["columns"]}
    assert {"kept", "gold_rank"} <= queries
    assert "whether the query passes the vote" in cli("schema").stdout


def test_status_shows_every_stage(cli: Run, sample_store: Path) -> None:
    shown = data(cli("status", "--store", sample_store, "--json"))
    assert [stage["stage"] for stage in shown["stages"]] == USUAL
    assert re.fullmatch("[0-9a-f]{64}", shown["digest"])
    for stage in shown["stages"]:
        assert stage["state"] == "current"
        assert stage["rejects"] == 0
        assert stage["bytes"] > 0
        assert stage["seconds"] >= 0
    assert shown["stages"][0]["rows"]["loaded"] == 74
    text = cli("status", "--store", sample_store).stdout
    assert "74 questions" in text
    assert len(text.splitlines()) == len(USUAL) + 1


def test_explain_says_what_would_run_and_why(cli: Run, sample_store: Path) -> None:
    plan = data(cli("explain", "--store", sample_store, "--set", "filter.k=1", "--json"))
    runs = {decision["stage"]: decision["reasons"] for decision in plan if decision["runs"]}
    assert runs == {
        "filter": ["config.k: 3 → 1"],
        "trajectories": ["votes will be rebuilt by filter"],
        "quality": ["votes will be rebuilt by filter", "rounds will be rebuilt by trajectories"],
        "pairs": ["votes will be rebuilt by filter", "rounds will be rebuilt by trajectories"],
    }
    text = cli("explain", "--store", sample_store, "--set", "filter.k=1").stdout
    assert "config.k: 3 → 1" in text
    assert text.count("current") == len(USUAL) - 4


def test_a_dry_run_is_an_explanation_and_changes_nothing(cli: Run, sample_store: Path, tmp_path: Path) -> None:
    before = tree(sample_store)
    options = ("--store", sample_store, "--force", "--json")
    assert cli("build", "--dry-run", *options).stdout == cli("explain", *options).stdout
    assert tree(sample_store) == before
    plan = data(cli("build", "--dry-run", "--store", tmp_path / "new", "--json"))
    assert all(decision["reasons"] == ["never run"] for decision in plan)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_sql_prints_text_formats(form: str, cli: Run, sample_store: Path) -> None:
    done = cli("sql", "SELECT 1 AS a, [1, 2] AS b, NULL AS c", "--store", sample_store, "--format", form)
    assert (
        done.stdout
        == {
            "csv": '"a","b","c"\n1,"[1,2]",\n',
            "json": '[\n{"a":1,"b":[1,2],"c":null}\n]\n',
            "jsonl": '{"a":1,"b":[1,2],"c":null}\n',
        }[form]
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_sql_prints_a_table_for_people_from_stdin(cli: Run, sample_store: Path) -> None:
    done = cli("sql", "-", "--store", sample_store, stdin="SELECT 12345 AS n, '[bold]' AS t, true AS b\n")
    assert [line.split() for line in done.stdout.splitlines()] == [["n", "t", "b"], ["12,345", "[bold]", "yes"]]


def test_sql_writes_parquet_to_stdout_and_to_a_file(sample_store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stepsearch_data", "sql", "SELECT * FROM rounds", "--store", str(sample_store)]
    piped = subprocess.run([*command, "-f", "parquet"], capture_output=True, check=True)
    (tmp_path / "piped").write_bytes(piped.stdout)
    subprocess.run([*command, "-f", "parquet", "-o", str(tmp_path / "file")], check=True)
    assert pq.read_table(tmp_path / "piped").equals(pq.read_table(tmp_path / "file"))
    assert pq.read_metadata(tmp_path / "file").num_rows == 182


def test_sql_says_when_a_table_is_cut(cli: Run, sample_store: Path) -> None:
    done = cli("sql", "SELECT * FROM range(1001)", "--store", sample_store)
    assert len(done.stdout.splitlines()) == 1 + 1000
    assert done.stderr.startswith("note: only the first 1000 rows")


@pytest.mark.parametrize(
    "sql", ["COPY (SELECT 1) TO 'x'", "SELECT 1; SELECT 2", "SELECT * FROM read_text('/etc/hostname')", ""]
)
def test_sql_refuses_what_is_no_reading_of_the_store(sql: str, cli: Run, sample_store: Path) -> None:
    refused(cli("sql", sql, "--store", sample_store), 1)


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_sql_stops_in_time(form: str, cli: Run, sample_store: Path) -> None:
    endless = "SELECT sum(a.range) FROM range(10000000000) a, range(10000000000) b"
    begin = time.monotonic()
    done = cli("sql", endless, "--store", sample_store, "--timeout", "0.5", "-f", form)
    assert time.monotonic() - begin < 10
    assert "took longer than 0.5 s" in refused(done, 1)


def shell(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -W error -m stepsearch_data"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script.replace('STEPSEARCH', command)}", "-", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl", "parquet"])
def test_a_reader_that_leaves_early_is_no_error(form: str, sample_store: Path) -> None:
    sql = "SELECT r.*, range FROM rounds r, range(300)" + (" LIMIT 999" if form == "table" else "")
    done = shell(f'STEPSEARCH sql "{sql}" --store "$1" --format {form} | head -c 10 > /dev/null', sample_store)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "command",
    [
        *("sql -f csv 'SELECT * FROM rounds' --store $1", "sql 'SELECT 1' --store $1", "status --store $1"),
        *("audit --json --store $1", "--help", "--version", "sql --help"),
    ],
)
def test_stdout_on_a_full_disk_is_one_line(command: str, sample_store: Path) -> None:
    done = shell(f"STEPSEARCH {command} > /dev/full", sample_store)
    assert done.returncode == 1
    assert done.stderr == "error: output: No space left on device\n"


def test_show_prints_a_trajectory(cli: Run, sample_store: Path) -> None:
    first = cli("show", "--store", sample_store).stdout
    assert re.search(r"Round 1 .*\n  search  .*  kept\n", first)
    assert "★ gold" in first
    assert "Answer" in first
    shown = data(cli("show", "--store", sample_store, "--json"))
    again = data(cli("show", shown["question_id"], "--store", sample_store, "--json"))
    assert again == shown
    assert [step["round"] for step in shown["rounds"]] == list(range(1, shown["hops"] + 1))
    assert shown["question"] in first


def test_show_of_a_trajectory_that_failed_says_why(cli: Run, sample_store: Path) -> None:
    failed = "4hop1__218795_120010_18224_37904"
    shown = cli("show", failed, "--store", sample_store).stdout
    assert "Failed  a hop has no kept query" in shown
    assert "⚑ gold_not_shown: round 4 has no kept query" in shown
    assert shown.count("     rejected  ") == 3
    assert "(0 of 1 engines, no gold found)" in shown
    assert "  wanted  Henry VII\n" in shown
    whole = data(cli("show", failed, "--store", sample_store, "--json"))
    assert whole["quality"]["flags"] == ["gold_not_found", "gold_not_shown"]
    assert {query["hop"] for query in whole["rejected"]} == {4}
    passed = cli("show", "--store", sample_store).stdout
    assert not {"Failed", "⚑", "rejected"} & set(passed.split())


def test_show_of_an_unknown_question_says_how_to_find_one(cli: Run, sample_store: Path) -> None:
    message = refused(cli("show", "no such id", "--store", sample_store), 1)
    assert "there is no trajectory of question no such id" in message
    assert "SELECT question_id FROM trajectories" in message


def test_audit_has_the_keys_that_others_rely_on(cli: Run, sample_store: Path) -> None:
    by_source = data(cli("audit", "--store", sample_store, "--json"))["by_source"]
    assert set(by_source) == {"musique", "hotpotqa"}
    keys = {"questions", "hops", "hop_hit_at_3", "pass_at_1", "pass_at_3", "pass_at_5", "kept_per_hop", "leaks"}
    for numbers in by_source.values():
        assert keys <= set(numbers)
        assert all(isinstance(numbers[key], int | float) for key in keys)
    assert "hop hit@3" in cli("audit", "--store", sample_store).stdout


def test_init_writes_a_run_file_once(cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    assert cli("init", path).returncode == 0
    written = path.read_text()
    assert set(NAMES) <= set(tomllib.loads(written))
    path.write_text("mine")
    assert "exists already" in refused(cli("init", path), 2)
    assert path.read_text() == "mine"
    assert cli("init", path, "--force").returncode == 0
    assert path.read_text() == written
    refused(cli("init", tmp_path / "no" / "run.toml"), 1)


def test_synth_writes_the_same_world_for_the_same_seed(cli: Run, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done = cli("synth", "-n", "5", "--seed", str(seed), "-o", tmp_path / name, "--quiet")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    assert len((tmp_path / "a").read_text().splitlines()) == 5
    refused(cli("synth", "-n", "5", "-o", tmp_path / "no" / "world"), 1)


def test_a_build_prints_data_on_stdout_and_its_log_on_stderr(cli: Run, tmp_path: Path) -> None:
    done = cli("build", "--store", tmp_path / "store", "--to", "index", "--json")
    assert done.returncode == 0
    printed = json.loads(done.stdout)
    ran = [("load", True), ("mine", True), ("compose", True), ("index", True)]
    assert [(stage["stage"], stage["ran"]) for stage in printed["stages"]] == ran
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["load", "index"]  # nothing was mined
    again = cli("build", "--store", tmp_path / "store", "--to", "index", "--json")
    assert not any(stage["ran"] for stage in json.loads(again.stdout)["stages"])
    quiet = cli("build", "--store", tmp_path / "store", "--to", "queries", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_rows_set_aside_are_exit_code_3(cli: Run, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "rows.jsonl", [*(jsonl(f"q{n}") for n in range(9)), b"{"])
    done = cli("build", "--stage", "load", "--store", tmp_path / "store", "--source", f"jsonl={source}", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["stages"][0]["rejects"] == 1
    rejects = cli("sql", "SELECT position FROM rejects", "--store", tmp_path / "store", "-f", "csv")
    assert rejects.stdout == '"position"\n10\n'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "--set", "filter.kk=1"], "did you mean k?"),
        (["build", "--stage", "lod"], "did you mean load?"),
        (["build", "--stage", "load", "--from", "load"], "exclude each other"),
        (["build", "--from", "filter", "--to", "load"], "comes after"),
        (["build", "--source", "musique"], "expected KIND=PATH"),
        (["build", "--source", "squad=x"], "unknown kind 'squad'"),
        (["build", "--config", "none.toml"], "cannot read the run file none.toml"),
        (["build", "--stage", "filter"], "which is not in the store yet"),
        (["build", "--set", "filter.k=9"], "only 5 documents are retrieved"),
        (["sql", "SELECT 1", "--output", "out"], "hint: name one: --format csv"),
        (["sql", "SELECT 1", "--output", "out", "--format", "table"], "hint: name one: --format csv"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], said: str, cli: Run, tmp_path: Path) -> None:
    assert said in refused(cli(*arguments, "--store", tmp_path / "store"), 2)
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        *("bogus", "--bogus", "build --bogus", "sql", "build --workers 0", "sql x --format xml"),
        *(f"sql x --timeout {seconds}" for seconds in ("inf", "nan", "86401", "0")),
        *("sql x --memory nan", "sql x --memory 0"),
    ],
)
def test_an_unknown_option_or_value_is_exit_code_2(arguments: str, cli: Run) -> None:
    assert "--help" in refused(cli(*arguments.split()), 2)


@pytest.mark.parametrize(
    "verb",
    [
        ["status"],
        ["sql", "SELECT 1"],
        ["show"],
        ["audit"],
        ["export", "-f", "verl", "-o", "no"],
        ["report", "-o", "no"],
    ],
)
def test_no_store_is_one_line_and_a_hint(verb: list[str], cli: Run, tmp_path: Path) -> None:
    for place in (tmp_path / "none", tmp_path):
        message = refused(cli(*verb, "--store", place), 1)
        assert f"hint: make one: stepsearch-data build --store {place}" in message


@pytest.mark.parametrize("verb", [["show"], ["audit"]])
def test_an_unfinished_store_is_one_line_and_a_hint(verb: list[str], cli: Run, tmp_path: Path) -> None:
    assert cli("build", "--stage", "load", "--store", tmp_path / "store").returncode == 0
    message = refused(cli(*verb, "--store", tmp_path / "store"), 1)
    assert "not built to its end" in message
    assert "hint: stepsearch-data build" in message


def test_a_store_that_cannot_be_written_is_one_line(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "store", Path("/proc/store")):
        assert str(place) in refused(cli("build", "--store", place), 1)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_source_that_is_missing_is_one_line_and_leaves_no_table(cli: Run, tmp_path: Path) -> None:
    done = cli("build", "--store", tmp_path / "store", "--source", f"musique={tmp_path / 'none.jsonl'}")
    assert str(tmp_path / "none.jsonl") in refused(done, 1)
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_the_environment_and_a_run_file_choose_the_store(cli: Run, sample_store: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'store = "{sample_store}"')
    count = ("sql", "SELECT 74 = count(*) AS all FROM questions", "-f", "csv")
    for done in (
        cli(*count, env={"STEPSEARCH_STORE": str(sample_store)}),
        cli(*count, "--config", tmp_path / "run.toml"),
        cli(*count, env={"STEPSEARCH_CONFIG": str(tmp_path / "run.toml")}),
        cli(*count, "--store", sample_store, env={"STEPSEARCH_STORE": "elsewhere"}),
    ):
        assert (done.returncode, done.stdout) == (0, '"all"\ntrue\n'), done.stderr


@pytest.fixture
def odd_store(sample_store: Path, tmp_path: Path) -> Path:
    """A store in a folder that a shell would take for several words."""
    return Path(shutil.copytree(sample_store, tmp_path / "my; $(store)"))


def test_sql_writes_nothing_into_the_store(cli: Run, odd_store: Path) -> None:
    before = tree(odd_store)
    done = cli("sql", "SELECT 1", "--store", odd_store, "-f", "csv", "-o", odd_store / "manifest.json")
    assert "it lies in the store" in refused(done, 1)
    assert tree(odd_store) == before


def test_synth_says_what_is_wrong_with_a_name(cli: Run, tmp_path: Path) -> None:
    assert "name it .jsonl or .jsonl.gz" in refused(cli("synth", "-o", tmp_path / "w.jsonl.zst"), 2)
    assert "cannot write .: it is a folder" in refused(cli("synth", "-o", "."), 2)
    assert "cannot write -: it is not the name of a file" in refused(cli("synth", "-o", "-"), 2)


def test_closed_streams_are_no_traceback(sample_store: Path) -> None:
    done = shell('STEPSEARCH sql - --store "$1" <&-', sample_store)
    assert (done.returncode, done.stderr) == (1, "error: expected one statement, got 0\n")
    assert shell("STEPSEARCH bogus 2>&-").returncode == 2


READING = ("show", "audit --json", "sql 'SELECT 1'", "sql 'SELECT 1' -f csv")
LISTING = ("--help", "stages", "schema --json")


@pytest.mark.parametrize(
    "command",
    [
        *('status --store "$1" >&-', "--version >&- <&-"),
        *(pytest.param(f'{verb} --store "$1" >&-', marks=pytest.mark.long) for verb in READING),
        *(pytest.param(f"{verb} >&- <&-", marks=pytest.mark.long) for verb in LISTING),
    ],
)
def test_a_closed_stdout_is_no_error(command: str, sample_store: Path) -> None:
    done = shell(f"STEPSEARCH {command}", sample_store)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.long
def test_output_that_cannot_hold_a_character_has_its_number(cli: Run, sample_store: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    shown = cli("show", "--store", sample_store, env=ascii_only)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert r" \xb7 musique" in shown.stdout
    assert r"\u2605 gold" in shown.stdout
    explained = cli("explain", "--store", sample_store, "--set", "filter.k=1", env=ascii_only)
    assert r"config.k: 3 \u2192 1" in explained.stdout


def words(text: str, mark: str) -> list[str]:
    """The shell's words of the command that follows the mark."""
    return shlex.split(text.partition(mark)[2].splitlines()[0])


def test_suggested_commands_can_be_pasted(cli: Run, odd_store: Path, tmp_path: Path) -> None:
    built = cli("build", "--store", odd_store)
    for verb in ("show", "audit", "sql"):
        assert words(built.stdout, f"  stepsearch-data {verb} ")[:2] == ["--store", str(odd_store)]
    missing = cli("show", "none", "--store", odd_store)
    assert words(missing.stderr, "stepsearch-data sql ") == [
        "--store",
        str(odd_store),
        "SELECT question_id FROM trajectories",
    ]
    world = tmp_path / "a $(world).jsonl"
    told = cli("synth", "-n", "1", "-o", world)
    assert words(told.stderr, "stepsearch-data build ") == ["--source", f"musique={world}"]
    file = tmp_path / "my run.toml"
    assert words(cli("init", file).stderr, "stepsearch-data build ") == ["--config", str(file)]


def test_data_does_nothing_to_a_terminal(cli: Run, sample_store: Path, tmp_path: Path) -> None:
    sql = r"SELECT e'\x1b]0;pwn\x07hi\r' || chr(155) AS " + '"a\x1b[1m"'
    shown = cli("sql", sql, "--store", sample_store)
    assert shown.stdout.split() == [r"a\x1b[1m", r"\x1b]0;pwn\x07hi\x0d\x9b"]
    as_json = cli("sql", sql, "--store", sample_store, "-f", "jsonl")
    assert json.loads(as_json.stdout) == {"a\x1b[1m": "\x1b]0;pwn\x07hi\r\x9b"}
    failed = cli("sql", r"SELECT e'\x1b'::INT", "--store", sample_store)
    assert "\x1b" not in failed.stderr
    row = musique("q", question=f"{QUESTION}\x1b]0;pwn\x07")
    row["paragraphs"][0]["title"] += "\x1b[31m"
    source = write_lines(tmp_path / "rows.jsonl", [row])
    assert cli("build", "--source", f"musique={source}", "--store", tmp_path / "store", "-q").returncode == 0
    told = cli("show", "--store", tmp_path / "store")
    assert rf"{QUESTION}\x1b]0;pwn\x07" in told.stdout
    assert r"Seville\x1b[31m" in told.stdout
    assert "\x1b" not in told.stdout
    assert "\x1b" in data(cli("show", "--store", tmp_path / "store", "--json"))["question"]


def test_nothing_is_folded_where_no_terminal_is(cli: Run, sample_store: Path) -> None:
    narrow = {"COLUMNS": "20"}
    audited = cli("audit", "--store", sample_store, env=narrow).stdout
    measures = data(cli("audit", "--store", sample_store, "--json"))
    assert measures["by_gate"].keys() > measures.pop("unchecked").keys()  # told among the gates
    tables = [len(rows) for rows in measures.values() if rows]
    assert len(audited.splitlines()) == sum(tables) + 2 * len(tables)  # a header and an empty line each
    assert "kept share" not in audited
    assert "kept_share" in measures["by_source"]["musique"]
    wide = ", ".join(f"'{'x' * 50}' AS c{n}" for n in range(20))
    assert len(cli("sql", f"SELECT {wide}", "--store", sample_store, env=narrow).stdout.splitlines()) == 2
