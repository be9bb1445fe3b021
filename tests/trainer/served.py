"""One of several processes that train by one server of vLLM, a stand-in, which the first of them holds.

    served.py FOLDER MODEL FAILS COMMAND …

The folder gets the server's address, and at the end `asked.json`, what it was asked for. It refuses the weights of that
batch; 0: of none.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from trl.generation.vllm_client import VLLMClient

from stepsearch_data.cli import main
from tests.fake import Asked, FakeServer, fault
from tests.trainer.test_vllm import Server

ADDRESS = "address"
_join = VLLMClient.init_communicator


def join(client: VLLMClient, device: object) -> None:
    """TRL would send weights between GPUs only."""
    assert str(device).startswith("cpu")
    _join(client, "cuda")


@contextmanager
def serving(folder: Path, model: str, fails: int) -> Iterator[None]:
    """Serve the stand-in's engine."""
    vllm: Any = import_module("vllm")
    engine = vllm.LLM(model, enable_sleep_mode=False, logprobs_mode="processed_logprobs")
    server = Server(engine, vllm.sent, 4096, "processed_logprobs")

    def answer(asked: Asked) -> object:
        if server.asked.count("/start_weight_update") == fails and asked.path == "/update_weights":
            return fault(400, "no weights any more")
        return server.answer(asked.path, asked.body or {})

    with FakeServer(answer) as fake:
        (folder / "part").write_text(fake.url)
        (folder / "part").rename(folder / ADDRESS)
        try:
            yield
        finally:
            (folder / "asked.json").write_text(json.dumps(server.asked))


if __name__ == "__main__":
    folder, model, fails = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    del sys.argv[1:4]
    VLLMClient.init_communicator = join
    with serving(folder, model, fails) if os.environ["RANK"] == "0" else nullcontext():
        while not (folder / ADDRESS).exists():
            time.sleep(0.05)
        sys.argv += ["--set", f"vllm.server_base_url={(folder / ADDRESS).read_text()}"]
        main()
