"""Rollouts by vLLM, through TRL's own class; a stand-in is behind it, as vLLM needs a GPU."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from accelerate import Accelerator

from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.loading import _prepared
from stepsearch_data.trainer.recipe import Model, Vllm
from stepsearch_data.trainer.rollout import roll_out
from stepsearch_data.trainer.search_env import Episode, SearchEnv
from tests.fake import FakeServer
from tests.trainer import vllm_source
from tests.trainer.test_sampler import anew
from tests.trainer.test_steppo_trainer import metrics, trainer
from tests.trainer.tiny import TASKS, retrieve

STANDIN = Path(__file__).with_name("standin")
LIMITS = Limits(max_turns=3, topk=2, max_length=300, max_new_tokens=12, max_obs_length=60)
Make = Callable[..., Any]


OURS = "stepsearch_data.trainer.vllm"
SYNC = ["/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache"]


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
def make(vllm: Any, policy: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A sampler of a model."""
    policy.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    def made(model: Any, **config: Any) -> Any:
        model.name_or_path = str(tmp_path / "model")
        with monkeypatch.context() as patched:
            if config.get("mode") == "server":  # TRL would send weights between GPUs only
                patched.setattr(Accelerator, "device", torch.device("cuda"))
            return vllm.VllmSampler(model, tokenizer, Accelerator(cpu=True), Vllm(**config), LIMITS, 1.0)

    return made


def test_a_batch_is_one_sync_and_one_sleep(make: Make, policy: Any, env: SearchEnv) -> None:
    """However many turns it has; TRL's own way is a sync, two wakes and a sleep for each."""
    torch.manual_seed(0)
    sampler = make(policy)
    engine = sampler._vllm.llm
    for _ in range(2):
        engine.events.clear()
        episodes = roll_out(TASKS * 2, env, sampler, retrieve)
        turns = max(episode.turns for episode in episodes)
        assert turns > 2
        assert engine.events == ["wake weights", "load", "wake kv_cache", *["generate"] * turns, "sleep"]


def test_what_was_read_in_a_turn_is_not_read_again(make: Make, policy: Any, env: SearchEnv) -> None:
    sampler = make(policy)
    (episode,) = roll_out(TASKS[:1], env, sampler, retrieve)
    assert episode.turns > 2
    lasts = episode.turns - 1  # the last token of a turn is sampled, and read in the next
    assert sampler._vllm.llm.read == len(episode.prompt_ids) + episode.response_mask.count(False) + lasts


def test_tokens_come_with_their_log_probabilities(make: Make, policy: Any, env: SearchEnv) -> None:
    """Under the weights of now, not those that the engine was started with, at every own token and no other."""
    sampler = make(policy, enable_sleep_mode=False)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    check_logps(policy, roll_out(TASKS * 2, env, sampler, retrieve))


def check_logps(policy: Any, episodes: Sequence[Episode]) -> None:
    for episode in episodes:
        likely = anew(policy, episode.prompt_ids + episode.response_ids)
        own = torch.tensor(episode.response_mask)
        assert episode.sampling_logps == pytest.approx(likely[len(episode.prompt_ids) - 1 :][own].tolist(), abs=1e-5)


def test_a_token_that_nobody_sampled_has_no_log_probability(make: Make, policy: Any) -> None:
    """It stands for a last one that reaches beyond its stop; the rows that go on keep theirs."""
    sampler = make(policy, enable_sleep_mode=False)
    sampler.start([[5, 6], [5, 7]])
    first = sampler.generate([4, 4])
    sampler.replace_last(1, [7, 8])
    sampler.extend([1], [[9]])
    (second,) = sampler.generate([4])
    assert sampler._texts == [[5, 7, *first[1][:-1], 7, 8, 9, *second]]
    assert list(map(len, sampler.logps())) == [len(first[0]), len(first[1]) - 1 + len(second)]


