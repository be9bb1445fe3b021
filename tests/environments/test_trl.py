"""Real GRPO steps on CPU: tools and tags are played, and each turn has an advantage of its own. `make test-train`."""

from __future__ import annotations

import importlib.util
import inspect
import json
import pickle
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment, TaggedEnvironment
from stepsearch_data.exports.rl import trl_grpo
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.data import load_examples
from tests.environments.conftest import GOLD_QUERIES, QUESTION

_MISSING = [name for name in ("torch", "transformers", "trl") if importlib.util.find_spec(name) is None]
if _MISSING:
    pytest.skip(f"needs {', '.join(_MISSING)}: make test-train installs it", allow_module_level=True)

import torch
from datasets import Dataset
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer

from stepsearch_data.environments.trl import (
    TurnGRPOTrainer,
    earned_before,
    search_reward,
    tagged_rollouts,
    tool_environments,
)

pytestmark = pytest.mark.filterwarnings("default")  # these are TRL's and torch's own

FIRST, SECOND = GOLD_QUERIES
ANSWER = "<answer> Pesaro </answer>"
# What each rollout of a group searches for, in order, and how it ends.
SCRIPTS = [([FIRST, SECOND], ANSWER), ([FIRST, FIRST], ANSWER), ([SECOND], "I give up."), ([], ANSWER)]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "TRL_EXPERIMENTAL_SILENCE"):
        monkeypatch.setenv(name, "1")


@pytest.fixture(scope="module")
def calling(config: EnvironmentConfig) -> EnvironmentConfig:
    """One document a search: short rollouts."""
    return replace(config, topk=1)


@pytest.fixture(scope="module")
def tagging(tagged_config: EnvironmentConfig) -> EnvironmentConfig:
    return replace(tagged_config, topk=1)


@pytest.fixture(scope="module")
def tokenizer(config: EnvironmentConfig) -> Any:
    """A tokenizer with the words of the sample, and Qwen3's chat template, which calls tools."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import qwen3_chat_template

    core = Tokenizer(models.BPE())
    learning = trainers.BpeTrainer(
        vocab_size=1_500,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.train_from_iterator((gold.text for task in config.tasks().values() for gold in task.support_docs), learning)
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.add_tokens(["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"])
    made.chat_template = qwen3_chat_template
    return made


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """A Qwen3 of a few thousand random weights."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    heads = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32_768}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **size, **heads, **ids))


def rows(config: EnvironmentConfig) -> Dataset:
    """The row of one question, as `export --format trl-grpo` writes it."""
    template = load_template(config.template)
    examples = load_examples(Store.open(Path(config.store)), None)
    return Dataset.from_list([trl_grpo(each, template)[0] for each in examples if each.question_id == QUESTION] * 4)


class Recorded(TurnGRPOTrainer):
    """Remembers the batches that it learns from."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        environments = self.environments or [row["environments"] for row in inputs]
        self.batch = output
        self.turn_rewards = [list(environment.turn_rewards) for environment in environments]
        return output


class Scripted(Recorded):
    """Writes what the scripts say, in place of the model."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        tokenizer = self.processing_class
        said = []
        for at, ids in enumerate(prompt_ids):
            before = tokenizer.decode(ids).rpartition("<|im_start|>user\nWhat is")[2]
            queries, end = SCRIPTS[at % 4] if "<tool_call>" not in before else self._script(before)
            done = before.count("<tool_response>")
            if done < len(queries):
                call = f'{{"name": "search", "arguments": {{"query": "{queries[done]}"}}}}'
                text = f"<tool_call>\n{call}\n</tool_call>"
            else:
                text = end
            said.append(tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False))
        return said, None

    def _script(self, before: str) -> Any:
        """Recognise a rollout by its first query; the first two take turns."""
        found = [script for script in SCRIPTS if script[0] and f'"query": "{script[0][0]}"' in before]
        if len(found) < 2:
            return found[0]
        self._turn = not getattr(self, "_turn", True)
        return found[int(self._turn)]


