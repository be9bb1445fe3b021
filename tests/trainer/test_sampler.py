"""Turns with a cache that is kept are the turns of a model that reads everything anew."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stepsearch_data.core.errors import SearchError
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.ahead import CopySampler
from stepsearch_data.trainer.causal_lm import log_probabilities
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.demo.tiny import make_model
from stepsearch_data.trainer.loading import make_search_env
from stepsearch_data.trainer.rollout import roll_out
from stepsearch_data.trainer.sampler import CachedSampler, ReportingSampler, end_tokens
from stepsearch_data.trainer.search_env import SearchEnv
from tests.trainer.tiny import TASKS, retrieve


class Recorder(CachedSampler):
    """Notes the log-probability of each sampled token, as the sampler saw it."""

    def __init__(self, *of: Any, **options: Any) -> None:
        super().__init__(*of, **options)
        self.seen: list[float] = []

    def _sample(self, logits: Any) -> list[int]:
        tokens = super()._sample(logits)
        rows = torch.log_softmax(logits, dim=-1)
        self.seen += [float(rows[row, token]) for row, token in enumerate(tokens)]
        return tokens


def anew(model: Any, tokens: list[int]) -> Any:
    """Log-probabilities of tokens 1 … n − 1 by one plain pass."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


def test_sampled_tokens_have_the_probabilities_of_a_full_pass(policy: Any, tokenizer: Any, env: SearchEnv) -> None:
    """Rows of different lengths, several turns, dropped rows: 64 episodes of a random model hold them all."""
    torch.manual_seed(0)
    sampler = Recorder(policy, tokenizer)
    episodes = roll_out(TASKS * 16, env, sampler, retrieve)
    assert {episode.turns for episode in episodes} >= {1, 4}
    expected = []
    for episode in episodes:
        full = anew(policy, episode.prompt_ids + episode.response_ids)
        own = torch.tensor(episode.response_mask)
        expected += full[len(episode.prompt_ids) - 1 :][own].tolist()
    assert sorted(sampler.seen) == pytest.approx(sorted(expected), abs=2e-5)


def test_a_copy_tells_the_probabilities_of_the_weights_that_it_took(
    policy: Any, tokenizer: Any, env: SearchEnv
) -> None:
    sampler = CopySampler(policy, tokenizer, temperature=1.0)
    with torch.no_grad():
        policy.model.embed_tokens.weight.mul_(1.5)
    sampler.take_weights()
    before = deepcopy(policy)
    with torch.no_grad():
        policy.model.embed_tokens.weight.mul_(1.5)
    sampler.seed = (3,)
    for episode in roll_out(TASKS * 8, env, sampler, retrieve):
        full = anew(before, episode.prompt_ids + episode.response_ids)[len(episode.prompt_ids) - 1 :]
        own = full[torch.tensor(episode.response_mask)]
        assert episode.sampling_logps == pytest.approx(own.tolist(), abs=2e-5)


def test_log_probabilities_and_entropies_are_those_of_a_full_pass(policy: Any, tokenizer: Any, env: SearchEnv) -> None:
    torch.manual_seed(0)
    sampler = ReportingSampler(policy, tokenizer, temperature=0.7)
    episodes = roll_out(TASKS * 8, env, sampler, retrieve)
    for episode, entropies in zip(episodes, sampler.entropies(), strict=True):
        ids, own = (
            torch.tensor([of_prompt + of_response])
            for of_prompt, of_response in (
                (episode.prompt_ids, episode.response_ids),
                ([False] * len(episode.prompt_ids), episode.response_mask),
            )
        )
        logps, expected = log_probabilities(policy, ids, own, 0.7, entropy=True)
        assert episode.sampling_logps == pytest.approx(logps[own].tolist(), abs=5e-5)
        assert entropies == pytest.approx(expected[own].tolist(), abs=5e-5)


def test_tokens_are_drawn_with_their_probabilities(policy: Any, tokenizer: Any) -> None:
    """And none with probability 0, whatever number is drawn."""
    sampler = CachedSampler(policy, tokenizer, temperature=0.5)
    sampler.start([[5]] * 4000)
    sampler._writing = list(range(4000))
    logits = torch.tensor([-torch.inf, 0.0, 0.5, -torch.inf]).expand(4000, 4)
    share = sum(token == 2 for token in sampler._sample(logits)) / 4000
    assert share == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.04)
    for chance in (0.0, 1 - 2**-53):
        always: Any = SimpleNamespace(random=lambda chance=chance: chance)
        sampler._streams = [always] * 4000
        assert set(sampler._sample(logits)) <= {1, 2}


class Searching(CachedSampler):
    """Likes to search."""

    def _sample(self, logits: Any) -> list[int]:
        liked = logits.clone()
        liked[:, self._tokenizer.convert_tokens_to_ids([" <search>", " </search>"])] += 2
        return super()._sample(liked)


