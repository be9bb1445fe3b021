"""What the documents say is run: SQL, commands, names of settings and exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer.main

import stepsearch_data as ssd
from stepsearch_data.cli import app
from stepsearch_data.pipeline.config import RunSettings
from stepsearch_data.search.kinds import kind_of, kinds
from stepsearch_data.stages import STAGES
from tests.conftest import Run
from tests.releases import build

ROOT = Path(__file__).resolve().parents[1]
PLAYED = {"rollouts.md", "rewards.md", "exports.md"}  # their store keeps rollouts
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of a language in all documents, with their documents' names."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(path.name, block) for path in DOCUMENTS for block in pattern.findall(path.read_text())]


@pytest.fixture(scope="module")
def played_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, which keeps its gold trajectories, and one that is wrong, as rollouts of a policy that teaches."""
    folder = tmp_path_factory.mktemp("played")
    store = build(folder / "store")
    rows = [{"id": each.question_id, "response": each.rollout} for each in ssd.load_trajectories(store.root)]
    rows.append({**rows[0], "response": "<answer> nobody knows </answer>"})
    (folder / "gold.jsonl").write_text("\n".join(map(json.dumps, rows)))
    policies = f'rollouts.policies=["gold={folder / "gold.jsonl"}"]'
    return build(folder / "store", policies, "pick.teacher=gold").root


@pytest.mark.parametrize(("document", "query"), blocks("sql"))
def test_sql_examples_run(document: str, query: str, sample_store: Path, played_store: Path, cli: Run) -> None:
    store = played_store if document in PLAYED else sample_store
    found = cli("sql", "-", "--store", store, "--format", "json", stdin=query)
    assert found.returncode == 0, f"{document}: {found.stderr}"
    rows = json.loads(found.stdout)
    assert rows or "rejects" in query or "NOT bool_or" in query


def test_python_finds_the_rows_that_the_manifest_names(
    sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a folder of an earlier build still lies beside theirs."""
    shutil.copytree(sample_store, tmp_path / "store")
    (folder,) = (tmp_path / "store" / "stages").glob("trajectories-*")
    shutil.copytree(folder, folder.with_name("trajectories-000000000000"))
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(next(block for name, block in blocks("python") if name == "store.md"), known)
    assert known["rounds"].collect().height == 182


COMMANDS = [
    (document, line.partition("#")[0].strip())
    for document, block in blocks("console")
    for line in block.splitlines()
    if line.startswith("stepsearch-data")
]


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_commands_are_understood(
    document: str, command: str, sample_store: Path, played_store: Path, cli: Run, tmp_path: Path
) -> None:
    store = played_store if document in PLAYED else sample_store
    verb, *arguments = shlex.split(command)[1:]
    if verb == "build":  # on the reader's own files: here the options must be right, and the file is not there
        result = cli(verb, *arguments, "--store", tmp_path / "store", "--dry-run", env={"HF_HUB_OFFLINE": "1"})
        assert result.returncode == 1
        assert "error: cannot re" in result.stderr
        return
    if verb in {"export", "report"}:  # write files, and say on stderr where
        result = cli(verb, *arguments, "--output", tmp_path / "written", "--store", store)
        assert result.returncode == 0, result.stderr
        assert f"{tmp_path}" in result.stderr
        return
    result = cli(verb, *arguments, "--store", store)
    assert result.returncode == 0, result.stderr
    assert result.stdout


# Commands of ```bash blocks that are not run here, and why. Options of our own are checked in all of them.
NOT_RUN = {
    r"(?!stepsearch-data )": "is no command of this package",
    r"stepsearch-data (publish|pull|verify USER)": "needs the Hub",
    r"stepsearch-data (serve|view)": "runs until it is stopped",
    r"stepsearch-data doctor|.* --llm ": "asks a model",
    r".*http=": "asks a server",
    r"stepsearch-data (train|eval|rollouts|plot)": "needs torch, or what a training wrote",
    r".*( evals/|=evals/|wiki-18\.|train\.jsonl|run\.toml| mixed$)": "reads a file or a store of the reader's",
}
NOT_RUN_PYTHON = {"release.md": "needs the Hub", "training.md": "needs torch: tests/trainer/test_steppo.py runs it"}
NAMES = """
import re

target, search_keys, paragraphs = ["Pesaro"], [["Rossini birthplace"]], ["Rossini was born in Pesaro."]
response = "<think>I know.</think>\\n<answer>Pesaro</answer>"

def tokenizer(text, **_):
    return {"offset_mapping": [found.span() for found in re.finditer(r"\\S+", text)]}
"""
SCRIPT = """
import subprocess
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "trl", "datasets", "huggingface_hub", "faiss", "tantivy",
                                      "sentence_transformers", "pandas", "sklearn"}:
            raise ModuleNotFoundError(f"the base install has no {name}", name=name)

sys.meta_path.insert(0, Absent())

def run(*arguments):
    assert subprocess.run([sys.executable, "-m", "stepsearch_data", *arguments]).returncode == 0, arguments

