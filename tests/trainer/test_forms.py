"""Episodes in tags, in messages of a chat and with calls of a tool, by the published chat templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from transformers import AutoModelForCausalLM

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.indexes import Choice
from stepsearch_data.pipeline.store import Store
from stepsearch_data.rewards import PAPER, REFERENCE
from stepsearch_data.templates.examples import Example, Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.config import Chat, Limits
from stepsearch_data.trainer.data import demonstrate, load_examples, to_task
from stepsearch_data.trainer.episode_score import score_episode
from stepsearch_data.trainer.loading import make_form, make_search_env
from stepsearch_data.trainer.rollout import roll_out
from stepsearch_data.trainer.search_env import Episode, SearchEnv
from stepsearch_data.trainer.start import train
from tests.trainer.families import FAMILIES, SMALL, Family, config_of, make_tokenizer, named, save_tiny
from tests.trainer.test_families import SMALLER, recipe_of
from tests.trainer.test_sampler import Recorder, anew
from tests.trainer.test_steppo_trainer import metrics
from tests.trainer.tiny import TASKS, load, retrieve

MUSIQUE, TOOLS = load_template("musique"), load_template("tools")
FOUND = (Paragraph("France", "The capital of France is Paris"),)
WITH_TOOLS = [each for each in FAMILIES if each.recipe in {"qwen2.5-3b", "qwen3-4b", "llama-3.2-3b"}]
IN_CHATS = [*WITH_TOOLS, named("gemma-3-4b")]
TEXTS = [f"{MUSIQUE.parts['user']} {TOOLS.parts['system']} </search> </answer> {FOUND[0].text}"] * 3
CALLS = pytest.mark.parametrize("family", WITH_TOOLS, ids=lambda family: family.recipe)
Save = Callable[[Family], Path]


@cache
def tokenizer_of(family: Family) -> Any:
    return make_tokenizer(family, TEXTS, instruct=True)


class Ends:
    """A model, as far as its ends go."""

    class generation_config:  # noqa: N801 - as transformers names it
        eos_token_id = None


def env_of(family: Family, template: Any = TOOLS, **limits: int) -> tuple[SearchEnv, Any]:
    tokenizer = tokenizer_of(family)
    chat = Chat(turns=template.tool is None, variables=recipe_of(family).model.chat_template_kwargs)
    kept = Limits(**{"max_turns": 3, "topk": 1, "max_length": 8000, "max_new_tokens": 2000, **limits})
    ends: Any = Ends()
    return make_search_env(ends, tokenizer, template, kept, chat), tokenizer


def call(family: Family, query: Any = "capital France", name: str = "search", key: str | None = None) -> str:
    """A call as the family's models write it."""
    if family.kind == "llama3":
        return json.dumps({"name": name, key or "parameters": {"query": query}})
    return f"First.\n<tool_call>\n{json.dumps({'name': name, key or 'arguments': {'query': query}})}\n</tool_call>"


def turn(env: SearchEnv, tokenizer: Any, family: Family, text: str) -> list[int]:
    """The tokens of a turn, which ends with the message where nothing else ends it."""
    ends = [] if text.endswith(tuple(env.form.stops)) else [tokenizer.convert_tokens_to_ids(family.turn_end)]
    return [*env.encode(text), *ends]


def play(family: Family, turns: Sequence[str], template: Any = TOOLS, **limits: int) -> tuple[Episode, str]:
    """An episode of these turns, and all that the policy has read and written, as text."""
    env, tokenizer = env_of(family, template, **limits)
    episode = env.reset(TASKS[0])
    for text in turns:
        query = env.step(episode, turn(env, tokenizer, family, text))
        if query is not None:
            env.observe(episode, query, FOUND)
    return episode, str(tokenizer.decode(episode.prompt_ids + episode.response_ids))


def written(family: Family, messages: Sequence[dict[str, Any]], tools: Any = None) -> str:
    """A conversation as the family's chat template writes it, whole."""
    variables = recipe_of(family).model.chat_template_kwargs
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, "tools": tools}
    return str(tokenizer_of(family).apply_chat_template(messages, **options, **variables))


@pytest.mark.parametrize("family", IN_CHATS, ids=lambda family: family.recipe)
def test_a_chat_in_tags_is_the_one_that_the_template_writes(family: Family) -> None:
    """What is read turn by turn is what the whole conversation would be."""
    search = "<think> I look. </think>\n<search> capital France </search>"
    _, text = play(family, [search], MUSIQUE)
    user, shown = {"role": "user", "content": TASKS[0].prompt}, MUSIQUE.observation(FOUND)
    prompt = written(family, [user])
    assert text.startswith(f"{prompt}{search}{family.turn_end}")
    later = written(family, [user, {"role": "assistant", "content": "@"}, {"role": "user", "content": shown}])
    assert text == f"{prompt}{search}{later.partition('@')[2]}"


