"""Rollouts that keep what was read, against reading the whole text at every turn; then whole updates.

Models of random weights write scripted episodes of one to six turns, so that each way of sampling computes
the same tokens; the retriever answers at once. Repetitions alternate, so that a busy machine slows all. On a CPU the
model is the demo's, and processor seconds count; with a CUDA device a second model has the architecture and
size of Qwen2.5-0.5B, and its seconds are those of the clock:

    python benchmarks/rollouts.py [--episodes 128] [--repetitions 5] [--updates 3]
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config
from transformers.utils import logging

from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.causal_lm import trunk_of
from stepsearch_data.trainer.config import Limits, PPOConfig, Schedule
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer
from stepsearch_data.trainer.loading import make_search_env
from stepsearch_data.trainer.model import Critic
from stepsearch_data.trainer.rollout import roll_out
from stepsearch_data.trainer.sampler import CachedSampler
from stepsearch_data.trainer.search_env import Task
from stepsearch_data.trainer.steppo_trainer import StePPOTrainer

TEMPLATE = load_template("musique")
LIMITS = Limits(max_turns=5, topk=3, max_length=2048, max_new_tokens=120, max_obs_length=400)
WORDS = [f"w{number}" for number in range(2_000)]
CHANCE = random.Random(0)
PARAGRAPHS = [Paragraph(f"Title {at}", " ".join(CHANCE.choices(WORDS, k=80))) for at in range(200)]


def retrieve(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
    """Return paragraphs that depend only on the query."""
    return [random.Random(query).sample(PARAGRAPHS, k) for query in queries]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of all that is read and written here."""
    shown = f"\n{TEMPLATE.observation(PARAGRAPHS[:3])}\n<search> </search><answer> </answer><warning> </warning>"
    return make_tokenizer([shown, *(f" {word}" for word in WORDS), *(f"## {each.title}" for each in PARAGRAPHS)])


def make_tasks(count: int) -> list[Task]:
    """Make questions with prompts of about 150 words."""
    prompts = (" ".join(CHANCE.choices(WORDS, k=CHANCE.randint(120, 180))) for _ in range(count))
    return [
        Task(str(at), "?", f"{prompt}\n", (WORDS[at],), support_docs=(PARAGRAPHS[at],))
        for at, prompt in enumerate(prompts)
    ]