def test_adapters_never_move_a_bfloat16_model(make: Make, policy: Any) -> None:
    """Merged and unmerged in place they do, at every sync a little."""
    policy = policy.to(torch.bfloat16)
    before = copy.deepcopy(policy)
    adapted: Any = _prepared(policy, Model(path="", lora_rank=4), "main", "CAUSAL_LM")
    sampler = make(adapted, enable_sleep_mode=False)
    for _ in range(20):
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.add_(0.02 * torch.randn_like(parameter))
        sampler.start([])
    kept = {name.replace(".base_layer", ""): value for name, value in adapted.get_base_model().state_dict().items()}
    for name, value in before.state_dict().items():
        assert torch.equal(kept[name], value), name
    expected = adapted.merge_and_unload().state_dict()
    for name, value in sampler._vllm.llm.model.state_dict().items():
        assert torch.equal(value.to(torch.bfloat16), expected[name]), name
    assert any(not torch.equal(value, expected[name]) for name, value in before.state_dict().items())


class Server:
    """What `vllm serve` answers to TRL, before the stand-in's engine. `asked` are the paths of its requests."""

    def __init__(self, engine: Any, weights: Any, length: int, logprobs: str) -> None:
        self.asked: list[str] = []
        self.told: dict[str, Any] = {}  # of each path the last body
        self._engine, self._weights = engine, weights
        self._info: dict[str, Any] = {
            "weight_transfer_config": {"backend": "nccl"},
            "model_config": {"max_model_len": length, "logprobs_mode": logprobs},
        }

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(path)
        self.told[path] = body
        if path == "/v1/completions":
            return {"choices": [self._choice(prompt, body) for prompt in body["prompt"]]}
        if path == "/update_weights":
            named = body["update_info"]["names"]
            self._engine.load_weights((name, self._weights.get(timeout=9)) for name in named)
        return {"data": [{"id": "model"}], "vllm_config": self._info, "world_size": 1}

    def _choice(self, prompt: list[int], body: dict[str, Any]) -> dict[str, Any]:
        assert len(prompt) + body["max_tokens"] <= self._info["model_config"]["max_model_len"]
        self._engine._random.manual_seed(crc32(str(prompt).encode()))  # so that it says the same when asked again
        asked = {"use_tqdm": False, "sampling_params": SimpleNamespace(**body)}
        (written,) = self._engine.generate([{"prompt_token_ids": prompt}], **asked)[0].outputs
        likely = [each[token].logprob for token, each in zip(written.token_ids, written.logprobs, strict=True)]
        names = [f"token_id:{token}" for token in written.token_ids]
        logprobs = {"tokens": names, "token_logprobs": likely, "top_logprobs": [{} for _ in names]}
        return {"prompt_token_ids": prompt, "token_ids": written.token_ids, "logprobs": logprobs}


@pytest.fixture
def serve(vllm: Any, make: Make, tmp_path: Path) -> Iterator[Make]:
    """Starts a server on a port of its own; it and its address."""
    pytest.importorskip("requests", reason="TRL needs it for a server of vLLM")
    standin = sys.modules["vllm"]
    with ExitStack() as running:

        def started(
            length: int = LIMITS.max_length + LIMITS.max_new_tokens, logprobs: str = "processed_logprobs"
        ) -> tuple[Server, str]:
            engine = standin.LLM(str(tmp_path / "model"), enable_sleep_mode=False, logprobs_mode="processed_logprobs")
            server = Server(engine, standin.sent, length, logprobs)
            fake = FakeServer(lambda asked: server.answer(asked.path, asked.body or {}))
            return server, running.enter_context(fake).url

        yield started


def test_a_server_gets_the_weights_once_for_each_batch(serve: Make, make: Make, policy: Any, env: SearchEnv) -> None:
    server, url = serve()
    sampler = make(policy, mode="server", server_base_url=url)
    for _ in range(2):
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        server.asked.clear()
        episodes = roll_out(TASKS, env, sampler, retrieve)
        turns = max(episode.turns for episode in episodes)
        assert server.asked == [*SYNC, *["/v1/completions"] * turns]
        check_logps(policy, episodes)


