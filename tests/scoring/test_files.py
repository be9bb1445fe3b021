"""`score`: rollouts of any log in, every component out, in order; what is no rollout is told apart."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import stepsearch_data as ssd
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.rewards import PAPER, REFERENCE
from stepsearch_data.schemas.rollouts import READ, RolloutRow
from stepsearch_data.scoring.files import TABLES, default_output, rejects_of, score_file
from stepsearch_data.scoring.scorer import Kind, Scorer, configure
from stepsearch_data.sources.record import Record
from tests.conftest import Run
from tests.releases import build

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "jsonl.gz": gzip.compress,
    "jsonl.bz2": bz2.compress,
    "jsonl.zst": zstandard.ZstdCompressor().compress,
}
COMPONENTS = ["score", "answer_correct", "step_scores", "search_key_score", "information_gain", "redundancy_penalty"]
RESPONSE = (
    "<think> t </think><search> tosca composer </search>"
    "<information> Doc 1<## Title: Tosca ##> Tosca is an opera by Puccini. </information>"
    "<think> done </think><answer> Puccini </answer>"
)
PARAGRAPH = {"title": "Tosca", "paragraph_text": "Tosca is an opera by Puccini."}
PERFECT = {
    "score": 1.618,
    "answer_correct": 1.0,
    "step_scores": [1.0],
    "search_key_score": 1.0,
    "information_gain": [1.0],
    "redundancy_penalty": [0.0],
}


def rollout(**fields: Any) -> Row:
    row: Row = {
        "response": RESPONSE,
        "target": ["Puccini"],
        "search_keys": [["tosca composer"]],
        "support_docs": [PARAGRAPH],
    }
    return {name: value for name, value in (row | fields).items() if value is not None}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def printed(done: subprocess.CompletedProcess[str]) -> list[Row]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def near(found: Row, expected: Row) -> bool:
    def numbers(row: Row) -> list[float]:
        return [n for value in row.values() for n in (value if isinstance(value, list) else [value])]

    shapes = {name: len(value) if isinstance(value, list) else None for name, value in found.items()}
    assert shapes == {name: len(value) if isinstance(value, list) else None for name, value in expected.items()}
    return numbers({name: found[name] for name in expected}) == pytest.approx(numbers(expected), abs=1e-9)


def test_the_released_rewards_of_all_golden_vectors(shared_vectors: Path, tmp_path: Path, cli: Run) -> None:
    file = tmp_path / "rollouts.jsonl"
    file.write_bytes((shared_vectors / "reward_published.jsonl").read_bytes())
    done = cli("score", file, "--preset", "reference", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    found = printed(done)
    assert len(found) == len(rows) == 300
    assert all(near(scored, row["expected"]) for scored, row in zip(found, rows, strict=True))
    assert names(tmp_path) == ["rollouts.jsonl"]


def test_the_official_metrics_of_all_golden_answers(shared_vectors: Path, cli: Run) -> None:
    file = shared_vectors / "answer_metrics.jsonl"
    done = cli("score", "--answers", file, "--json")
    assert done.returncode == 0, done.stderr
    expected = [json.loads(line)["expected"] for line in file.read_text().splitlines()]
    assert len(expected) == 400
    assert printed(done) == expected


@pytest.mark.parametrize("suffix", ["jsonl", "json", "jsonl.gz", "jsonl.bz2", "jsonl.zst", "parquet"])
def test_every_kind_of_file_is_read(suffix: str, tmp_path: Path, cli: Run) -> None:
    rows = [rollout(id=str(n), target=["Puccini"] if n % 2 else ["Verdi"]) for n in range(5)]
    file = tmp_path / f"r.{suffix}"
    lines = "\n".join(map(json.dumps, rows)).encode()
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif suffix == "json":
        file.write_text(json.dumps(rows))
    else:
        file.write_bytes(PACKED.get(suffix, bytes)(lines))
    done = cli("score", file)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "r.scores.parquet")
    assert table.schema.equals(TABLES["rollouts"].schema)
    found = table.to_pylist()
    assert [row["id"] for row in found] == ["0", "1", "2", "3", "4"]
    assert [row["answer_em"] for row in found] == [0, 1, 0, 1, 0]
    assert [row["position"] for row in found] == [1, 2, 3, 4, 5]
    assert near({name: found[1][name] for name in COMPONENTS}, PERFECT)
    assert (found[1]["rounds"], found[1]["searches"], found[1]["answer"]) == (1, 1, "Puccini")
    assert "5" in done.stdout.splitlines()[1].split()
    assert str(tmp_path / "r.scores.parquet") in done.stdout


GROUND_TRUTH = {"target": ["Puccini"], "search_keys": [["tosca composer"]]}
DIALECTS: dict[str, Row] = {
    "the reference code's": rollout(),
    "flat keys, plain paragraphs, one target": rollout(
        target="Puccini", search_keys=["tosca composer"], support_docs=[PARAGRAPH["paragraph_text"]]
    ),
    "a verl dump": {
        "input": "user: …",
        "output": RESPONSE,
        "gts": GROUND_TRUTH,
        "score": 0.1,
        "step": 7,
        "support_docs": [PARAGRAPH],
    },
    "verl's generations beside a training row": {
        "data_source": "musique",
        "prompt": [{"role": "user", "content": "…"}],
        "reward_model": {"style": "rule", "ground_truth": GROUND_TRUTH},
        "extra_info": {"split": "train", "index": 3, "support_docs": [PARAGRAPH]},
        "responses": [RESPONSE],
    },
    "the reference code's predictions": {
        "id": 12,
        "response": RESPONSE,
        "ground_truth": GROUND_TRUTH,
        "support_docs": [PARAGRAPH],
    },
    "ours": {
        "question_id": "q1",
        "rollout": RESPONSE,
        "answer": "Giacomo",
        "answer_aliases": ["Puccini"],
        "search_keys": [["tosca composer"]],
        "support_docs": [{"title": "Tosca", "text": PARAGRAPH["paragraph_text"]}],
    },
}


@pytest.mark.parametrize("name", DIALECTS)
def test_the_spellings_of_other_logs(name: str, tmp_path: Path, cli: Run) -> None:
    done = cli("score", write(tmp_path / "r.jsonl", [DIALECTS[name]]), "--json")
    assert done.returncode == 0, done.stderr
    assert near(printed(done)[0], PERFECT)


def test_a_search_r1_row_has_an_answer_score_only(tmp_path: Path, cli: Run) -> None:
    response = RESPONSE.replace("Doc 1<## Title: Tosca ##>", 'Doc 1(Title: "Tosca")')
    row = {"output": response, "golden_answers": ["Puccini"]}
    (found,) = printed(cli("score", write(tmp_path / "r.jsonl", [row]), "--json"))
    assert (found["score"], found["search_key_score"], found["step_scores"]) == (1.0, 0.0, [0.0])


def test_several_responses_of_one_row(tmp_path: Path, cli: Run) -> None:
    file = write(tmp_path / "r.jsonl", [rollout(response=None, responses=[RESPONSE, "", RESPONSE]), rollout()])
    assert cli("score", file, "--quiet").returncode == 0
    found = pq.read_table(default_output(file)).to_pylist()
    assert [(row["position"], row["sample"]) for row in found] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert [row["answer"] for row in found] == ["Puccini", None, "Puccini", "Puccini"]


BAD: list[tuple[Any, str]] = [
    ("no json", "Invalid JSON"),
    ('{"response": "\\ud800", "target": ["x"]}', "Invalid JSON"),
    ([1, 2], "should be an object"),
    (rollout(response=None), "responses: Field required"),
    (rollout(response=7), "responses"),
    (rollout(target=None), "target: Field required"),
    (rollout(target=[]), "target"),
    (rollout(target=[1952]), "target.0: Input should be a valid string"),
    (rollout(search_keys="tosca"), "search_keys"),
    (rollout(search_keys=[["a", 1]]), "search_keys.0.1"),
    (rollout(support_docs={"paragraph_text": "x"}), "support_docs"),
    (rollout(support_docs=[{"title": "Tosca"}]), "support_docs.0.paragraph_text"),
    (rollout(response=None, responses=[]), "responses"),
]


def test_what_is_no_rollout_is_rejected_with_a_reason(tmp_path: Path, cli: Run) -> None:
    rows = [rollout(), *(row for row, _ in BAD), "", rollout()]
    file = write(tmp_path / "r.jsonl", rows)
    done = cli("score", file)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert f"{len(BAD)} rows could not be scored" in done.stderr
    found = pq.read_table(tmp_path / "r.scores.parquet").to_pylist()
    assert [row["position"] for row in found] == [1, len(BAD) + 3]
    rejects = [json.loads(line) for line in (tmp_path / "r.scores.rejects.jsonl").read_text().splitlines()]
    assert [reject["position"] for reject in rejects] == list(range(2, len(BAD) + 2))
    for reject, (row, reason) in zip(rejects, BAD, strict=True):
        assert reason in reject["reason"], reject
        assert reject["raw"] == (row if isinstance(row, str) else json.dumps(row))
        assert (reject["stage"], reject["source"]) == ("score", str(file))
    again = cli("score", file, "--json")
    assert again.returncode == 3
    assert len(printed(again)) == 2
    write(file, [rollout()])
    assert cli("score", file).returncode == 0
    assert not (tmp_path / "r.scores.rejects.jsonl").exists()  # of an earlier run


@pytest.mark.parametrize("options", [["."], ["/"], ["--answers", "."], ["r.jsonl", "--output", "."]])
def test_a_folder_without_a_name_is_no_file(options: list[str], cli: Run) -> None:
    done = cli("score", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: \S+ is a folder, not a file\n", done.stderr)


def test_a_parquet_row_that_is_no_text_is_rejected_and_the_others_are_scored(tmp_path: Path, cli: Run) -> None:
    table = pa.Table.from_pylist([rollout(), rollout(), rollout()])
    broken = pa.array([RESPONSE.encode(), b"\xff", RESPONSE.encode()], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("response"), "response", broken), tmp_path / "r.parquet")
    done = cli("score", tmp_path / "r.parquet")
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert [row["position"] for row in pq.read_table(tmp_path / "r.scores.parquet").to_pylist()] == [1, 3]
    (reject,) = (json.loads(line) for line in (tmp_path / "r.scores.rejects.jsonl").read_text().splitlines())
    assert (reject["position"], reject["reason"][:26]) == (2, "the row cannot be read: 'u")


def test_the_answers_of_a_file_as_parquet(tmp_path: Path, cli: Run) -> None:
    rows = [{"prediction": "Puccini", "answers": ["puccini"]}, {"prediction": None}, {"prediction": "x", "answers": []}]
    done = cli("score", "--answers", write(tmp_path / "a.jsonl", rows), "-o", tmp_path / "out.parquet")
    assert done.returncode == 3
    (found,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert found == {"position": 1, "musique_em": 1, "musique_f1": 1.0, "hotpotqa_em": 1, "hotpotqa_f1": 1.0}
    assert len((tmp_path / "out.rejects.jsonl").read_text().splitlines()) == 2


def test_answers_and_rollouts_of_one_file_have_outputs_of_their_own(tmp_path: Path) -> None:
    """So do the rows that are no answers, where the answers are printed."""
    file = write(tmp_path / "r.jsonl.gz", [])
    outputs = [default_output(file, kind) for kind in TABLES]
    assert [path.name for path in outputs] == ["r.scores.parquet", "r.answer-scores.parquet"]
    file = write(tmp_path / "r.jsonl", [{"prediction": None}])
    score_file(file, Scorer("answers"), None, workers=1, reporter=Reporter(quiet=True))
    assert names(tmp_path) == ["r.answer-scores.rejects.jsonl", "r.jsonl", "r.jsonl.gz"]


def test_a_link_in_the_place_of_unfinished_rejects_is_not_followed(tmp_path: Path, cli: Run) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".r.scores.rejects.jsonl.part").symlink_to(tmp_path / "mine")
    (tmp_path / "r.jsonl").write_text("no JSON\n")
    cli("score", tmp_path / "r.jsonl")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "r.scores.rejects.jsonl").is_symlink()


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "rejects"])
def test_what_is_no_regular_file_is_not_replaced(kind: str, tmp_path: Path, cli: Run) -> None:
    file = write(tmp_path / "r.jsonl", [rollout(), "no json"])
    special = tmp_path / ("out.rejects.jsonl" if kind == "rejects" else "out")
    {"device": lambda: special.symlink_to("/dev/null"), "folder": special.mkdir}.get(kind, lambda: os.mkfifo(special))()
    before = os.lstat(special)
    done = cli("score", file, "-o", tmp_path / "out.parquet" if kind == "rejects" else special)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: cannot write {special}: it is not a regular file\nhint: for a stream of JSON lines: --json\n"
    )
    assert os.path.samestat(os.lstat(special), before)
    assert names(tmp_path) == sorted(["r.jsonl", special.name])


def test_a_switch_is_set(tmp_path: Path, cli: Run) -> None:
    file = write(tmp_path / "r.jsonl", [rollout()])
    (found,) = printed(cli("score", file, "--json", "--set", "key_weight=0.5", "--set", "redundancy_penalty=false"))
    assert found["score"] == 1.5
    assert configure("reference", ["decimals=none", "lazy_patterns=no"]).decimals is None
    assert configure("paper", []) is not REFERENCE
    assert configure("paper", []) == PAPER
    for setting, reason in (
        ("key_weight", "expected NAME=VALUE"),
        ("no_such=1", "expected NAME=VALUE"),
        ("key_weight=high", "valid number"),
        ("key_weight=nan", "finite"),
        ("key_reward=7", "boolean"),
    ):
        with pytest.raises(ConfigError, match=reason):
            configure("paper", [setting])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "expected one: a file"),
        (["r.jsonl", "--answers", "r.jsonl"], 2, "expected one: a file"),
        (["r.jsonl", "--store", "nowhere"], 2, "expected one: a file"),
        (["--answers", "r.jsonl", "--store", "nowhere"], 2, "expected one: a file"),
        (["r.jsonl", "--json", "-o", "x.parquet"], 2, "leave one out"),
        (["r.jsonl", "--set", "lambda=1"], 2, "NAME is one of"),
        (["--answers", "r.jsonl", "--set", "decimals=4"], 2, "no switches"),
        (["r.jsonl", "--preset", "mine"], 2, "paper"),
        (["absent.jsonl"], 1, "cannot read"),
        (["absent.parquet"], 1, "cannot read"),
        (["empty.jsonl"], 1, "is empty"),
        (["\udcff.jsonl"], 1, "cannot read"),  # a name that is no UTF-8
        (["broken.parquet"], 1, "cannot read"),
        (["r.jsonl", "-o", "r.jsonl"], 2, "would be written too"),
        (["r.rejects.jsonl", "-o", "r.parquet"], 2, "would be written too"),
        (["r.jsonl", "-o", "nowhere/out.parquet"], 1, "cannot write"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    arguments: list[str], code: int, said: str, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "r.jsonl", [rollout()])
    write(tmp_path / "r.rejects.jsonl", [rollout()])
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    before = names(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = cli("score", *arguments)
    assert done.returncode == code, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == before


def test_a_file_that_breaks_off_keeps_what_precedes(tmp_path: Path, cli: Run) -> None:
    file = tmp_path / "r.jsonl.gz"
    packed = gzip.compress("\n".join(json.dumps(rollout(id=str(n))) for n in range(5000)).encode(), mtime=0)
    file.write_bytes(packed[: len(packed) // 2])
    done = cli("score", file, "--json", "--workers", "1")
    assert done.returncode == 3
    assert 0 < len(printed(done)) < 5000
    assert "cannot be read any further" in (tmp_path / "r.scores.rejects.jsonl").read_text()


def test_many_processes_give_the_same_bytes_in_the_same_order(tmp_path: Path) -> None:
    rows = [rollout(id=str(n), response=RESPONSE + "x" * (n % 3)) if n % 97 else "no json" for n in range(2_000)]
    file = write(tmp_path / "r.jsonl", rows)
    outputs = []
    for workers in (1, 2):
        output = tmp_path / f"{workers}.parquet"
        report = score_file(file, Scorer("rollouts"), output, workers=workers, reporter=Reporter(quiet=True))
        assert (report.scored, report.rejected) == (1979, 21)
        assert report.means()["format_ok"] == pytest.approx(sum(n % 3 == 0 and n % 97 > 0 for n in range(2_000)) / 1979)
        outputs.append((output.read_bytes(), rejects_of(output).read_bytes()))
    assert outputs[0] == outputs[1]
    found = pq.read_table(output)
    assert found["position"].to_pylist() == [n + 1 for n in range(2_000) if n % 97]


def test_ctrl_c_ends_it_and_leaves_nothing_half(tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", [rollout(response=RESPONSE * 20)] * 20_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "stepsearch_data", "score", file, "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / ".r.scores.parquet.part").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to workers too
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "interrupted"
    assert names(tmp_path) == ["r.jsonl"]


def test_the_gold_trajectories_of_a_store(sample_store: Path, tmp_path: Path, cli: Run) -> None:
    """The documented way: SQL, then `score`."""
    (query,) = re.findall(r"^```sql\n(.*?)^```", (ROOT / "docs" / "rewards.md").read_text(), re.MULTILINE | re.DOTALL)
    gold = tmp_path / "gold.parquet"
    told = cli("sql", "-", "--store", sample_store, "-f", "parquet", "-o", gold, stdin=query)
    assert told.returncode == 0, told.stderr
    done = cli("score", gold, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = pq.read_table(tmp_path / "gold.scores.parquet").to_pylist()
    assert len(found) == pq.read_metadata(gold).num_rows > 0
    assert all(row["format_ok"] and row["answer_em"] == 1 and row["search_key_score"] == 1 for row in found)
    assert all(len(row["information_gain"]) == row["rounds"] for row in found)
    assert sum(sum(row["information_gain"]) for row in found) / len(found) > 0.9


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, with its gold trajectories as rollouts of a policy, and for every second question a blind one."""
    folder = tmp_path_factory.mktemp("kept")
    store = build(folder / "store")
    gold = [{"id": each.question_id, "response": each.rollout} for each in ssd.load_trajectories(store.root)]
    blind = [{**each, "response": "<think> hm </think>\n<answer> nobody </answer>"} for each in gold[::2]]
    (folder / "gold.jsonl").write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in [*gold, *blind]))
    return build(folder / "store", f'rollouts.policies=["gold={folder / "gold.jsonl"}"]').root


