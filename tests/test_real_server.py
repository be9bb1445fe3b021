"""A real OpenAI-compatible server that is not ours: `transformers serve` with a tiny random Llama.

Random text is not JSON, so no build can succeed: the tests check that everything ends as it should.
`make test-train` installs what this needs.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.conftest import Run

_NEEDED = ("torch", "transformers", "fastapi", "uvicorn")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}: make test-train installs it"),
]

_MAKE = """
import sys
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
letters = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
core = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
core.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")
tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\\n{% endfor %}assistant:"
tokenizer.save_pretrained(sys.argv[1])
size = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
config = LlamaConfig(
    vocab_size=len(letters), max_position_embeddings=16384, bos_token_id=0, eos_token_id=1, pad_token_id=1, **size
)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of 30,000 random parameters that reads and writes bytes."""
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, "-c", _MAKE, folder], check=True, timeout=300, capture_output=True)
    return str(folder)


@pytest.fixture(scope="module")
def server(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server that has the model loaded."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", str(model)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    with open(folder / "log", "wb") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-3000:]}")


def test_doctor_examines_a_real_server(server: str, model: str, cli: Run) -> None:
    result = cli("doctor", "--llm", model, env={"OPENAI_BASE_URL": server, "OPENAI_API_KEY": ""})
    assert result.returncode == 0, result.stderr
    assert "tokens: " in result.stdout
    assert "Traceback" not in result.stderr


def test_a_model_that_babbles_is_rejected_with_reasons(server: str, model: str, cli: Run, tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = ["build", "--store", store, "--llm", model, "--limit", "1", "--set", "run.max_reject_share=1"]
    command += ["--set", "decompose.max_tokens=32", "--set", f"llm.replay={tmp_path / 'replay.sqlite'}"]
    env = {"OPENAI_BASE_URL": server, "OPENAI_API_KEY": ""}
    result = cli(*command, env=env)
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    found = cli("sql", "SELECT stage, reason, raw FROM rejects", "--store", store, "-f", "jsonl")
    rejects = [orjson.loads(line) for line in found.stdout.splitlines()]
    assert {row["stage"] for row in rejects} == {"decompose"}
    assert all("(after 3 replies)" in row["reason"] and row["raw"] for row in rejects)
    calls = [orjson.loads(line) for line in (store / "log" / "llm_calls.jsonl").read_bytes().splitlines()]
    assert len(calls) == 3 * len(rejects)
    assert all(call["prompt_tokens"] and call["completion_tokens"] and not call["cached"] for call in calls)

    again = cli(*command, "--stage", "decompose", "--force", env=env)
    assert again.returncode == 3, again.stderr
    repeated = (store / "log" / "llm_calls.jsonl").read_bytes().splitlines()[len(calls) :]
    assert all(orjson.loads(line)["cached"] for line in repeated)
    assert len(repeated) == len(calls)


def test_by_default_a_model_that_babbles_stops_the_build(server: str, model: str, cli: Run, tmp_path: Path) -> None:
    command = ["build", "--store", tmp_path / "store", "--llm", model, "--limit", "1"]
    command += ["--set", "decompose.max_tokens=32", "--set", f"llm.replay={tmp_path / 'replay.sqlite'}"]
    result = cli(*command, env={"OPENAI_BASE_URL": server, "OPENAI_API_KEY": ""})
    assert result.returncode == 1
    assert "rows of musique were rejected" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("how", [(), ("--raw",)])
def test_a_policy_that_babbles_is_evaluated(
    server: str, model: str, cli: Run, sample_store: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    asked = ["--store", sample_store, "--split", "train", "-n", "1", "--turns", "1", "--max-tokens", "12", *how]
    command = ["eval", "--llm", model, "--base-url", server, *asked, "--output", tmp_path / "out", "--json"]
    result = cli(*command, env={"OPENAI_API_KEY": ""})
    assert result.returncode == 0, result.stderr
    found = orjson.loads(result.stdout)
    assert found["all"]["all"]["em"] == 0
    assert found["usage"]["calls"] == 4
    assert 0 < found["all"]["all"]["own_tokens"] <= 24
    assert "note: none of the 2 rollouts ends with an answer" in result.stderr

    again = cli(*command, env={"OPENAI_API_KEY": ""})
    assert orjson.loads(again.stdout)["usage"]["calls"] == 0