@pytest.fixture
def overlapping(serve: Make, make: Make, policy: Any, tokenizer: Any, env: SearchEnv) -> tuple[Server, Make]:
    """A server, and what makes trainers that overlap with its rollouts, each of its own copy of the policy."""
    server, url = serve()

    def made(output: Path) -> Any:
        own = copy.deepcopy(policy)
        sampler = make(own, mode="server", server_base_url=url)
        return trainer(output, own, tokenizer, env, sampler=sampler, overlap=True, num_updates=4)

    return server, made


def test_with_overlap_the_server_writes_the_next_batch_while_this_one_is_learnt(
    overlapping: tuple[Server, Make], policy: Any, tmp_path: Path
) -> None:
    """It gets weights between batches alone, and its log-probabilities are the old ones of PPO's ratio."""
    server, made = overlapping
    training = made(tmp_path / "run")
    server.asked.clear()
    told, episodes, _ = training.training_step()
    assert training.ahead.has(1), "the next batch is begun"
    assert told["sampling_logp_difference"] < 1e-5
    check_logps(policy, episodes)
    before_last = copy.deepcopy(policy)
    for _ in range(3):
        before_this = copy.deepcopy(training.inner.policy)
        told, episodes, _ = training.training_step()
        check_logps(before_last, episodes)
        assert told["sampling_logp_difference"] > 1e-4
        before_last = before_this
    whole = " ".join("sync" if path in SYNC else "write" for path in server.asked)
    assert re.fullmatch(rf"((sync ){{{len(SYNC)}}}(write ?)+){{4}}", whole)


def test_with_overlap_by_a_server_a_resumed_run_equals_an_uninterrupted_one(
    overlapping: tuple[Server, Make], tmp_path: Path
) -> None:
    """Where the server says the same when it is asked the same, which vLLM itself does not."""
    _, made = overlapping
    made(tmp_path / "whole").train()
    first = made(tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    for _ in range(2):
        first._report(*first.training_step())
    first.save()
    first._report(*first.training_step())  # lost with the crash
    first.ahead.end()
    second = made(tmp_path / "parts")
    assert second.resume()
    assert second.ahead.has(2)
    second.train()
    assert metrics(tmp_path / "parts") == [row for row in metrics(tmp_path / "whole") if row["update"] > 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": LIMITS.max_length}, r"takes 300 tokens, limits.max_length and limits.max_new_tokens need 312$"),
        ({"logprobs": "raw_logprobs"}, r"reports raw_logprobs, not those at the temperature$"),
    ],
)
def test_a_server_that_was_started_otherwise(
    serve: Make, make: Make, policy: Any, options: dict[str, Any], said: str
) -> None:
    _, url = serve(**options)
    with pytest.raises(ConfigError, match=f"^the vLLM server {said}") as refused:
        make(policy, mode="server", server_base_url=url)
    assert "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --max-model-len 312 " in refused.value.hint


def test_a_sampler_without_vllm(policy: Any, tokenizer: Any) -> None:
    forget()
    with pytest.raises(ConfigError, match="vLLM is not installed"):
        importlib.import_module(OURS).VllmSampler(policy, tokenizer, Accelerator(cpu=True), Vllm(), LIMITS, 1.0)


def test_an_address_with_a_password_is_not_repeated(make: Make, policy: Any) -> None:
    with pytest.raises(ConfigError, match=r"^vllm\.server_base_url holds a user, a password or parameters$") as refused:
        make(policy, mode="server", server_base_url="http://me:hunter22@localhost:8000")
    assert "hunter22" not in refused.value.hint


