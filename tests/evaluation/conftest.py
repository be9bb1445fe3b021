"""The world that the trainer's tests have, and an evaluation of a server's model."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.progress import Reporter
from stepsearch_data.evaluation import endpoint
from stepsearch_data.evaluation.evaluate import Report, evaluate
from stepsearch_data.evaluation.setup import Options
from stepsearch_data.indexes import Choice
from stepsearch_data.llm.service import Llm
from stepsearch_data.pipeline.config import load_config
from stepsearch_data.stages import STAGES
from tests.fake import FakeServer, reach
from tests.release.conftest import hub  # noqa: F401 - a fixture
from tests.trainer.conftest import store  # noqa: F401 - a fixture

Row = dict[str, Any]
KEY = "sk-made-up-123456789abc"
ALL: dict[str, Any] = {"limit": None}
Ask = Callable[..., Report]
Server = FakeServer | str


@pytest.fixture
def ask(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Evaluates the model `mock` of a server, on four training questions of each source, into the folder `out`.

    Texts are settings of the run, names are options.
    """
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def run(server: Server, *settings: str, **options: Any) -> Report:
        url, transport = reach(server)
        monkeypatch.setattr(endpoint, "Llm", partial(Llm, transport=transport))
        own = [f"llm.base_url={url}", "llm.max_attempts=1", *settings]
        known = {"llm": "mock", "split": "train", "limit": 4, "output": tmp_path / "out"}
        asked = Options(**{**known, "choice": Choice(store=sample_store), **options})
        return evaluate(asked, lambda first: load_config(STAGES, None, [*first, *own], {}), Reporter(quiet=True))

    return run


def rollouts(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


def whole(report: Report) -> Row:
    """The measures over all questions."""
    return report.measures["all"]["all"]