def trainer(kind: Any, model: Any, tokenizer: Any, config: EnvironmentConfig, folder: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"report_to": "none", "use_cpu": True, "max_steps": 2, "per_device_train_batch_size": 4}
    settings |= {"num_generations": 4, "max_completion_length": 8_000, "bf16": False, "logging_steps": 1}
    own = {"max_completion_length", "scale_rewards", "reward_weights"}
    asked = {name: options.pop(name) for name in list(options) if name in own}
    arguments = GRPOConfig(str(folder), **{**settings, **asked})
    rewards = options.pop("rewards", search_reward)
    return kind(model, rewards, arguments, rows(config), processing_class=tokenizer, **options)


def played(config: EnvironmentConfig, queries: Sequence[str], answer: str | None) -> list[float]:
    """What each turn of a conversation should have earned."""
    environment = SearchEnvironment(config)
    environment.reset(QUESTION)
    for query in queries:
        environment.search(query)
    environment.answer(answer)
    return environment.rewards


def turns_of(values: Any, own: Any) -> list[float]:
    """The values of the turns of a row, each of which must be the same on all of its tokens."""
    runs: list[set[float]] = []
    for at, mine in enumerate(own.tolist()):
        if mine and (at == 0 or not own[at - 1]):
            runs.append(set())
        if mine:
            runs[-1].add(round(values[at].item(), 4))
    assert all(len(run) == 1 for run in runs)
    return [run.pop() for run in runs]


def check_advantages(learnt: Any, expected: list[list[float]], divisor: Any) -> None:
    """Each turn's advantage is what was still earned from it on, against the mean return of the group."""
    batch, returns = learnt.batch, [sum(rewards) for rewards in expected]
    own = batch["completion_mask"] * batch["tool_mask"]
    mean = sum(returns) / len(returns)
    for row, rewards in enumerate(expected):
        assert learnt.turn_rewards[row] == pytest.approx(rewards, abs=1e-12)
        wanted = [(sum(rewards[turn:]) - mean) / divisor(expected) for turn in range(len(rewards))]
        assert turns_of(batch["advantages"][row], own[row]) == pytest.approx(wanted, abs=2e-4)


def by_group(expected: Sequence[Sequence[float]]) -> float:
    """What all turns of a group still earned, as the standard deviation."""
    return statistics.stdev(sum(rewards[turn:]) for rewards in expected for turn in range(len(rewards))) + 1e-4


def number(completions: Sequence[Any], **_: Any) -> list[float]:
    """Another reward of a rollout: its place in the group."""
    return [float(at) for at in range(len(completions))]


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


READING = [
    call("search", query=FIRST) + "\n" + call("open", id="d1"),  # the second is one too many
    call("open", id="d1"),
    call("find", id="d1", words="Rossini"),
    call("open", document="d1"),  # TRL itself says what is wrong
    ANSWER,
]


