"""`eval` with real servers and a real index: what it measures, keeps, and says when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepsearch_data.core.errors import StepSearchError, StoreError
from stepsearch_data.indexes import Choice
from tests.conftest import Run
from tests.evaluation.conftest import ALL, KEY, Ask, Row, Server, rollouts, whole
from tests.evaluation.policies import GoldPolicy
from tests.llm_server import LlmServer, error
from tests.rows import hotpotqa, two_wiki, write_lines
from tests.search_servers import Page, SearchServer

DEAD = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def gold(sample_store: Path) -> GoldPolicy:
    """A policy that knows the sample's training split."""
    return GoldPolicy(sample_store)


def test_the_gold_policy_is_right_and_finds_what_it_needs(ask: Ask, gold: GoldPolicy, tmp_path: Path) -> None:
    server = gold.server()
    report = ask(server, **ALL)
    asked = len(server.requests)
    found, rows = whole(report), rollouts(tmp_path / "out")
    assert (found["em"], found["f1"], found["format_errors"], found["ended"]["answer"]) == (1, 1, 0, 1)
    assert found["support_recall"] > 0.9
    assert found["questions"] == len(rows) == len({row["id"] for row in rows}) > 20
    assert found["searches"] * len(rows) == asked - len(rows) == report.usage["calls"] - len(rows)
    assert {(row["data_source"], row["hops"]) for row in rows} >= {("musique", 2), ("hotpotqa", 2)}
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == {"settings": report.settings, **report.measures, "usage": report.usage}


def test_score_reads_the_rollouts_and_agrees(ask: Ask, cli: Run, gold: GoldPolicy, tmp_path: Path) -> None:
    def half_right(request: Row) -> str:
        text = gold(request)
        return text.replace("<answer>", "<answer> perhaps") if len(request["messages"][0]["content"]) % 2 else text

    found = whole(ask(LlmServer(half_right), **ALL))
    scored = cli("score", tmp_path / "out" / "rollouts.jsonl", "--json")
    assert scored.returncode == 0, scored.stderr
    rewards = [json.loads(line) for line in scored.stdout.splitlines()]
    rows = rollouts(tmp_path / "out")
    closed = {at for at, row in enumerate(rows) if row["target"][0] in {"yes", "no"}}  # HotpotQA's rule for these
    assert [reward["answer_correct"] for at, reward in enumerate(rewards) if at not in closed] == pytest.approx(
        [row["f1"] for at, row in enumerate(rows) if at not in closed]
    )
    assert {row["em"] == row["f1"] for at, row in enumerate(rows) if at in closed} == {True}
    assert 0 < found["em"] < 1
    assert all(reward["search_key_score"] == 1 for reward in rewards)
    gains = sum(sum(reward["information_gain"]) for reward in rewards)
    assert gains / len(rewards) == pytest.approx(found["support_recall"], abs=0.1)


def test_a_raw_policy_sees_and_writes_one_text(ask: Ask, gold: GoldPolicy, tmp_path: Path) -> None:
    server = gold.server()
    chat = whole(ask(server))
    raw = whole(ask(server, raw=True, output=tmp_path / "raw"))
    assert {**raw, "own_tokens": 0} == {**chat, "own_tokens": 0}
    texts = [[row["response"] for row in rollouts(tmp_path / name)] for name in ("out", "raw")]
    assert texts[0] == texts[1]


# ---- going on


def test_what_was_written_is_not_asked_again(ask: Ask, gold: GoldPolicy, tmp_path: Path) -> None:
    server = gold.server()
    first = ask(server)
    asked = len(server.requests)
    again = ask(server)
    assert len(server.requests) == asked
    more = ask(server, limit=6)
    assert whole(first) == whole(again)
    assert whole(more)["questions"] == len(rollouts(tmp_path / "out")) == 12