def test_an_episode_goes_on_while_another_waits_for_its_documents(policy: Any, tokenizer: Any, env: SearchEnv) -> None:
    """And writes what it would have written: every row draws from a stream of its own."""
    torch.manual_seed(1)
    tasks = TASKS * 32
    plain = roll_out(tasks, env, Searching(policy, tokenizer), retrieve)
    asked: list[str] = []

    def late(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        """Answer the first query after all of the others that do not come from its episode."""
        asked.extend(queries)
        if len(asked) == 1:
            assert others.wait(60)
        elif len(asked) == wanted:
            others.set()
        return retrieve(queries, k)

    searching = [episode for episode in plain if episode.searches]
    wanted = sum(len(episode.searches) for episode in searching[1:]) + 1
    assert wanted > len(searching)  # some search again
    others = threading.Event()
    torch.manual_seed(1)
    with ThreadPoolExecutor(1 + len(searching)) as pool:
        apart = roll_out(tasks, env, Searching(policy, tokenizer), late, pool)
    assert [episode.response_ids for episode in apart] == [episode.response_ids for episode in plain]


def test_an_engine_that_is_down_ends_the_rollouts(policy: Any, tokenizer: Any, env: SearchEnv) -> None:
    def down(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
        raise SearchError(f"no answer to {queries[0]}")

    with ThreadPoolExecutor(2) as pool, pytest.raises(SearchError, match="no answer"):
        roll_out(TASKS * 16, env, Searching(policy, tokenizer), down, pool)


def test_a_row_does_not_see_its_neighbours(policy: Any, tokenizer: Any, env: SearchEnv) -> None:
    together = roll_out(TASKS, env, CachedSampler(policy, tokenizer, temperature=0), retrieve)
    for task, among in zip(TASKS, together, strict=True):
        (alone,) = roll_out([task], env, CachedSampler(policy, tokenizer, temperature=0), retrieve)
        assert alone.response_ids == among.response_ids
        assert alone.text == among.text


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it by that name
def test_new_adapters_change_nothing(policy: Any, tokenizer: Any, env: SearchEnv) -> None:
    """They hide the model's signature, by which the sampler knows what its cache is called."""
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(deepcopy(policy), peft.LoraConfig(target_modules="all-linear"))
    episodes, plain = (
        roll_out(TASKS, env, CachedSampler(model, tokenizer, temperature=0), retrieve) for model in (adapted, policy)
    )
    assert [episode.response_ids for episode in episodes] == [episode.response_ids for episode in plain]


def test_the_same_seed_rolls_out_the_same(policy: Any, tokenizer: Any, env: SearchEnv) -> None:
    def tokens(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        return [episode.response_ids for episode in roll_out(TASKS, env, CachedSampler(policy, tokenizer), retrieve)]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_a_turn_stops_at_a_closing_tag_at_its_budget_or_at_the_end_of_text(policy: Any, tokenizer: Any) -> None:
    torch.manual_seed(0)
    sampler = CachedSampler(policy, tokenizer)
    sampler.start([[5, 6]] * 200)
    turns = sampler.generate([9] * 200)
    stops = {*tokenizer.convert_tokens_to_ids([" </search>", " </answer>"]), tokenizer.eos_token_id}
    assert any(len(turn) < 9 for turn in turns)
    for turn in turns:
        assert not stops & set(turn[:-1])
        assert turn[-1] in stops or len(turn) == 9


def test_a_template_that_refuses_messages_ends_no_turn(policy: Any, tokenizer: Any) -> None:
    """Prompts may be written without it."""
    tokenizer = copy.deepcopy(tokenizer)
    without = end_tokens(policy, tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no messages') }}"
    assert end_tokens(policy, tokenizer) == without


def test_a_row_without_budget_writes_nothing_and_goes_on(policy: Any, tokenizer: Any) -> None:
    sampler = CachedSampler(policy, tokenizer, temperature=0)
    sampler.start([[5, 6], [5, 6]])
    first = sampler.generate([0, 4])
    assert first[0] == []
    sampler.extend([0, 1], [[7], [7]])
    second = sampler.generate([4, 4])
    alone = CachedSampler(policy, tokenizer, temperature=0)
    alone.start([[5, 6, 7]])
    assert second[0] == alone.generate([4])[0]


def test_after_a_token_that_reaches_beyond_a_stop_the_next_turn_has_the_probabilities_of_a_full_pass() -> None:
    """A byte-level vocabulary with `></`, as Qwen's and Llama 3's have."""
    said = "<think> so </think>\n<search> capital France </search></think>"
    tokenizer = byte_level([said] * 20)
    script = tokenizer.encode(said[: -len("think>")])
    assert tokenizer.decode(script[-1:]) == "></"
    model = make_model(tokenizer, width=16, layers=2, seed=1)

    class Forced(Recorder):
        """Writes the script, then what it likes."""

        def _sample(self, logits: Any) -> list[int]:
            free = super()._sample(logits)
            return [script[len(self.seen) - 1]] if len(self.seen) <= len(script) else free

    torch.manual_seed(0)
    sampler = Forced(model, tokenizer)
    limits = Limits(max_turns=1, topk=1, max_length=300, max_new_tokens=len(script), max_obs_length=60)
    (episode,) = roll_out(
        TASKS[:1], make_search_env(model, tokenizer, load_template("musique"), limits), sampler, retrieve
    )
    assert [search.query for search in episode.searches] == ["capital France"]
    assert tokenizer.decode(episode.response_ids).startswith(f"{said[: -len('</think>')]}\n<information>")
    full = anew(model, episode.prompt_ids + episode.response_ids)[len(episode.prompt_ids) - 1 :]
    assert sampler.seen[len(script) :] == pytest.approx(full[episode.turn_end - len(script) :].tolist(), abs=2e-5)


def byte_level(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer of these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