class Says(GRPOTrainer):
    """Writes the turns of `READING`, in place of the model."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        tokenizer = self.processing_class
        before = [tokenizer.decode(ids).rpartition("user\nWhat is")[2] for ids in prompt_ids]
        texts = [f"{READING[text.count('assistant') - 1]}<|im_end|>" for text in before]
        return [tokenizer.encode(text, add_special_tokens=False) for text in texts], None


class Reading(Recorded, Says):
    """Told of turns by `TurnGRPOTrainer`."""


def test_documents_are_opened_and_words_found_one_call_a_turn(
    calling: EnvironmentConfig, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    config = replace(calling, tools=("open", "find"))
    factory = tool_environments(config)
    learnt = trainer(Reading, model, tokenizer, config, tmp_path, environment_factory=factory)
    learnt.train()
    earned = played(calling, [FIRST], "Pesaro")
    for environment, rewards in zip(learnt.environments, learnt.turn_rewards, strict=True):
        assert rewards == pytest.approx([earned[0], 0, 0, 0, earned[1]], abs=1e-12)
        assert [read.refused for read in environment.state.reads] == [False, False]
        assert (environment.state.counts, environment.state.invalid) == ({"opens": 1, "finds": 1}, 1)
    assert [(each["opens"], each["finds"]) for each in learnt.state.log_history if "opens" in each] == [(1, 1)] * 2


@pytest.mark.parametrize("tools", [(), ("open",), ("find",), ("open", "find")], ids="-".join)
def test_a_model_is_offered_what_the_template_defines(config: EnvironmentConfig, tools: Any) -> None:
    reading = replace(config, tools=tools)
    made = tool_environments(reading)()
    names = [name for name, _ in inspect.getmembers(type(made), inspect.isfunction) if name[0] != "_"]
    offered = {name: get_json_schema(getattr(made, name))["function"] for name in names if name != "reset"}
    wanted = {function["name"]: {**function, "return": {"type": "string"}} for function in reading.functions}
    assert offered == wanted
    assert pickle.loads(pickle.dumps(tool_environments(reading)))().state.config == reading


def test_what_was_earned_before_is_weighed_as_the_reward_is(
    calling: EnvironmentConfig, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    learnt = trainer(
        Scripted,
        model,
        tokenizer,
        calling,
        tmp_path,
        environment_factory=tool_environments(calling),
        scale_rewards="batch",
        rewards=[search_reward, number],
        reward_weights=[0.5, 2.0],
    )
    learnt.train()
    batch = learnt.batch
    own = batch["completion_mask"] * batch["tool_mask"]
    weighed = [
        [*(0.5 * each for each in rewards[:-1]), 0.5 * rewards[-1] + 2.0 * at]
        for at, rewards in enumerate(learnt.turn_rewards)
    ]
    returns = [sum(rewards) for rewards in weighed]
    for row, rewards in enumerate(learnt.turn_rewards):
        before = [0.5 * sum(rewards[:turn]) for turn in range(len(rewards))]
        wanted = [(returns[row] - each - sum(returns) / 4) / by_group(weighed) for each in before]
        assert turns_of(batch["advantages"][row], own[row]) == pytest.approx(wanted, abs=2e-4)


def test_a_reset_forgets_a_failure(calling: EnvironmentConfig) -> None:
    """TRL plays one rollout after the other in the same environment."""
    environment = tool_environments(calling)()
    environment.failure, environment.turn_rewards = SearchError("down"), [1.0]
    environment.reset(**rows(calling)[0])
    assert environment.failure is None
    assert environment.turn_rewards == []


def check_learnt(model: Any, learnt: Any) -> None:
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    learnt.train()
    logged = [entry for entry in learnt.state.log_history if "grad_norm" in entry]
    assert len(logged) == 2
    assert all(0 < entry["grad_norm"] < float("inf") for entry in logged)
    assert any(not torch.equal(before[name], weight.detach()) for name, weight in model.named_parameters())
    assert logged[0]["rewards/search_reward/mean"] == pytest.approx(sum(map(sum, learnt.turn_rewards)) / 4, abs=1e-5)


@pytest.mark.parametrize(("scale", "divisor"), [("group", by_group), ("none", lambda _: 1.0)])
def test_turns_of_tool_calls_have_their_own_advantages(
    scale: str, divisor: Any, calling: EnvironmentConfig, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    factory = tool_environments(calling)
    learnt = trainer(Scripted, model, tokenizer, calling, tmp_path, environment_factory=factory, scale_rewards=scale)
    check_learnt(model, learnt)
    expected = [played(calling, queries, "Pesaro" if end == ANSWER else None) for queries, end in SCRIPTS]
    check_advantages(learnt, expected, divisor)
    advantages = turns_of(
        learnt.batch["advantages"][0], learnt.batch["tool_mask"][0] * learnt.batch["completion_mask"][0]
    )
    assert len(set(advantages)) == 3


def test_rollouts_that_earn_the_same_keep_their_turns_advantages_small(
    calling: EnvironmentConfig, model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their returns have no spread: an advantage that was divided by it would be thousands."""
    monkeypatch.setitem(globals(), "SCRIPTS", [SCRIPTS[0]] * 4)
    learnt = trainer(Scripted, model, tokenizer, calling, tmp_path, environment_factory=tool_environments(calling))
    learnt.train()
    assert {sum(rewards) for rewards in learnt.turn_rewards} == {sum(learnt.turn_rewards[0])}
    assert 0.5 < learnt.batch["advantages"].abs().max() < 5