@pytest.mark.parametrize("family", IN_CHATS, ids=lambda family: family.recipe)
def test_a_message_that_says_neither_is_warned_by_the_user(family: Family) -> None:
    """Only the message has ended; its end stands once, and is what the policy wrote."""
    episode, text = play(family, ["Hm."], MUSIQUE)
    assert (episode.ended, episode.invalid, len(episode.searches)) == ("", 1, 0)
    assert text.count(f"Hm.{family.turn_end}") == 1
    assert f"{family.turn_end}{family.turn_end}" not in text
    own = [token for token, mine in zip(episode.response_ids, episode.response_mask, strict=True) if mine]
    assert tokenizer_of(family).decode(own) == f"Hm.{family.turn_end}"


@CALLS
def test_a_call_is_searched_and_its_result_is_the_tools(family: Family) -> None:
    episode, text = play(family, [call(family)])
    assert [search.query for search in episode.searches] == ["capital France"]
    prompt = written(family, TOOLS.prompt(TASKS[0].question), [{"type": "function", "function": TOOLS.tool}])
    assert text.startswith(f"{prompt}{call(family)}{family.turn_end}")
    shown = TOOLS.observation(FOUND)
    assert (json.dumps(shown) if family.kind == "llama3" else f"<tool_response>\n{shown}\n</tool_response>") in text
    assert f"{family.turn_end}{family.turn_end}" not in text
    beginning = written(family, [{"role": "user", "content": "x"}]).rpartition("x")[2]
    assert text.endswith(beginning.partition(family.turn_end)[2])
    last = episode.searches[0].token
    assert episode.response_mask[: last + 1] == [True] * (last + 1)
    assert not any(episode.response_mask[last + 1 :])
    ending = family.turn_end if family.kind == "llama3" else "</tool_call>"
    assert tokenizer_of(family).decode(episode.response_ids[: last + 1]).endswith(ending)


@CALLS
def test_rewards_lie_on_the_tokens_that_ended_the_calls(family: Family) -> None:
    episode, _ = play(family, [call(family), call(family), "So it is.\n<answer> Paris </answer>"])
    assert episode.ended == "answer"
    scored = score_episode(episode, PAPER)
    assert (scored.scores.format_ok, scored.scores.answer_em) == (True, 1)
    last = max(at for at, own in enumerate(episode.response_mask) if own)
    assert [token for token, _ in scored.token_rewards] == [*(search.token for search in episode.searches), last]
    # The gold paragraph; the same again; a right answer after a reference query.
    assert [reward for _, reward in scored.token_rewards] == pytest.approx([1, -1, 1 + 0.618])


@CALLS
@pytest.mark.parametrize(
    ("said", "warning"),
    [
        ("broken", "This call cannot be read. Write it as"),
        ("no arguments", "This call cannot be read. Write it as"),
        ("another tool", 'There is no tool \"browse\". Call search.'),
        ("no query", "There is no query. Search for a few words."),
        ("a number", "There is no query. Search for a few words."),
        ("neither", "This is neither a call of search nor an answer. Call search, or write"),
    ],
)  # fmt: skip
def test_a_call_that_is_wrong_is_told_and_tried_again(family: Family, said: str, warning: str) -> None:
    texts = {
        "broken": call(family).replace('"query":', '"query"'),
        "no arguments": call(family, key="given"),
        "another tool": call(family, name="browse"),
        "no query": call(family, " "),
        "a number": call(family, 7),
        "neither": "I do not know.",
    }
    episode, text = play(family, [texts[said], call(family)])
    assert episode.invalid == 1
    assert warning in text.replace('\\"', '"')
    assert [search.query for search in episode.searches] == ["capital France"]
    assert (said != "neither") == ("<tool_response>\nThis" in text or "<tool_response>\nThere" in text or '"Th' in text)


@CALLS
def test_tags_of_a_policy_that_calls_are_no_search(family: Family) -> None:
    """It may write them, and a made-up result, but nobody has searched."""
    made_up = f"<think> a </think><search> capital France </search><information> {FOUND[0].text} </information>"
    episode, _ = play(family, [f"{made_up}<answer> Paris </answer>"])
    scored = score_episode(episode, PAPER)
    assert (scored.total, scored.scores.search_key_score, scored.scores.format_ok) == (0, 0, False)


@CALLS
def test_when_no_search_is_left_it_is_told_and_a_call_more_is_not_run(family: Family) -> None:
    episode, text = play(family, [call(family), call(family, "Paris")], max_turns=1)
    assert (episode.ended, len(episode.searches), episode.asked) == ("no answer", 1, ["capital France", "Paris"])
    assert "No search is left. Answer now." in text
    assert score_episode(episode, REFERENCE).scores.format_ok is False


@CALLS
def test_long_documents_are_cut_and_rewards_read_what_was_shown(family: Family) -> None:
    env, tokenizer = env_of(family, max_obs_length=30)
    episode = env.reset(TASKS[0])
    query = env.step(episode, turn(env, tokenizer, family, call(family)))
    env.observe(episode, query or "", [Paragraph("France", "x " * 200 + FOUND[0].text)])
    (search,) = episode.searches
    assert search.shown.startswith("[1] France\n")
    assert len(env.encode(search.shown)) <= 40
    assert score_episode(episode).scores.information_gain == [0]