def test_the_rollouts_that_a_store_keeps_are_scored_as_rows_of_a_file(keeping: Path, tmp_path: Path, cli: Run) -> None:
    done = cli("score", "--store", keeping, "--preset", "reference", "-o", tmp_path / "out.parquet", "--workers", "1")
    assert done.returncode == 0, done.stderr
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    store = ssd.open(keeping)
    held = store.table("rollouts").collect().to_dicts()
    key = ("policy", "question_id", "sample")
    assert [(row["policy"], row["id"], row["sample"]) for row in found] == [tuple(row[n] for n in key) for row in held]
    assert [row["position"] for row in found] == [*range(1, len(held) + 1)]
    trajectories = {each.question_id: each for each in store.trajectories()}
    golds = dict(store.table("questions").select("question_id", "supporting").collect().iter_rows())
    for row, own in zip(found, held, strict=True):
        each = trajectories[own["question_id"]]
        searched = [[step.query, *step.alternatives] for step in each.rounds if step.role != "distractor"]
        fields = {"response": own["response"], "answer": each.answer, "answer_aliases": each.answer_aliases}
        against = {"search_keys": searched, "support_docs": golds[each.question_id]}
        (alone,) = ssd.score([{**fields, **against}], "reference").to_pylist()
        same = {"position", "sample", "policy", "id", "data_source"}
        assert {name: row[name] for name in row.keys() - same} == {name: alone[name] for name in alone.keys() - same}
    assert {row["answer_em"] for row in found if row["sample"] == 2} == {0}
    lines = printed(cli("score", "--store", keeping, "--preset", "reference", "--json"))
    shown = ("id", "policy", "sample", "score")
    assert [[each[name] for name in shown] for each in lines] == [[row[name] for name in shown] for row in found]


