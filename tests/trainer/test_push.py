"""A training that publishes its policy at the end, on a Hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")
pytest.importorskip("huggingface_hub", "2", reason="needs the Hub's client of the extra hub")

from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import run_cli
from tests.hub_server import Hub, User, running_hub
from tests.trainer.test_launch import LORA, recipe  # noqa: F401 - a fixture

TOKEN = "hf_thisIsASecretThatNobodyMaySee"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        server.users[TOKEN] = User("ann")
        yield server


def train(hub: Hub, token: str, folder: Path, *arguments: str | Path) -> tuple[int, str, str]:
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder)}
    done = run_cli(
        "train", *arguments, "--push-to-hub", "ann/policy", "--quiet", env={**environment, "OMP_NUM_THREADS": "1"}
    )
    assert token not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_trained_policy_is_published_whole(recipe: Path, store: Path, hub: Hub, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    """Also adapters on a cold start, which are merged into it: nobody else has that. A new repository is private."""
    given = ("--config", recipe, "--store", store, "--output", tmp_path / "run", "--set", LORA)
    code, out, err = train(hub, TOKEN, tmp_path / "home", *given)
    assert code == 0, err
    assert not err
    assert out.splitlines() == [
        str(tmp_path / "run" / "checkpoint-000002"),
        f"{hub.endpoint}/ann/policy/tree/main",
        'AutoModelForCausalLM.from_pretrained("ann/policy")',
    ]
    repository = hub.repositories["models/ann/policy"]
    assert repository.token == TOKEN
    (tmp_path / "pulled").mkdir()
    for name, data in repository.head.items():
        assert str(tmp_path).encode() not in data, name
        (tmp_path / "pulled" / name).write_bytes(data)
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "pulled")
    cold = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "cold-start")
    assert policy.num_parameters() == cold.num_parameters()
    pairs = zip(policy.parameters(), cold.parameters(), strict=True)
    assert not all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "pulled"))


def test_where_nothing_can_be_published_nothing_is_trained(
    recipe: Path,  # noqa: F811 - the fixture
    store: Path,
    hub: Hub,
    tmp_path: Path,
) -> None:
    """Files of somebody else: in the folder that is to be sent, or in the repository."""
    given = ("--config", recipe, "--store", store, "--output", tmp_path / "run")
    (tmp_path / "run.policy").mkdir()
    code, out, err = train(hub, TOKEN, tmp_path / "home", *given)
    assert (code, out, "run.policy holds something else than a policy" in err) == (2, "", True)
    hub.repository("models/ann/policy").commit({"model.safetensors": b"another"})
    code, out, err = train(hub, TOKEN, tmp_path / "home", *given)
    assert (code, out, "holds data that no release wrote: model.safetensors" in err) == (1, "", True)
    assert not (tmp_path / "run").exists()


def test_who_may_not_publish_does_not_train(recipe: Path, store: Path, hub: Hub, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    given = ("--config", recipe, "--store", store, "--output", tmp_path / "run")
    code, out, err = train(hub, "hf_ofNobodyWhoIsKnownToTheHub", tmp_path / "home", *given)
    assert (code, out) == (1, "")
    assert "the Hub does not accept the token" in err
    assert not (tmp_path / "run").exists()