def test_an_answer_that_did_not_fit_is_not_paid_for(
    calling: EnvironmentConfig, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """TRL drops it after the search: nobody sees it, so neither its gain nor its query counts."""
    factory = tool_environments(calling)
    learnt = trainer(
        Scripted, model, tokenizer, calling, tmp_path, environment_factory=factory, max_completion_length=250
    )
    learnt.train()
    cut = played(calling, [FIRST], None)  # neither the second result nor an answer
    whole = played(calling, [FIRST, SECOND], None)
    assert learnt.turn_rewards[0] == pytest.approx([cut[0], cut[1]], abs=1e-12)
    assert sum(cut) < sum(whole)


def test_an_engine_that_is_down_ends_the_training(
    calling: EnvironmentConfig, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """TRL would show the error to the model as the tool's answer."""
    settings = ("engines.http.max_attempts=1", "engines.http.patience=0.1")
    down = replace(calling, engine="http=http://127.0.0.1:9", settings=settings)
    learnt = trainer(Scripted, model, tokenizer, calling, tmp_path, environment_factory=tool_environments(down))
    with pytest.raises(SearchError, match="does not answer"):
        learnt.train()


class Writer:
    """A sampler that writes the scripts in tags; see `Sampler`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def start(self, prompts: Sequence[list[int]]) -> None:
        self._rows = [iter(self._turns(*SCRIPTS[row % 4])) for row in range(len(prompts))]

    def _turns(self, queries: Sequence[str], end: str) -> Iterator[str]:
        for query in queries:
            yield f"<think> t </think>\n<search> {query} </search>"
        yield f"<think> t </think>\n{end}<|im_end|>"

    def generate(self, _: Sequence[int]) -> list[list[int]]:
        return [self._tokenizer.encode(next(row), add_special_tokens=False) for row in self._rows]

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        pass

    def extend(self, rows: Sequence[int], _: Sequence[list[int]]) -> None:
        self._rows = [self._rows[row] for row in rows]


def test_turns_of_tags_have_their_own_advantages(
    tagging: EnvironmentConfig, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    func = tagged_rollouts(tagging, lambda _: Writer(tokenizer))
    learnt = trainer(Recorded, model, tokenizer, tagging, tmp_path, rollout_func=func)
    check_learnt(model, learnt)
    expected = []
    for queries, end in SCRIPTS:
        environment = TaggedEnvironment(tagging)
        environment.reset(QUESTION)
        for query in queries:
            environment.step(f"<think> t </think>\n<search> {query} </search>")
        environment.step(f"<think> t </think>\n{end}")
        expected.append([*environment.rewards[:-1], environment.scores.score])
    check_advantages(learnt, expected, by_group)


def test_a_random_model_plays_in_tags(tagging: EnvironmentConfig, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Its turns are neither searches nor answers: each is warned, and nothing is earned or learnt."""
    short = replace(tagging, max_turns=2, max_length=1_800)
    learnt = trainer(Recorded, model, tokenizer, short, tmp_path, rollout_func=tagged_rollouts(short))
    learnt.train()
    assert set(map(sum, learnt.turn_rewards)) == {0.0}


def test_settings_that_cannot_be_played_are_refused(
    config: EnvironmentConfig, tagged_config: EnvironmentConfig
) -> None:
    with pytest.raises(ConfigError, match="has no tool"):
        tool_environments(tagged_config)
    with pytest.raises(ConfigError, match="calls a tool"):
        tagged_rollouts(config)
    with pytest.raises(ConfigError, match="no tags for open"):
        tagged_rollouts(replace(tagged_config, tools=("open",)))


def test_what_was_earned_before_a_turn_is_the_sum_of_earlier_turns() -> None:
    own = torch.tensor([[1, 1, 0, 1, 0, 1], [1, 0, 0, 0, 0, 0]])
    found = earned_before(own, [[1.0, 2.0, 4.0], [8.0]])
    assert (found * own).tolist() == [[0, 0, 0, 1, 0, 3], [0, 0, 0, 0, 0, 0]]