def test_a_store_without_rollouts_and_a_place_inside_of_one_are_refused(
    sample_store: Path, keeping: Path, cli: Run
) -> None:
    nothing = cli("score", "--store", sample_store)
    assert (nothing.returncode, nothing.stderr.split(" keeps ")[1][:11]) == (1, "no rollouts")
    inside = cli("score", "--store", keeping, "-o", keeping / "x.parquet")
    assert (inside.returncode, "it lies in the store" in inside.stderr) == (1, True)
    assert not (keeping / "x.parquet").exists()


def test_a_file_is_scored_also_where_a_variable_names_a_store(keeping: Path, tmp_path: Path, cli: Run) -> None:
    (tmp_path / "rollouts.jsonl").write_bytes(orjson.dumps({"response": "<answer> a </answer>", "target": "a"}))
    (row,) = printed(cli("score", tmp_path / "rollouts.jsonl", "--json", env={"STEPSEARCH_STORE": str(keeping)}))
    assert row["score"] == 0  # in the paper's rewards, as it is not in the paper's format
    both = cli("score", tmp_path / "rollouts.jsonl", "--store", keeping)
    assert (both.returncode, both.stderr.startswith("error: expected one")) == (2, True)


def test_null_stands_for_absent() -> None:
    row = RolloutRow.model_validate(
        {"response": None, "output": "x", "target": None, "gts": "y", "extra_info": None, "reward_model": None}
    )
    assert (row.responses, row.target, row.search_keys, row.support_docs) == (["x"], ["y"], [], [])


NAMES = [
    *(*READ, "prediction", "answers"),
    *("role", "content", "text", "tool_calls", "tool_call_id", "function", "name", "arguments"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=12,
)
calls = st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "function", "name", "arguments"), json_values))
said = st.fixed_dictionaries(
    {"role": st.sampled_from(["assistant", "tool", "user", [], {}])},
    optional={"content": json_values, "tool_call_id": json_values, "tool_calls": json_values | st.lists(calls)},
)
conversations = st.fixed_dictionaries({"target": st.just("x"), "messages": st.lists(said, min_size=1, max_size=4)})


@given(st.binary() | st.dictionaries(st.sampled_from(NAMES), json_values) | conversations)
def test_any_row_is_scored_or_rejected(data: bytes | Row) -> None:
    for kind in TABLES:
        scored = Scorer(kind, REFERENCE).score([Record(1, data)])
        assert scored.read == 1
        assert bool(scored.rows) != bool(scored.rejects)
        assert all(reject.reason for reject in scored.rejects)


@pytest.mark.parametrize("kind", TABLES)
def test_every_column_has_a_meaning(kind: Kind) -> None:
    assert all(field.metadata[b"description"] for field in TABLES[kind].schema)