@CALLS
def test_a_demonstration_is_what_an_episode_would_be(family: Family, store: Path) -> None:
    """Token by token: the same prompt, calls, results and ends, and the policy's own tokens are learnt."""
    env, tokenizer = env_of(family)
    example: Example = next(iter(load_examples(Store.open(store), "train")))
    end = tokenizer.convert_tokens_to_ids(family.turn_end)
    row = demonstrate(example, TOOLS, env.form, env.encode, end)
    episode = env.reset(to_task(example, TOOLS))
    for at, step in enumerate(example.steps):
        text, ending = env.form.write(TOOLS.turn(example, at))
        assert env.step(episode, [*env.encode(text), *ending]) == step.search.query
        env.observe(episode, step.search.query, step.search.documents)
    env.step(episode, env.encode(TOOLS.last(example).text))
    assert episode.ended == "answer"
    assert row["input_ids"] == [*episode.prompt_ids, *episode.response_ids, end]
    learnt = [label != -100 for label in row["labels"]][len(episode.prompt_ids) : -1]
    assert learnt == episode.response_mask
    scored = score_episode(episode).scores
    assert (scored.answer_em, scored.format_ok) == (1, True)


@pytest.mark.parametrize(
    ("recipe", "instruct", "template", "chat", "said"),
    [
        ("gemma-3-4b", True, TOOLS, Chat(), "does not write calls of tools"),
        ("llama-3.2-3b", False, TOOLS, Chat(), "the template tools calls a tool, but the model has no chat template"),
        ("qwen3-4b", True, TOOLS, Chat(template=False), "calls a tool, but the model has no chat template"),
        (
            "llama-3.2-3b",
            False,
            MUSIQUE,
            Chat(turns=True),
            "model.chat_turns is set, but the model has no chat template",
        ),
    ],
)
def test_a_form_that_a_model_does_not_have(recipe: str, instruct: bool, template: Any, chat: Chat, said: str) -> None:
    tokenizer = make_tokenizer(named(recipe), TEXTS, instruct=instruct)
    with pytest.raises(ConfigError, match=said):
        make_form(tokenizer, template, chat)


@CALLS
def test_sampled_calls_have_the_probabilities_of_a_full_pass(family: Family) -> None:
    """Never tokenised anew: the text that is learnt from is the one that was sampled."""
    env, tokenizer = env_of(family, max_new_tokens=12, max_length=3000)
    torch.manual_seed(0)
    config = config_of(family.recipe, **SMALL, vocab_size=len(tokenizer))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    script = [turn(env, tokenizer, family, call(family)), turn(env, tokenizer, family, "Hm.")]

    class Forced(Recorder):
        """Writes a call, then a message that is none, then what it likes."""

        def _sample(self, logits: Any) -> list[int]:
            free = super()._sample(logits)
            at = len(self.seen) - 1
            flat = [token for each in script for token in each]
            return [flat[at]] if at < len(flat) else free

    rules = make_search_env(model, tokenizer, TOOLS, Limits(max_turns=3, topk=1, max_length=3000, max_new_tokens=60))
    sampler = Forced(model.eval(), tokenizer, stops=rules.form.stops)
    (episode,) = roll_out(TASKS[:1], rules, sampler, retrieve)
    assert [search.query for search in episode.searches] == ["capital France"]
    assert episode.invalid >= 1
    forced = sum(map(len, script))
    full = anew(model, episode.prompt_ids + episode.response_ids)[len(episode.prompt_ids) - 1 :]
    own = full[torch.tensor(episode.response_mask)].tolist()
    assert sampler.seen[forced:] == pytest.approx(own[forced:], abs=5e-5)


@pytest.fixture(scope="module")
def save(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Save:
    def saved(family: Family) -> Path:
        folder = tmp_path_factory.mktemp("forms")
        save_tiny(family, TEXTS, folder, instruct=True)
        return folder

    return saved


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # transformers asks for it itself
@pytest.mark.parametrize(
    ("recipe", "settings"),
    [(each.recipe, ("template=tools",)) for each in WITH_TOOLS]
    + [(each.recipe, ("model.chat_turns=true",)) for each in IN_CHATS],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_recipe_trains_in_the_form(
    recipe: str, settings: tuple[str, ...], save: Save, store: Path, tmp_path: Path
) -> None:
    """From a cold start in that form to an update."""
    torch.set_num_threads(1)
    family = named(recipe)
    tiny = [f"model.path={save(family)}", f"store={store}", f"output={tmp_path / 'run'}", *SMALLER, *settings]
    sft = ["sft.max_steps=2", "sft.batch_size=2", "sft.micro_batch_size=1", "sft.max_length=6000"]
    longer = ["limits.max_length=4000", "limits.max_turns=1"]
    chosen = recipe_of(family, *tiny, *sft, *longer).model_copy(update={"vllm": None})
    train(chosen, Choice(store=store), load, lambda _: None, resume=False, quiet=True)
    (row,) = [row for row in metrics(tmp_path / "run") if row["update"]]
    assert row["own_tokens"] > 0
    assert row["invalid"] > 0  # random weights: told, and tried again
    assert row["policy_grad_norm"] > 0
    assert row["kl"] == pytest.approx(0, abs=1e-5)