class Script:
    """The text of each episode in place of the model's: some searches of 20 to 60 words, then an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, episodes: int) -> None:
        chance = random.Random(1)
        self._turns = [self._episode(chance) for _ in range(episodes)]
        self._encode = tokenizer.encode

    def _episode(self, chance: random.Random) -> str:
        searches = [f"<search> {_some(chance)} </search>" for _ in range(chance.randint(0, LIMITS.max_turns))]
        return "".join([*searches, f"<answer> {_some(chance)} </answer>"])

    def __iter__(self) -> Iterator[Iterator[int]]:
        yield from (iter(self._encode(text)) for text in self._turns)


def _some(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(20, 60)))


class Scripted(CachedSampler):
    """Samples as usual, then writes the script's tokens instead."""

    def __init__(self, *of: Any, script: Script, **options: Any) -> None:
        super().__init__(*of, **options)
        self._script = script

    def start(self, prompts: Sequence[list[int]]) -> None:
        """See `Sampler.start`."""
        super().start(prompts)
        self._says = list(self._script)

    def extend(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """See `Sampler.extend`."""
        super().extend(rows, observations)
        self._says = [self._says[row] for row in rows]

    def _read(self, rows: Sequence[int]) -> Tensor:
        self._rows = rows
        return super()._read(rows)

    def _sample(self, logits: Tensor) -> list[int]:
        super()._sample(logits)
        return [next(self._says[row]) for row in self._rows]


class EveryRow(Scripted):
    """Keeps the rows of episodes that have ended in the batch."""

    def start(self, prompts: Sequence[list[int]]) -> None:
        """See `Sampler.start`."""
        super().start(prompts)
        self._live = list(range(len(prompts)))

    def generate(self, max_new_tokens: Sequence[int]) -> list[list[int]]:
        """See `Sampler.generate`."""
        of_all = [0] * len(self._unread)
        for row, budget in zip(self._live, max_new_tokens, strict=True):
            of_all[row] = budget
        turns: list[list[int]] = super().generate(of_all)
        return [turns[row] for row in self._live]

    def extend(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:
        """See `Sampler.extend`."""
        self._live = [self._live[row] for row in rows]
        for row, seen in zip(self._live, observations, strict=True):
            self._unread[row] = self._unread[row] + seen


class EveryTurn(Scripted):
    """Reads the whole text again at every turn, as one call of `generate` per turn does. Ended episodes are dropped."""

    def __init__(self, *of: Any, **options: Any) -> None:
        super().__init__(*of, **options)
        self._has_kv_cache = False


WAYS = {"kept, ended rows dropped": Scripted, "kept, all rows": EveryRow, "read anew every turn": EveryTurn}


@dataclass
class Bench:
    """A model, and the tasks that it is measured with."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    tasks: list[Task]
    cpu: bool

    def __post_init__(self) -> None:
        self.env = make_search_env(self.model, self.tokenizer, TEMPLATE, LIMITS)
        self.script = Script(self.tokenizer, len(self.tasks))

    def clock(self) -> float:
        """Return seconds: the processor's, or with a GPU those until all of its work is done."""
        if self.cpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def rollouts(self, repetitions: int) -> None:
        """Print the tokens per second of each way of sampling, and the ratios of each pair."""
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        texts, written = {}, 0
        for repetition in range(repetitions + 1):  # the first warms up
            for name, way in WAYS.items():
                sampler = way(self.model, self.tokenizer, script=self.script)
                begun = self.clock()
                with torch.autocast("cuda", torch.bfloat16, enabled=not self.cpu):
                    episodes = roll_out(self.tasks, self.env, sampler, retrieve)
                times[name] += [self.clock() - begun] if repetition else []
                texts[name] = [episode.response_ids for episode in episodes]
                written = sum(sum(episode.response_mask) for episode in episodes)
        ours, *others = WAYS
        assert all(texts[name] == texts[ours] for name in others), "the ways wrote different episodes"
        searches = sum(len(episode.searches) for episode in episodes) / len(episodes)
        print(f"{self.name}: {len(self.tasks)} episodes, {written:,} policy tokens, {searches:.1f} searches each")
        for name, seconds in times.items():
            median = statistics.median(seconds)
            print(f"  {name:<26} median {median:7.2f} s, {written / median:8,.0f} policy tokens/s")
        for name in others:
            ratios = [theirs / mine for theirs, mine in zip(times[name], times[ours], strict=True)]
            low, high = min(ratios), max(ratios)
            print(f"  {name}: {statistics.median(ratios):.2f} times as long (of pairs: {low:.2f} to {high:.2f})")

    def updates(self, count: int, micro: int) -> None:
        """Print the tokens per second of rollouts and updates, the time of each part, and the peak of memory."""
        episodes = len(self.tasks)
        with tempfile.TemporaryDirectory() as folder:
            training = StePPOTrainer(
                self.model,
                Critic(trunk_of(AutoModelForCausalLM.from_config(self.model.config))),
                self.tokenizer,
                self.env,
                retrieve,
                self.tasks,
                Path(folder),
                schedule=Schedule(num_updates=count + 1, rollout_batch_size=episodes, save_steps=0, eval_steps=0),
                ppo=PPOConfig(mini_batch_size=episodes // 2, micro_batch_size=micro),
                accelerator=Accelerator(cpu=self.cpu, mixed_precision="no" if self.cpu else "bf16"),
                sampler=Scripted(self.model, self.tokenizer, script=self.script),
            )
            done = [training.training_step()[0] for _ in range(count + 1)][1:]
        parts = {
            name: [row[f"seconds_{name}"] for row in done] for name in ("rollout", "score", "advantages", "update")
        }
        medians = {name: statistics.median(seconds) for name, seconds in parts.items()}
        whole = sum(medians.values())
        print(f"  an update of {episodes} rollouts, median of {count}: {whole:.2f} s")
        for name, seconds in medians.items():
            print(f"    {name:<10} {seconds:7.2f} s  {seconds / whole:4.0%}")
        own, tokens = (done[0][name] * episodes for name in ("own_tokens", "tokens"))
        print(f"    rollout: {own / medians['rollout']:,.0f} policy tokens/s")
        print(f"    advantages and update: {tokens / (medians['advantages'] + medians['update']):,.0f} tokens/s")
        if not self.cpu:
            print(f"    peak of GPU memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def half_a_billion(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Make a model with the architecture and size of Qwen2.5-0.5B and random weights."""
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4_864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).cuda()
    return model


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=128, help="an even number")
    parser.add_argument("--repetitions", type=int, default=5, help="of each way, alternating")
    parser.add_argument("--updates", type=int, default=3, help="that are timed")
    parser.add_argument("--micro", type=int, default=8, help="rollouts of a forward pass on the GPU")
    options = parser.parse_args()
    tokenizer = word_tokenizer()
    logging.set_verbosity_error()
    tasks = make_tasks(options.episodes)
    benches = [(Bench("a tiny Llama on the CPU", make_model(tokenizer), tokenizer, tasks, cpu=True), 32)]
    if torch.cuda.is_available():
        name = f"Qwen2.5-0.5B's architecture on {torch.cuda.get_device_name()}"
        benches = [(Bench(name, half_a_billion(tokenizer), tokenizer, tasks, cpu=False), options.micro)]
    for bench, micro in benches:
        bench.model.eval()
        bench.rollouts(options.repetitions)
        bench.updates(options.updates, min(micro, options.episodes // 2))


if __name__ == "__main__":
    main()