"""


def commands(block: str) -> list[str]:
    """The commands of a block, without comments and on one line each."""
    lines = block.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := shlex.join(shlex.split(line, comments=True)))]


def steps(path: Path) -> list[str]:
    """A document's ```python and ```bash blocks, in order, as Python; `# → value` after a line says what it gives."""
    found = []
    for language, block in re.findall(r"^```(python|bash)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        if language == "bash":
            ours = (command for command in commands(block) if not any(re.match(known, command) for known in NOT_RUN))
            found += [f"run(*{shlex.split(command)[1:]})" for command in ours]
        elif path.name not in NOT_RUN_PYTHON:
            found.append(re.sub(r"(?m)^(\S.*?)  # → (.*)$", r"assert (\1) == (\2), \1", block))
    return found


def test_every_reason_is_that_of_some_command() -> None:
    written = [command for _, block in blocks("bash") for command in commands(block)]
    for known, reason in NOT_RUN.items():
        assert any(re.match(known, command) for command in written), reason
    assert NOT_RUN_PYTHON.keys() <= {name for name, _ in blocks("python")}


@pytest.mark.long
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if steps(path)], ids=lambda path: path.name)
def test_python_and_bash_blocks_run(path: Path, sample_store: Path, played_store: Path, tmp_path: Path) -> None:
    """In order, beside a store and rollouts, in a process that has the base install alone."""
    shutil.copytree(played_store if path.name in PLAYED else sample_store, tmp_path / "store")
    gold = ssd.open(sample_store).sql("SELECT rollout, answer, answer_aliases FROM trajectories LIMIT 3").to_pylist()
    (tmp_path / "rollouts.jsonl").write_text("\n".join(map(json.dumps, gold)))
    answers = [{"prediction": row["answer"], "answers": [row["answer"]]} for row in gold]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    script = "\n".join([SCRIPT, NAMES if path.name == "rewards.md" else "", *steps(path)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


OURS = sorted({command for _, block in blocks("bash") for command in commands(block) if "stepsearch-data " in command})


@pytest.mark.parametrize("command", OURS)
def test_options_in_bash_blocks_are_known(command: str) -> None:
    known: Any = typer.main.get_command(app)
    verb, *arguments = shlex.split(command.partition("stepsearch-data ")[2])
    with suppress(typer.Exit):  # of --list
        known.commands[verb].make_context(verb, arguments)


def test_the_example_trajectory_is_what_show_prints(sample_store: Path, cli: Run) -> None:
    example = next(block for _, block in blocks("text") if block.startswith("Round 1"))
    shown = cli("show", "--store", sample_store).stdout
    assert all(line.strip() in shown for line in example.splitlines())


def test_the_users_own_format_builds(tmp_path: Path, cli: Run) -> None:
    question, hops = (block for name, block in blocks("json") if name == "sources.md")
    row = json.loads(question)
    with_hops = json.loads(f"{{{hops}}}")
    file = tmp_path / "mine.jsonl"
    lines = [row, {**row, **with_hops, "id": "q2"}, {"title": "Lodi", "text": "A document without a question."}]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert cli("build", "--source", f"jsonl={file}", "--store", tmp_path / "store").returncode == 0
    found = cli(
        "sql", "SELECT question_id, hops, complete FROM trajectories", "--store", tmp_path / "store", "-f", "csv"
    )
    assert found.stdout.splitlines()[1:] == ['"q1",2,true', '"q2",2,true']


def settings_of(name: str) -> list[str]:
    kind = kind_of(name)
    return [*kind.config.model_fields, *kind.settings.model_fields, "kind"]


def test_every_setting_that_is_named_exists() -> None:
    known = {f"{stage.name}.{key}" for stage in STAGES for key in stage.config.model_fields}
    known |= {f"run.{key}" for key in RunSettings.model_fields}
    known |= {f"engines.{name}.{key}" for name in kinds() for key in settings_of(name)} | {"engines.use"}
    names = "|".join([*(stage.name for stage in STAGES), "run", "engines"])
    for path in DOCUMENTS:
        for setting in re.findall(
            rf"(?<![\w/.\[])(?:{names})\.(?:[a-z0-9-]+\.)?[a-z_0-9]+\b(?!\.|/|\()", path.read_text()
        ):
            assert setting in known or setting.endswith(
                (".json", ".jsonl", ".parquet", ".sql", ".md", ".toml", ".html", ".txt", ".yaml", ".png")
            ), f"{path.name}: {setting}"


def test_a_table_has_a_header() -> None:
    """An empty line inside would cut it: what follows is then drawn as text."""
    for path in DOCUMENTS:
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert re.fullmatch(r"\|[-:| ]+\|", table.splitlines()[1]), f"{path.name}: {table}"


def test_the_figures_are_those_of_the_benchmarks() -> None:
    figures = next(block for name, block in blocks("text") if name == "README.md" and "growth" in block)
    assert re.search(
        r"^ +2,500 questions, +14,000 paragraphs: median [\d.]+ s .*peak [\d,]+ MiB, of all processes [\d,]+ MiB$",
        figures,
        re.MULTILINE,
    )
    assert re.search(
        r"^ +25,000 questions, +140,000 paragraphs: median [\d.]+ s .*peak [\d,]+ MiB, of all processes [\d,]+ MiB$",
        figures,
        re.MULTILINE,
    )
    assert re.search(r"^growth: n\^\d\.\d\d$", figures, re.MULTILINE)


def test_the_arithmetic_of_cost_is_that_of_its_script() -> None:
    script, env = [sys.executable, str(ROOT / "benchmarks" / "cost.py")], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, capture_output=True, text=True, env=env, check=True)
    assert done.stdout in {block for name, block in blocks("text") if name == "yield.md"}