def test_what_vllm_raises_is_one_line(make: Make, policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = make(policy)

    def fail(*_: Any, **__: Any) -> None:
        raise Exception("the engine died\nTraceback ...")  # noqa: TRY002 - as TRL does

    monkeypatch.setattr(sampler._vllm.llm, "generate", fail)
    sampler.start([[5, 6]])
    with pytest.raises(TrainError, match=r"^vLLM does not generate: the engine died$"):
        sampler.generate([4])


NEEDS_SOURCE = pytest.mark.skipif(not vllm_source.WHEEL, reason="needs vLLM's source: make test-train")


@NEEDS_SOURCE
@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("part", ["vllm_client", "vllm_generation"])
def test_what_trl_imports_from_vllm_is_there(part: str) -> None:
    """That of its newest version: what the stand-in lacks is of others, and not imported."""
    spec = find_spec("trl")
    assert spec
    source = (Path(str(spec.origin)).parent / "generation" / f"{part}.py").read_text()
    taken = {
        (str(node.module), each.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "vllm"
        for each in node.names
        if hasattr(sys.modules["vllm"], each.name)
    }
    assert taken
    assert {(module, name) for module, name in taken if name not in vllm_source.exports(module)} == set()


@NEEDS_SOURCE
def test_vllm_takes_what_its_stand_in_takes(
    make: Make, policy: Any, env: SearchEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, where = sys.modules["vllm"].LLM, ("vllm.entrypoints.llm", "LLM")
    given = recorded(monkeypatch, engine)
    asked = recorded(monkeypatch, sys.modules["vllm"].SamplingParams)
    roll_out(TASKS[:1], env, make(policy), retrieve)
    assert "enable_sleep_mode" in given
    assert "include_stop_str_in_output" in asked
    options = vllm_source.parameters(*where, "__init__") | vllm_source.fields("vllm.engine.arg_utils", "EngineArgs")
    assert given - options == set()
    assert asked - vllm_source.fields("vllm.sampling_params", "SamplingParams") == set()
    for method in ("generate", "sleep", "wake_up", "reset_prefix_cache"):
        taken = set(inspect.signature(getattr(engine, method)).parameters)
        assert taken - vllm_source.parameters(*where, method) == set()


def recorded(monkeypatch: pytest.MonkeyPatch, kind: Any) -> set[str]:
    """The options that a class is made with from now on."""
    begin, given = kind.__init__, set[str]()

    def begun(self: Any, *arguments: Any, **options: Any) -> None:
        given.update(options)
        begin(self, *arguments, **options)

    monkeypatch.setattr(kind, "__init__", begun)
    return given


@NEEDS_SOURCE
def test_a_server_of_vllm_knows_what_it_is_asked(serve: Make, make: Make, policy: Any, env: SearchEnv) -> None:
    server, url = serve()
    roll_out(TASKS[:1], env, make(policy, mode="server", server_base_url=url), retrieve)
    assert {*SYNC, "/server_info", "/init_weight_transfer_engine"} <= set(server.asked)
    assert set(server.asked) - vllm_source.routes() == set()
    completion, transfer = "vllm.entrypoints.openai.completion.protocol", "vllm.distributed.weight_transfer."
    asked = server.told["/v1/completions"]
    assert set(asked) - vllm_source.fields(completion, "CompletionRequest") == set()
    joining = server.told["/init_weight_transfer_engine"]["init_info"]
    assert set(joining) - vllm_source.fields(f"{transfer}nccl_common", "NCCLWeightTransferInitInfo") == set()
    weights = server.told["/update_weights"]["update_info"]
    assert set(weights) - vllm_source.fields(f"{transfer}nccl_engine", "NCCLWeightTransferUpdateInfo") == set()
    answered = set(server._choice([5, 6], asked))
    assert answered - vllm_source.fields(completion, "CompletionResponseChoice") == set()
    assert set(server._info["model_config"]) - vllm_source.fields("vllm.config.model", "ModelConfig") == set()