def test_questions_with_one_id_are_not_confused(ask: Ask, tmp_path: Path) -> None:
    """Two files may number theirs alike, and one may hold a question twice."""
    for name, rows in {"a": ("Who?", "Who?"), "b": ("Where?",)}.items():
        lines = [json.dumps({"id": "1", "question": text, "answer": f"{name} {at}"}) for at, text in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = tuple(f"bamboogle={tmp_path / name}.jsonl" for name in "ab")
    server = LlmServer(lambda _: "<answer> b 0")
    first = ask(server, questions=files)
    asked = len(server.requests)
    again = ask(server, questions=files)
    assert len(server.requests) == asked
    assert whole(again) == whole(first)
    assert (whole(first)["questions"], whole(first)["em"]) == (3, pytest.approx(1 / 3))


def test_a_server_that_breaks_down_costs_no_reply_twice(ask: Ask, gold: GoldPolicy, tmp_path: Path) -> None:
    server = gold.server()
    ask(server, batch=3, output=tmp_path / "other")
    needed = len(server.requests)
    answered: list[Row] = []

    def breaks(request: Row) -> Any:
        if len(answered) == 22:
            return error(401, "Incorrect API key provided")
        answered.append(request)
        return gold(request)

    server = LlmServer(breaks)
    with pytest.raises(StepSearchError, match="refuses the key"):
        ask(server, batch=3)
    done = rollouts(tmp_path / "out")
    with (tmp_path / "out" / "rollouts.jsonl").open("a") as file:
        file.write('{"id": "cut o')
    server.answer, server.requests = gold, []
    assert whole(ask(server, batch=3))["em"] == 1
    assert len(server.requests) == needed - len(answered)
    rows = rollouts(tmp_path / "out")
    assert rows[:3] == done
    assert len({row["id"] for row in rows}) == len(rows) == 8


def test_refused_rollouts_are_wrong_and_tried_again(ask: Ask, gold: GoldPolicy, tmp_path: Path) -> None:
    def refuses(request: Row) -> Any:
        return error(400, "content policy") if "Tasmania" in str(request["messages"][0]) else gold(request)

    server = LlmServer(refuses)
    refused = ask(server)
    assert [*refused.refused.values()] == [1]
    assert "content policy" in next(iter(refused.refused))
    assert whole(refused)["em"] == 1 - whole(refused)["ended"]["refused"] == 7 / 8
    server.answer = gold
    again = ask(server)
    assert whole(again)["em"] == 1
    assert not again.refused
    assert len(rollouts(tmp_path / "out")) == 8


def test_a_folder_holds_one_evaluation(ask: Ask, gold: GoldPolicy) -> None:
    server = gold.server()
    ask(server)
    with pytest.raises(StepSearchError, match=r"holds another evaluation: temperature 0\.0 → 1\.0") as refused:
        ask(server, temperature=1.0)
    assert refused.value.hint == "name another folder with --output"


def test_without_a_folder_nothing_is_kept(ask: Ask, gold: GoldPolicy, tmp_path: Path) -> None:
    server = gold.server()
    measured = [whole(ask(server, output=None)) for _ in range(2)]
    assert measured[0] == measured[1]
    assert len(server.requests) == 2 * 8 + 2 * measured[0]["searches"] * 8
    assert not list(tmp_path.iterdir())


# ---- other questions, other engines


def test_official_files_with_a_retrieval_server_and_no_store(ask: Ask, gold: GoldPolicy, tmp_path: Path) -> None:
    def one_search(request: Row) -> str:
        return gold(request) if len(request["messages"]) == 1 else "<answer> Lodi"

    with SearchServer("http", lambda query: [Page("T", f"about {query}")]) as engine:
        elsewhere = ("engines.use=['http']", f"engines.http.url='{engine.url}'")
        files = ("musique=sample", "hotpotqa=sample")
        nowhere = Choice(store=tmp_path / "none")
        report = ask(LlmServer(one_search), *elsewhere, questions=files, choice=nowhere, limit=3)
        assert len(engine.queries) == 6
    assert report.measures["by_source"].keys() == {"musique", "hotpotqa"}
    assert (whole(report)["searches"], whole(report)["support_recall"]) == (1, 0)
    assert rollouts(tmp_path / "out")[0]["searches"][0]["titles"] == ["T"]
    assert report.settings["engine"]["url"] == engine.url


BAMBOOGLE = {
    "bamboogle.csv": '\ufeffQuestion,Answer\n"Who, then?",Ada\nWhere?,Lodi\n',
    "bamboogle.json": '[{"Question": "Who, then?", "Answer": "Ada"}, {"Question": "Where?", "Answer": "Lodi"}]',
    "bamboogle.jsonl": '{"id": 1, "question": "Who, then?", "golden_answers": ["Ada"]}\n'
    '{"id": 2, "question": "Where?", "golden_answers": ["Lodi"]}\n',
}


@pytest.mark.parametrize("name", BAMBOOGLE)
def test_bamboogle_in_all_its_forms(ask: Ask, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(BAMBOOGLE[name], encoding="utf-8")
    report = ask(LlmServer(lambda _: "<answer> Ada"), questions=(f"bamboogle={file}",))
    rows = rollouts(tmp_path / "out")
    assert [row["question"] for row in rows] == ["Who, then?", "Where?"]
    assert [(row["em"], row["hops"], row["data_source"]) for row in rows] == [(1, 2, "bamboogle"), (0, 2, "bamboogle")]
    assert whole(report)["support_recall"] is None


@pytest.mark.parametrize("beside", [True, False])
def test_two_wikis_other_names_are_right_answers(ask: Ask, tmp_path: Path, *, beside: bool) -> None:
    """As the official script takes them from `id_aliases.json`; another table is another evaluation."""
    file = write_lines(tmp_path / "dev.json", [two_wiki("a", answer_id="Q13362"), two_wiki("b", answer_id="Q1")])
    table = tmp_path / ("id_aliases.json" if beside else "table.jsonl")
    write_lines(table, [{"Q_id": "Q13362", "aliases": ["Pisaurum"], "demonyms": ["Pesarese"]}, {"Q_id": "Q1"}, b"{"])
    settings = () if beside else (f"load.id_aliases='{table}'",)
    server = LlmServer(lambda _: "<answer> the Pesarese")
    report = ask(server, *settings, questions=(f"2wiki={file}",))
    write_lines(table, [{"Q_id": "Q13362", "aliases": ["Pisaurum"], "demonyms": []}])
    with pytest.raises(StepSearchError, match="holds another evaluation: digest"):
        ask(server, *settings, questions=(f"2wiki={file}",))
    rows = rollouts(tmp_path / "out")
    assert [(row["target"], row["em"]) for row in rows] == [(["Pesaro", "Pisaurum", "Pesarese"], 1), (["Pesaro"], 0)]
    assert [reject.partition(": Invalid")[0] for reject in report.rejects] == [f"{file}, row 3: {table}"]


def test_a_question_and_an_answer_are_all_that_is_needed(ask: Ask, tmp_path: Path) -> None:
    """HotpotQA's fullwiki file holds what was retrieved, FlashRAG's and Search-R1's files no paragraph at all."""
    retrieved = hotpotqa("a", context=hotpotqa("")["context"][:2])
    fullwiki = write_lines(tmp_path / "fullwiki.json", [retrieved, hotpotqa("b")])
    answers = [{"id": "test_0", "question": "Who?", "golden_answers": ["Ada", "Pesaro"], "data_source": "nq"}]
    pq.write_table(pa.Table.from_pylist(answers), tmp_path / "test.parquet")
    files = (f"hotpotqa={fullwiki}", f"qa={tmp_path / 'test.parquet'}")
    report = ask(LlmServer(lambda _: "<answer> Pesaro"), questions=files)
    rows = rollouts(tmp_path / "out")
    assert [(row["id"], row["em"], row["hops"], len(row["support_docs"])) for row in rows] == [
        ("a", 1, 0, 0),
        ("b", 1, 2, 2),
        ("test_0", 1, 0, 0),
    ]
    assert (report.rejects, whole(report)["support_recall"]) == ([], 0)


def test_real_official_rows(ask: Ask, real_sources: list[str]) -> None:
    files = tuple(argument.removeprefix("--source=") for argument in real_sources)
    report = ask(LlmServer(lambda _: "<answer> yes"), questions=files, limit=None)
    counted = {name: part["questions"] for name, part in report.measures["by_source"].items()}
    assert counted == {"musique": 120, "hotpotqa": 120, "2wiki": 98}
    assert report.measures["by_source"]["hotpotqa"]["em"] > 0 == report.measures["by_source"]["musique"]["em"]


# ---- what can be wrong


@pytest.mark.parametrize(
    ("turns", "note"),
    [
        (("Hm.", "Hm."), "none of the 8 rollouts ends with an answer (100% no answer): look at some of them"),
        (("<answer> Lodi",), "the policy never searches: is it told to by its --template?"),
        (("<search> zzz", "<answer> Lodi"), "the search engine found nothing at all: is it the right index?"),
        (("<search> opera", "<answer> Lodi"), None),
    ],
)
def test_a_collapsed_policy_and_a_wrong_index_are_told_of(ask: Ask, turns: tuple[str, ...], note: str | None) -> None:
    report = ask(LlmServer(lambda request: turns[len(request["messages"]) // 2]), lengths={"max_turns": 1})
    assert report.notes() == ([note] if note else [])


def test_a_row_that_cannot_be_asked_is_told_of(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_text('{"Question": "Who?", "Answer": "Ada"}\n{"Question": "Where?"}\nnothing\n')
    report = ask(LlmServer(lambda _: "<answer> Ada"), questions=(f"bamboogle={file}",))
    assert whole(report)["questions"] == 1
    assert [reject.split(": ")[:2] for reject in report.rejects] == [
        [f"{file}, row 2", "golden_answers"],
        [f"{file}, row 3", "Invalid JSON"],
    ]


def failure(ask: Ask, server: Server, *settings: str, **options: Any) -> tuple[int, str, str]:
    """Exit code, message and hint of an evaluation that fails."""
    with pytest.raises(StepSearchError) as failed:
        ask(server, *settings, **options)
    assert "\n" not in failed.value.message + failed.value.hint
    return failed.value.exit_code, failed.value.message, failed.value.hint


def test_a_wrong_key_is_told_of_and_not_repeated(ask: Ask, tmp_path: Path) -> None:
    server = LlmServer(lambda _: "")
    server.key = "another"
    code, message, hint = failure(ask, server)
    assert (code, hint) == (5, "set OPENAI_API_KEY to a valid key")
    assert "refuses the key (401)" in message
    assert KEY not in message
    assert not any(KEY.encode() in path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_no_key_for_the_real_api(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert failure(ask, "https://api.openai.com/v1")[:2] == (2, "no key for the OpenAI API")
    assert not list(tmp_path.iterdir())


def test_a_budget_stops_it(ask: Ask, gold: GoldPolicy) -> None:
    priced = ("llm.prices={mock = [1000.0, 1000.0]}", "llm.max_cost=0.5", "llm.max_concurrency=1")
    server = gold.server()
    code, message, _ = failure(ask, server, *priced)
    assert len(server.requests) == 4  # 0.12 dollars each; a fifth would pass it
    assert code == 4
    assert message.startswith("the budget of $0.5 is reached")


def test_a_retrieval_server_that_is_down(ask: Ask, gold: GoldPolicy) -> None:
    down = ("engines.use=['http']", "engines.http.url='http://127.0.0.1:9'", "engines.http.max_attempts=1")
    code, message, hint = failure(ask, gold.server(), *down)
    assert code == 1
    assert message.startswith("http does not answer")
    assert "the same command" in hint


@pytest.mark.parametrize(
    ("options", "code", "message", "hint"),
    [
        ({}, 5, f"{DEAD} does not answer", "check the server, then run the same command: what was paid is kept"),
        ({"output": Path("other.json")}, 2, "other.json is not a folder", "name another with --output"),
        ({"split": "test"}, 2, "the store has no split test", "it has train"),
        ({"questions": ("hotpotqa=musique.jsonl",)}, 1, "are in the format of musique", "--questions musique=musique"),
        ({"questions": ("bamboogle=none.csv",)}, 1, "cannot read none.csv", "check the path"),
        ({"questions": ("musique=none.json",)}, 1, "cannot read none.json", "check the path"),
        ({"questions": ("bamboogle=other.json",)}, 1, "other.json holds no question of bamboogle: ", "the right file?"),
        ({"questions": ("trivia=a.json",)}, 2, "--questions trivia=a.json: unknown kind 'trivia'", "bamboogle"),
        ({"tools": ("open",), "template": "musique"}, 2, "the template musique writes tags", "--template tools"),
        ({"tools": ("open",), "raw": True}, 2, "tools are called in a chat", "leave out --raw"),
        ({"tools": ("browse",)}, 2, "there is no tool browse", "known: open, find"),
        ({"reading": {"max_reads": 1}}, 2, "there is nothing to open", "--tools open,find"),
        ({"llm": None, "checkpoint": "made", "tools": ("open",)}, 2, "a checkpoint calls the search alone", "--llm"),
        ({"checkpoint": "some/run"}, 2, "expected one policy", "not both"),
        ({"llm": None, "checkpoint": "./none"}, 2, "./none is not a folder", "config.json"),
        ({"llm": None, "checkpoint": "empty"}, 2, "empty holds no model", "config.json"),
    ],
)
def test_what_cannot_be_evaluated(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Row, code: int, message: str, hint: str
) -> None:
    sample = Path(__file__).resolve().parents[2] / "stepsearch_data" / "data" / "musique.sample.jsonl"
    monkeypatch.chdir(tmp_path)
    Path("musique.jsonl").write_bytes(sample.read_bytes())
    Path("other.json").write_text('[{"text": "nothing"}]')
    Path("empty").mkdir()
    Path("made").mkdir()
    Path("made/config.json").write_text("{}")
    failed = failure(ask, DEAD, **options)
    assert failed[0] == code
    assert message in failed[1]
    assert hint in failed[2]


def test_an_engine_too_many_or_one_that_is_not_built(ask: Ask) -> None:
    assert failure(ask, DEAD, "engines.use=['bm25', 'chargram']")[1].endswith("bm25, chargram are named")
    assert "but no chargram" in failure(ask, DEAD, "engines.use=['chargram']")[1]


def test_a_split_without_questions(ask: Ask, cli: Run, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert cli("build", "--store", store, "--set", "quality.validation=0", "--quiet").returncode == 0
    code, message, _ = failure(ask, DEAD, split="validation", choice=Choice(store=store))
    assert code in {1, 2}
    assert "validation" in message


# ---- the verb


def test_the_table_names_sources_and_hops(cli: Run, gold: GoldPolicy, sample_store: Path, tmp_path: Path) -> None:
    with gold.server() as server:
        served = ("--llm", "mock", "--base-url", server.url, "--store", sample_store, "--split", "train", "-n", "4")
        done = cli("eval", *served, "--output", tmp_path / "out", env={"OPENAI_API_KEY": KEY})
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].split()[:6] == ["answers", "questions", "EM", "95", "%", "F1"]
    assert lines[1].split()[:4] == ["all", "8", "1.000", "1.000–1.000"]
    assert [line.partition("  ")[0] for line in lines[2:5]] == ["hotpotqa", "musique", "hotpotqa, 2 hops"]
    assert lines[-1] == f"wrote {tmp_path / 'out'}"


def test_what_is_wrong_is_on_stderr_and_in_the_exit_code(cli: Run, sample_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_text('{"Question": "Who?", "Answer": "Ada"}\n{"Question": "Where?"}\n')
    with LlmServer(lambda _: error(400, "content policy")) as server:
        served = ("--llm", "mock", "--base-url", server.url, "--store", sample_store)
        done = cli("eval", *served, "--questions", f"bamboogle={file}", "--json", env={"OPENAI_API_KEY": KEY})
    assert done.returncode == 3
    assert json.loads(done.stdout)["all"]["all"]["ended"]["refused"] == 1
    assert done.stderr.splitlines() == [
        "1 rows cannot be asked:",
        f"  {file}, row 2: golden_answers: Field required",
        "1 rollouts were refused; the same command tries them again:",
        "  1 × the server refuses the request (400): content policy",
        "note: none of the 1 rollouts ends with an answer (100% refused): look at some of them",
    ]


@pytest.mark.long
def test_an_interrupted_evaluation_goes_on(gold: GoldPolicy, sample_store: Path, tmp_path: Path) -> None:
    def command(output: str, url: str) -> list[str]:
        served = ["--llm", "mock", "--base-url", url, "--max-concurrency", "1", "--batch", "2", "--json"]
        chosen = ["--store", str(sample_store), "--split", "train", "-n", "4", "--output", str(tmp_path / output)]
        return [sys.executable, "-m", "stepsearch_data", "eval", *served, *chosen]

    environment = {**os.environ, "OPENAI_API_KEY": KEY}
    with gold.server() as server:
        whole = subprocess.run(command("whole", server.url), capture_output=True, check=True, env=environment)
        needed, server.requests, server.delay = len(server.requests), [], 0.05
        with subprocess.Popen(
            command("out", server.url), stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            while len(server.requests) < 12:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        assert (process.returncode, told) == (130, "interrupted; the same command goes on where it stopped\n")
        assert 2 <= len(rollouts(tmp_path / "out")) < 8
        again = subprocess.run(command("out", server.url), capture_output=True, check=True, env=environment)
        assert len(server.requests) <= needed + 1  # the reply that was on its way
    assert json.loads(again.stdout)["all"] == json.loads(whole.stdout)["all"]


WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "trl", "accelerate"):
    sys.modules[name] = None
from stepsearch_data.cli import main
main()
"""


@pytest.mark.long
def test_an_endpoint_needs_no_torch_and_a_checkpoint_says_that_it_does(
    gold: GoldPolicy, sample_store: Path, tmp_path: Path
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        store = ("--store", str(sample_store), "--split", "train", "-n", "4")
        command = [sys.executable, "-c", WITHOUT_TORCH, "eval", *store, *arguments]
        environment = {**os.environ, "OPENAI_API_KEY": ""}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    with gold.server() as server:
        done = run("--llm", "mock", "--base-url", server.url, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["all"]["all"]["em"] == 1
    (tmp_path / "config.json").write_text("{}")
    assert run(str(tmp_path)).stderr.splitlines() == [
        "error: evaluating a checkpoint needs torch",
        "hint: pip install 'stepsearch-data[train]'; an endpoint, with --llm, needs nothing",
    ]


def test_replies_that_cannot_be_kept_are_told_by_an_option_that_moves_them(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "out" / "replies.sqlite").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot open the replay cache") as refused:
        ask(DEAD)
    assert refused.value.hint == "keep them elsewhere: --output DIR"
