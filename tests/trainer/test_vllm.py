"""Rollouts by vLLM, through TRL's own class; a stand-in is behind it, as vLLM needs a GPU."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from accelerate import Accelerator  # noqa: E402 - torch must be there

from stepsearch_data.pipeline.errors import ConfigError, TrainError  # noqa: E402
from stepsearch_data.trainer.episode import Referee  # noqa: E402
from stepsearch_data.trainer.loading import _prepared  # noqa: E402
from stepsearch_data.trainer.recipe import Model, Vllm  # noqa: E402
from stepsearch_data.trainer.rollout import roll_out  # noqa: E402
from stepsearch_data.trainer.settings import Limits  # noqa: E402
from tests.trainer.tiny import TASKS, retrieve  # noqa: E402

STANDIN = Path(__file__).with_name("standin")
LIMITS = Limits(turns=3, documents=2, total=300, turn=12, observation=60)
Make = Callable[..., Any]


OURS = "stepsearch_data.trainer.vllm"


def forget() -> None:
    """Have the modules imported anew that look for vLLM when they are."""
    for name in list(sys.modules):
        if name == OURS or name.split(".")[0] == "vllm" or name.startswith("trl.generation"):
            del sys.modules[name]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Our module, with the stand-in where TRL looks for vLLM."""
    monkeypatch.syspath_prepend(STANDIN)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # TRL sets them, for good
        monkeypatch.delenv(name)
    forget()
    yield importlib.import_module(OURS)
    forget()


@pytest.fixture
def make(vllm: Any, policy: Any, tokenizer: Any, tmp_path: Path) -> Make:
    """A sampler of a model."""
    policy.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    def made(model: Any, **config: Any) -> Any:
        model.name_or_path = str(tmp_path / "model")
        return vllm.VllmSampler(model, tokenizer, Accelerator(cpu=True), Vllm(**config), LIMITS, 1.0)

    return made


def test_a_batch_is_one_sync_and_one_sleep(make: Make, policy: Any, referee: Referee) -> None:
    """However many turns it has; TRL's own way is a sync, two wakes and a sleep for each."""
    torch.manual_seed(0)
    sampler = make(policy)
    engine = sampler._vllm.llm
    for _ in range(2):
        engine.events.clear()
        episodes = roll_out(TASKS * 2, referee, sampler, retrieve)
        turns = max(episode.turns for episode in episodes)
        assert turns > 2
        assert engine.events == ["wake weights", "load", "wake kv_cache", *["generate"] * turns, "sleep"]


def test_what_was_read_in_a_turn_is_not_read_again(make: Make, policy: Any, referee: Referee) -> None:
    sampler = make(policy)
    (episode,) = roll_out(TASKS[:1], referee, sampler, retrieve)
    assert episode.turns > 2
    lasts = episode.turns - 1  # the last token of a turn is sampled, and read in the next
    assert sampler._vllm.llm.read == len(episode.prompt) + episode.own.count(False) + lasts


def test_tokens_come_with_their_log_probabilities(make: Make, policy: Any, referee: Referee) -> None:
    """Under the weights of now, not those that the engine was started with, at every own token and no other."""
    sampler = make(policy, sleep=False)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for episode in roll_out(TASKS * 2, referee, sampler, retrieve):
        text = torch.tensor([episode.prompt + episode.tokens])
        with torch.no_grad():
            likely = torch.log_softmax(policy(text).logits[0, :-1], dim=-1).gather(1, text[0, 1:, None])[:, 0]
        own = torch.tensor(episode.own)
        assert episode.logps == pytest.approx(likely[len(episode.prompt) - 1 :][own].tolist(), abs=1e-5)


def test_a_token_that_nobody_sampled_has_no_log_probability(make: Make, policy: Any) -> None:
    """It stands for a last one that reaches beyond its stop; the rows that go on keep theirs."""
    sampler = make(policy, sleep=False)
    sampler.begin([[5, 6], [5, 7]])
    first = sampler.turn([4, 4])
    sampler.replace_last(1, [7, 8])
    sampler.go_on([1], [[9]])
    (second,) = sampler.turn([4])
    assert sampler._texts == [[5, 7, *first[1][:-1], 7, 8, 9, *second]]
    assert list(map(len, sampler.logps())) == [len(first[0]), len(first[1]) - 1 + len(second)]


def test_adapters_never_move_a_bfloat16_model(make: Make, policy: Any) -> None:
    """Merged and unmerged in place they do, at every sync a little."""
    policy = policy.to(torch.bfloat16)
    before = copy.deepcopy(policy)
    adapted: Any = _prepared(policy, Model(path="", lora_rank=4), "CAUSAL_LM")
    sampler = make(adapted, sleep=False)
    for _ in range(20):
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.add_(0.02 * torch.randn_like(parameter))
        sampler.begin([])
    kept = {name.replace(".base_layer", ""): value for name, value in adapted.get_base_model().state_dict().items()}
    for name, value in before.state_dict().items():
        assert torch.equal(kept[name], value), name
    expected = adapted.merge_and_unload().state_dict()
    for name, value in sampler._vllm.llm.model.state_dict().items():
        assert torch.equal(value.to(torch.bfloat16), expected[name]), name
    assert any(not torch.equal(value, expected[name]) for name, value in before.state_dict().items())


def test_a_sampler_without_vllm(policy: Any, tokenizer: Any) -> None:
    forget()
    with pytest.raises(ConfigError, match="vLLM is not installed"):
        importlib.import_module(OURS).VllmSampler(policy, tokenizer, Accelerator(cpu=True), Vllm(), LIMITS, 1.0)


def test_what_vllm_raises_is_one_line(make: Make, policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = make(policy)

    def fail(*_: Any, **__: Any) -> None:
        raise Exception("the engine died\nTraceback ...")  # noqa: TRY002 - as TRL does

    monkeypatch.setattr(sampler._vllm.llm, "generate", fail)
    sampler.begin([[5, 6]])
    with pytest.raises(TrainError, match=r"^vLLM does not generate: the engine died$"):
        sampler.turn([4])
