"""verl's own tool loop plays, with a server that says what the script says: rewards lie on the right tokens."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stepsearch_data.core.errors import ConfigError, SearchError
from stepsearch_data.environments import EnvironmentConfig, SearchEnvironment, TaggedEnvironment
from stepsearch_data.exports.rl import verl as row_of
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.data import load_examples
from tests.environments.conftest import GOLD_QUERIES, QUESTION

if importlib.util.find_spec("verl") is None:
    pytest.skip("needs verl: make test-environments installs it", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")  # these are verl's own

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.tools.tool_registry import initialize_tools_from_config
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from stepsearch_data.environments.verl import (
    OpenTool,
    SearchAgentLoop,
    SearchOutput,
    compute_score,
)
from tests.byte_tokenizer import byte_tokenizer

ANSWER = "So it is. <answer> Pesaro </answer>"
CHAT = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls or [] %}\n<tool_call>\n{{ call.function | tojson }}\n</tool_call>{%- endfor %}"
    "<|im_end|>\n{%- endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def call(query: str) -> str:
    return f'<tool_call>\n{{"name": "search", "arguments": {{"query": "{query}"}}}}\n</tool_call>'


class Server:
    """What verl's client of vLLM is: it writes the next turn."""

    def __init__(self, tokenizer: Any, turns: list[str]) -> None:
        self._turns = (tokenizer.encode(f"{turn}<|im_end|>", add_special_tokens=False) for turn in turns)

    async def generate(self, **_: Any) -> TokenOutput:
        return TokenOutput(token_ids=next(self._turns))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A tokenizer of single bytes, and a chat template that calls tools as Hermes does."""
    return byte_tokenizer(CHAT)


@pytest.fixture
def play(config: EnvironmentConfig, tokenizer: Any, tmp_path: Path) -> Any:
    """Play these turns by verl's loop, with its own reading of the tool's YAML."""

    def played(turns: list[str], environment: EnvironmentConfig = config, **limits: int) -> SearchOutput:
        fields = asdict(environment).items()
        settings = {
            "type": "native",
            **{name: [*value] if isinstance(value, tuple) else value for name, value in fields},
        }
        names = ["SearchTool", *(f"{name.capitalize()}Tool" for name in environment.tools)]
        tools = [{"class_name": f"stepsearch_data.environments.verl.{name}", "config": settings} for name in names]
        OmegaConf.save({"tools": tools}, tmp_path / "tools.yaml")
        multi_turn = {"max_user_turns": None, "max_assistant_turns": None, "max_parallel_calls": 1, "format": "hermes"}
        multi_turn |= {"max_tool_response_length": 20_000, "tool_response_truncate_side": "middle"}
        rollout = {"prompt_length": 4_000, "response_length": 40_000, "full_determinism": False}
        for name, value in limits.items():
            (multi_turn if name in multi_turn else rollout)[name] = value
        whole = {"actor_rollout_ref": {"rollout": {**rollout, "multi_turn": multi_turn}}}

        async def run() -> SearchOutput:
            loop = SearchAgentLoop(
                trainer_config=DictConfigWrap(OmegaConf.create(whole)),
                server_manager=Server(tokenizer, turns),
                tokenizer=tokenizer,
                processor=None,
                dataset_cls=RLHFDataset,
                data_config=DictConfigWrap(OmegaConf.create({})),
                tools=ToolListWrap(initialize_tools_from_config(tmp_path / "tools.yaml")),
            )
            row = row_for(environment)
            extra = row["extra_info"]
            return await loop.run({}, raw_prompt=row["prompt"], tools_kwargs=extra["tools_kwargs"], extra_info=extra)

        return asyncio.run(run())

    return played


def row_for(config: EnvironmentConfig) -> dict[str, Any]:
    examples = load_examples(Store.open(Path(config.store)), None)
    (row,) = next(row_of(each, load_template("tools")) for each in examples if each.question_id == QUESTION)
    return row


def expected(config: EnvironmentConfig, queries: tuple[str, ...], answer: str | None) -> list[float]:
    environment = SearchEnvironment(config)
    environment.reset(QUESTION)
    for query in queries:
        environment.search(query)
    environment.answer(answer)
    return environment.rewards


def test_rewards_lie_on_the_last_token_of_their_turn(play: Any, config: EnvironmentConfig, tokenizer: Any) -> None:
    output = play([*map(call, GOLD_QUERIES), ANSWER])
    found = output.as_dict()
    rewards, own = found["rm_scores"], found["response_mask"]
    assert rewards.shape == own.shape
    ends = [at for at, mine in enumerate(own) if mine and (at + 1 == len(own) or not own[at + 1])]
    wanted = expected(config, GOLD_QUERIES, "Pesaro")
    assert [rewards[end].item() for end in ends] == pytest.approx(wanted, abs=1e-6)
    assert rewards.count_nonzero() == len(ends) == 3
    assert output.reward_score == pytest.approx(sum(wanted))
    assert [tokenizer.decode(output.response_ids[end]) for end in ends] == ["<|im_end|>"] * 3
    assert output.extra_fields["reward_extra_info"]["answer_em"] == 1
    assert "stepsearch" not in output.extra_fields


def test_the_tool_remembers_what_the_rollout_has_seen(play: Any, config: EnvironmentConfig) -> None:
    """Verl makes it anew for every call."""
    output = play([call(GOLD_QUERIES[0]), call(GOLD_QUERIES[0]), ANSWER])
    rewards = [reward for _, reward in output.token_rewards]
    assert rewards == pytest.approx(expected(config, (GOLD_QUERIES[0],) * 2, "Pesaro"))
    assert rewards[1] == -1


def test_calls_that_are_none_earn_nothing(play: Any, config: EnvironmentConfig) -> None:
    output = play([call("x").replace("search", "browse"), call(GOLD_QUERIES[0]), "I do not know."])
    wanted = expected(config, GOLD_QUERIES[:1], None)
    assert [reward for _, reward in output.token_rewards] == pytest.approx(wanted)
    assert output.token_rewards[0][0] > output.response_mask.index(0)  # not on the turn before


def test_who_answers_at_once_is_scored_too(play: Any, config: EnvironmentConfig) -> None:
    output = play([ANSWER])
    assert output.token_rewards == [(len(output.response_ids) - 1, expected(config, (), "Pesaro")[0])]


def test_a_message_that_calls_is_no_answer(play: Any, config: EnvironmentConfig) -> None:
    """Verl ends the rollout before it searches."""
    output = play([call(GOLD_QUERIES[0]), f"{ANSWER}\n{call(GOLD_QUERIES[1])}"], max_assistant_turns=2)
    assert [reward for _, reward in output.token_rewards] == pytest.approx(expected(config, GOLD_QUERIES[:1], None))


def test_calls_at_the_same_time_are_no_more_than_are_left(play: Any, config: EnvironmentConfig) -> None:
    once = replace(config, max_turns=1)
    output = play(["\n".join(map(call, GOLD_QUERIES)), ANSWER], once, max_parallel_calls=2)
    assert [reward for _, reward in output.token_rewards] == pytest.approx(expected(once, GOLD_QUERIES[:1], "Pesaro"))


def test_documents_are_opened_and_words_found(play: Any, config: EnvironmentConfig, tokenizer: Any) -> None:
    """One call a turn is run, whatever verl allows, and only searches are paid."""
    reading = replace(config, tools=("open", "find"))
    opened, found = call("d1").replace("search", "open").replace("query", "id"), call("d1").replace("search", "find")
    turns = [opened, call(GOLD_QUERIES[0]) + "\n" + opened, opened, found.replace("query", "id"), ANSWER]
    output = play(turns, reading, max_parallel_calls=2)
    assert [reward for _, reward in output.token_rewards] == pytest.approx(expected(config, GOLD_QUERIES[:1], "Pesaro"))
    text = tokenizer.decode(output.response_ids)
    assert text.count("Search first.") == text.count("a turn has 1 at most") == 1
    assert text.count("The Barber of Seville (id d1)") == 2
    assert "There are no words to find." in text


def test_a_tool_that_its_config_lacks_is_refused(config: EnvironmentConfig) -> None:
    with pytest.raises(ConfigError, match="open is not among the tools"):
        OpenTool({"store": config.store})


def test_what_did_not_fit_is_not_paid_for(play: Any, config: EnvironmentConfig) -> None:
    """Verl ends the rollout with the call, after the search."""
    output = play([*map(call, GOLD_QUERIES), ANSWER], response_length=1_600)
    assert [reward for _, reward in output.token_rewards] == pytest.approx(expected(config, GOLD_QUERIES[:1], None))


def test_documents_that_verl_would_cut_are_an_error(play: Any) -> None:
    with pytest.raises(ConfigError, match="max_tool_response_length"):
        play([call(GOLD_QUERIES[0]), ANSWER], max_tool_response_length=256)


def test_an_engine_that_is_down_ends_the_rollout(play: Any, config: EnvironmentConfig) -> None:
    settings = ("engines.http.max_attempts=1", "engines.http.patience=0.1")
    down = replace(config, engine="http=http://127.0.0.1:9", settings=settings)
    with pytest.raises(SearchError, match="does not answer"):
        play([call(GOLD_QUERIES[0]), ANSWER], down)


def test_a_response_in_tags_is_scored(tagged_config: EnvironmentConfig) -> None:
    played = TaggedEnvironment(tagged_config)
    played.reset(QUESTION)
    for turn in (f"<think> t </think><search> {GOLD_QUERIES[0]} </search>", "<answer> Pesaro </answer>"):
        played.step(turn)
    row = SimpleNamespace(**row_for(tagged_config))
    truth = row.reward_model["ground_truth"]
    scored = compute_score(row.data_source, played.episode.text, truth, row.extra_info)
    assert scored["score"] == pytest.approx(sum(played.rewards))
    assert scored["answer_em"] == 1
    given = (row.data_source, played.episode.text, truth, row.extra_info)
    assert compute_score(*given, switches=["key_weight=0"])["score"] == pytest.approx(
        scored["score"] - scored["search_key_score"] * 0.618
    )
    with pytest.raises(ConfigError, match="preset"):
        compute_score(*given, preset="papr")  # type: ignore[arg-type]
