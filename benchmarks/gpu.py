"""What ten minutes on one GPU can tell of the trainer: is it right, how fast, and how far from the device's limits.

Models have the shape of Qwen2.5-0.5B (3B in `big`) and random weights; episodes are written by a script
(`benchmarks/rollouts.py`), so every way of sampling writes the same tokens. Each section is a process of its own with
a limit of time, and a failure stops nothing. Figures are those of the machine that this runs on, which `env` names.
`--cpu` does the same with a few thousand weights in a minute or two: it tells that the benchmark works, nothing else.

    python -m benchmarks.gpu [--only env,update] [--cpu] [--json]
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config
from transformers.utils import logging

from benchmarks.rollouts import LIMITS, TEMPLATE, WAYS, Script, make_tasks, retrieve, word_tokenizer
from stepsearch_data.trainer.ahead import CopySampler
from stepsearch_data.trainer.batch import Batch, collate
from stepsearch_data.trainer.causal_lm import _LogSoftmax, log_probabilities, trunk_of
from stepsearch_data.trainer.config import Limits, PPOConfig, Schedule
from stepsearch_data.trainer.episode_score import score_episode
from stepsearch_data.trainer.estimate import FILLED, Estimate, estimate_for
from stepsearch_data.trainer.loading import CHECKPOINTING, make_search_env
from stepsearch_data.trainer.model import ActorCritic, Critic, ReferencePolicy
from stepsearch_data.trainer.optimizer import make_optimizer
from stepsearch_data.trainer.recipe import Model, Recipe, Vllm
from stepsearch_data.trainer.rollout import Sampler, roll_out
from stepsearch_data.trainer.search_env import Episode
from stepsearch_data.trainer.steppo_trainer import StePPOTrainer
from stepsearch_data.trainer.update import compute_advantages, ppo_update

SHAPES = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4_864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "3B": {"hidden_size": 2_048, "intermediate_size": 11_008, "num_hidden_layers": 36, "num_attention_heads": 16},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}
VOCABULARY, GIB = 151_936, 2**30
HALF = torch.bfloat16
_MANY = 1000  # from which on no decimals are shown
Figures = Iterator[tuple[str, dict[str, float | str]]]
"""What was measured, and its values."""


@dataclass(frozen=True)
class Machine:
    """The device, and how much it is given to do."""

    cuda: bool

    @property
    def device(self) -> torch.device:
        """Return the device."""
        return torch.device("cuda" if self.cuda else "cpu")

    def of(self, gpu: int, cpu: int) -> int:
        """Choose a size."""
        return gpu if self.cuda else cpu

    def clock(self) -> float:
        """Return seconds, when all work is done."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, work: Callable[[], object], times: int = 3) -> float:
        """Return the median of some runs after one that warms up."""
        work()
        taken = []
        for _ in range(times):
            begun = self.clock()
            work()
            taken.append(self.clock() - begun)
        return statistics.median(taken)

    def forget(self) -> None:
        """Begin to measure the peak of memory."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        """Return the peak of memory in GiB; not known of a CPU."""
        return torch.cuda.max_memory_allocated() / GIB if self.cuda else 0.0

    def half(self, *, on: bool = True) -> Any:
        """Compute in bfloat16 in a block."""
        return torch.autocast(self.device.type, HALF, enabled=on)

    def accelerator(self) -> Accelerator:
        """Make one that computes in bfloat16."""
        return Accelerator(mixed_precision="bf16", cpu=not self.cuda)

    def matmul(self) -> float:
        """Return the operations per second of a large matrix product in bfloat16: the ceiling of an update."""
        size = self.of(8192, 512)
        a, b = (torch.randn(size, size, device=self.device, dtype=HALF) for _ in range(2))
        operations: float = 2 * size**3
        return operations / self.seconds(lambda: a @ b, 10)

    def copying(self) -> float:
        """Return the bytes per second that a copy reads and writes: the ceiling of writing token by token."""
        source = torch.empty(self.of(2**30, 2**22), device=self.device, dtype=torch.uint8)
        target = torch.empty_like(source)
        size: int = source.numel()
        return 2 * size / self.seconds(lambda: target.copy_(source), 10)

    def model(self, tokenizer: PreTrainedTokenizerFast, shape: str, dtype: torch.dtype = torch.float32) -> Any:
        """Make a model of random weights."""
        torch.manual_seed(0)
        config = Qwen2Config(
            **SHAPES[shape if self.cuda else "tiny"],
            num_key_value_heads=2,
            vocab_size=VOCABULARY if self.cuda else len(tokenizer),
            tie_word_embeddings=True,
            max_position_embeddings=8192,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        with self.device:
            return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


class Written:
    """Writes the script without asking a model."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, script: Script) -> None:
        self._tokenizer, self._script = tokenizer, script

    def start(self, prompts: Sequence[list[int]]) -> None:  # noqa: ARG002 - as `Sampler` has it
        """See `Sampler.start`."""
        self._says = list(self._script)

    def generate(self, max_new_tokens: Sequence[int]) -> list[list[int]]:
        """See `Sampler.generate`."""
        turns: list[list[int]] = [[] for _ in max_new_tokens]
        for turn, says, most in zip(turns, self._says, max_new_tokens, strict=True):
            for token in says if most else ():
                turn.append(token)
                if len(turn) == most or self._tokenizer.decode([token]).strip() in {"</search>", "</answer>"}:
                    break
        return turns

    def replace_last(self, row: int, tokens: Sequence[int]) -> None:
        """See `Sampler.replace_last`."""

    def extend(self, rows: Sequence[int], observations: Sequence[list[int]]) -> None:  # noqa: ARG002
        """See `Sampler.extend`."""
        self._says = [self._says[row] for row in rows]


def played(
    machine: Machine, model: Any, tokenizer: Any, sampler: Sampler, count: int, limits: Limits, *, half: bool
) -> list[Episode]:
    """Play some episodes."""
    torch.manual_seed(1)
    with machine.half(on=half):
        return roll_out(make_tasks(count), make_search_env(model, tokenizer, TEMPLATE, limits), sampler, retrieve)


def batch_of(machine: Machine, episodes: Sequence[Episode]) -> Batch:
    """Make a batch of episodes and their rewards."""
    return collate(episodes, [score_episode(each).token_rewards for each in episodes], 0, machine.device)


def scripted(machine: Machine, model: Any, tokenizer: Any, count: int, limits: Limits = LIMITS) -> Batch:
    """Make a batch of the script's episodes."""
    sampler = Written(tokenizer, Script(tokenizer, count))
    return batch_of(machine, played(machine, model, tokenizer, sampler, count, limits, half=False))


# ---- sections


def env(machine: Machine) -> Figures:
    """Tell the machine and the versions, and measure its ceilings."""
    found = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "accelerate")}
    name = torch.cuda.get_device_name() if machine.cuda else "CPU"
    memory = torch.cuda.get_device_properties(0).total_memory / GIB if machine.cuda else 0.0
    yield "machine", {"device": name, "memory_gib": memory, **found}
    yield "ceilings", {"bf16_tflops": machine.matmul() / 1e12, "copy_gb_per_s": machine.copying() / 1e9}


def kernel(machine: Machine) -> Figures:
    """Compare log-probability and entropy, ours and TRL's, with float64: values, gradients, seconds."""
    from trl.trainer.utils import selective_log_softmax_and_entropy

    vocabulary, tokens = machine.of(VOCABULARY, 997), machine.of(1024, 64)
    entropy = True
    ways: dict[str, Callable[[Tensor, Tensor], Any]] = {
        "ours": lambda logits, index: _LogSoftmax.apply(logits.float(), index, entropy),
        "ours without entropy": lambda logits, index: _LogSoftmax.apply(logits.float(), index, not entropy),
        "TRL's": selective_log_softmax_and_entropy,
    }
    for dtype in (torch.float32, HALF):
        torch.manual_seed(0)
        logits = (3 * torch.randn(tokens, vocabulary, device=machine.device)).to(dtype).requires_grad_()
        index = torch.randint(0, vocabulary, (tokens,), device=machine.device)
        exact = logits[:64].detach().double().requires_grad_()
        wanted = torch.log_softmax(exact, dim=-1).gather(1, index[:64, None])[:, 0]
        (gradient,) = torch.autograd.grad(wanted.sum(), exact)
        for name, way in ways.items():
            got = way(logits, index)[0]
            (ours,) = torch.autograd.grad(got.sum(), logits)

            def both(way: Any = way, logits: Tensor = logits, index: Tensor = index) -> None:
                torch.autograd.grad(way(logits, index)[0].sum(), logits)

            machine.forget()
            before = machine.peak()
            seconds = machine.seconds(both)
            yield (
                f"{name}, {str(dtype).removeprefix('torch.')}",
                {
                    "logp_error": apart(got[:64], wanted),
                    "gradient_error": apart(ours[:64], gradient),
                    "ms": 1000 * seconds,
                    "peak_gib": machine.peak() - before,
                },
            )


def apart(ours: Tensor, exact: Tensor) -> float:
    """Return the relative error."""
    return float((ours.double() - exact).norm() / exact.norm())


def parity(machine: Machine) -> Figures:
    """Compare what the sampler and the trainer make of the same tokens, and the first ratio of rows cut otherwise."""
    tokenizer = word_tokenizer()
    policy = machine.model(tokenizer, "0.5B")
    limits = Limits(max_turns=3, topk=2, max_length=900, max_new_tokens=machine.of(100, 20), max_obs_length=200)
    for half in (False, True):
        sampler = CopySampler(policy, tokenizer, temperature=1.0)
        episodes = played(machine, policy, tokenizer, sampler, machine.of(32, 6), limits, half=half)
        batch = batch_of(machine, episodes)
        mask = batch.response_mask
        with torch.no_grad(), machine.half(on=half):
            parts = [batch.rows(rows) for rows in torch.arange(len(batch)).split(4)]
            logps = [log_probabilities(policy, part.input_ids, part.response_mask, 1.0)[0] for part in parts]
            others = [batch.rows(rows) for rows in torch.arange(len(batch)).split(3)]
            again = [log_probabilities(policy, part.input_ids, part.response_mask, 1.0)[0] for part in others]
        own = torch.cat([each[part.response_mask] for each, part in zip(logps, parts, strict=True)])
        ratio = torch.cat([each[part.response_mask] for each, part in zip(again, others, strict=True)]) - own
        off = own - batch.sampling_logps[mask]
        yield (
            f"sampler and trainer, {'bfloat16' if half else 'float32'}",
            {
                "tokens": len(off),
                "mean_difference": float(off.abs().mean()),
                "largest": float(off.abs().max()),
                "kl_k3": float((off.expm1() - off).mean()),
                "first_ratio_from_1": float(ratio.expm1().abs().max()),
            },
        )


def rollouts(machine: Machine) -> Figures:
    """Measure tokens per second of each way of sampling, against what reading the weights once per token allows."""
    tokenizer = word_tokenizer()
    policy, count = machine.model(tokenizer, "0.5B"), machine.of(64, 6)
    script, bandwidth = Script(tokenizer, count), machine.copying()
    weights = sum(parameter.numel() for parameter in policy.parameters()) * 2
    for name, way in WAYS.items():
        sampler = way(policy, tokenizer, script=script)
        for last in (False, True):
            machine.forget()
            begun = machine.clock()
            episodes = played(machine, policy, tokenizer, sampler, count, LIMITS, half=True)
            seconds = machine.clock() - begun
            own = sum(sum(episode.response_mask) for episode in episodes)
            if last:
                ceiling = count * bandwidth / weights
                told = {"tokens_per_s": own / seconds, "of_bandwidth": own / seconds / ceiling}
                yield name, {"episodes": count, "own_tokens": own, "s": seconds, **told, "peak_gib": machine.peak()}


def update(machine: Machine) -> Figures:
    """Measure an update by micro batches: tokens per second, MFU of the measured ceiling, peak of memory."""
    count = machine.of(32, 4)
    ways = [(4, 0, False), (8, 0, False), (8, 0, True), (16, 0, True), (4, 16_384, True)]
    for micro, tokens, checkpointing in ways if machine.cuda else [(2, 0, False), (2, 900, True)]:
        ppo = PPOConfig(mini_batch_size=count, micro_batch_size=micro, micro_batch_tokens=tokens)
        name = f"{tokens} tokens" if tokens else f"{micro} rollouts"
        yield (
            f"{name}{', checkpointing' * checkpointing}",
            one_update(machine, "0.5B", ppo, LIMITS, checkpointing=checkpointing),
        )


def big(machine: Machine) -> Figures:
    """Measure an update of Qwen2.5-3B's shape, all weights float32."""
    limits = (
        Limits(max_turns=5, topk=3, max_length=4096, max_new_tokens=500, max_obs_length=600) if machine.cuda else LIMITS
    )
    ppo = PPOConfig(mini_batch_size=machine.of(8, 4), micro_batch_size=2)
    yield "3B", one_update(machine, "3B", ppo, limits, checkpointing=True)


def one_update(
    machine: Machine, shape: str, ppo: PPOConfig, limits: Limits, *, checkpointing: bool
) -> dict[str, float | str]:
    """Take updates on one batch; return what the last took."""
    tokenizer, ceiling = word_tokenizer(), machine.matmul()
    machine.forget()
    policy = machine.model(tokenizer, shape)
    critic = Critic(trunk_of(machine.model(tokenizer, shape))).to(machine.device)
    for each in (policy, critic.trunk) if checkpointing else ():
        getattr(each, f"{CHECKPOINTING}_enable")()
    accelerator, rows = machine.accelerator(), ppo.mini_batch_size
    optimizer, rates = make_optimizer(policy, critic, Schedule(), 100)
    inner = ActorCritic(policy, critic)
    model, prepared = accelerator.prepare(inner, optimizer)
    batch = scripted(machine, policy, tokenizer, rows, limits)
    reference, tokens = ReferencePolicy(policy), int(batch.lengths.sum())
    parameters = {"policy": list(policy.parameters()), "critic": list(critic.parameters())}
    for _ in range(2):
        begun = machine.clock()
        compute_advantages(model, reference, batch, ppo, accelerator)
        between = machine.clock()
        model.train()
        told = ppo_update(model, parameters, prepared, rates, batch, ppo, accelerator)
        model.eval()
        ended = machine.clock()

    def reckoned(length: int, *, again: bool) -> Estimate:
        recipe = Recipe(
            model=Model(path=shape, gradient_checkpointing=again),
            bf16=True,
            schedule=Schedule(rollout_batch_size=rows),
            ppo=ppo,
            limits=replace(limits, max_length=length),
        )
        return estimate_for(recipe, policy.config, critic.trunk.config)

    # It takes so much of the length as filled. What checkpointing computes again is no use of the model's operations.
    operations = reckoned(round(tokens / rows / FILLED), again=False).operations
    longest = reckoned(int(batch.lengths.max()), again=checkpointing)
    memory = sum(part.size for part in longest.parts if part.phase in {"always", "update"})
    return {
        "tokens": tokens,
        "advantages_s": between - begun,
        "update_s": ended - between,
        "tokens_per_s": tokens / (ended - begun),
        "mfu": operations / (ended - begun) / ceiling,
        "peak_gib": machine.peak(),
        "reckoned_gib": memory / GIB,
        "policy_grad_norm": told["policy_grad_norm"],
    }


def resume(machine: Machine) -> Figures:
    """Compare a run with the same again, and with one that was stopped and resumed."""
    tokenizer, tasks = word_tokenizer(), make_tasks(32)
    found: dict[str, list[dict[str, float]]] = {}
    limits = Limits(max_turns=3, topk=2, max_length=700, max_new_tokens=machine.of(40, 10), max_obs_length=100)
    with tempfile.TemporaryDirectory() as folder:
        for name, stops in {"whole": [4], "again": [4], "stopped": [2, 4]}.items():
            for stop in stops:
                policy = machine.model(tokenizer, "tiny")
                training = StePPOTrainer(
                    policy,
                    Critic(trunk_of(copy.deepcopy(policy))),
                    tokenizer,
                    make_search_env(policy, tokenizer, TEMPLATE, limits),
                    retrieve,
                    tasks,
                    Path(folder) / name,
                    schedule=Schedule(
                        num_updates=4, rollout_batch_size=8, save_steps=1, eval_steps=0, learning_rate=1e-3
                    ),
                    ppo=PPOConfig(mini_batch_size=4, micro_batch_size=2),
                    accelerator=machine.accelerator(),
                )
                training.resume()
                training.schedule = replace(training.schedule, num_updates=stop)
                training.train()
            lines = (Path(folder) / name / "metrics.jsonl").read_text().splitlines()
            found[name] = [json.loads(line) for line in lines]
    for name in ("again", "stopped"):
        pairs = zip(found["whole"], found[name], strict=True)
        off = (
            abs(one[key] - other[key]) / max(1.0, abs(one[key]))
            for one, other in pairs
            for key in one
            if "second" not in key
        )
        yield f"whole and {name}", {"metrics_apart": max(off)}


def lora(machine: Machine) -> Figures:
    """Measure updates of LoRA adapters on a bfloat16 base, which must stay as it is."""
    from peft import LoraConfig, get_peft_model

    tokenizer, count = word_tokenizer(), machine.of(16, 4)

    def adapted(model: PreTrainedModel) -> Any:
        found = get_peft_model(model, LoraConfig(r=machine.of(32, 4), lora_alpha=64, target_modules="all-linear"))
        for parameter in found.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return found

    machine.forget()
    policy = adapted(machine.model(tokenizer, "0.5B", HALF))
    critic = Critic(adapted(trunk_of(machine.model(tokenizer, "0.5B", HALF)))).to(machine.device)
    accelerator, ppo = machine.accelerator(), PPOConfig(mini_batch_size=count, micro_batch_size=2)
    optimizer, rates = make_optimizer(policy, critic, Schedule(learning_rate=1e-4), 10)
    model, prepared = accelerator.prepare(ActorCritic(policy, critic), optimizer)
    batch, reference = scripted(machine, policy, tokenizer, count), ReferencePolicy(policy)
    parameters = {"policy": list(policy.parameters()), "critic": list(critic.parameters())}
    before = {name: each.clone() for name, each in policy.state_dict().items() if "lora" not in name}
    kls = []
    for _ in range(3):
        begun = machine.clock()
        kls.append(compute_advantages(model, reference, batch, ppo, accelerator)["kl"])
        ppo_update(model, parameters, prepared, rates, batch, ppo, accelerator)
        seconds = machine.clock() - begun
    same = all(torch.equal(each, policy.state_dict()[name]) for name, each in before.items())
    speed = {"tokens_per_s": int(batch.lengths.sum()) / seconds, "peak_gib": machine.peak()}
    yield "bfloat16 base", {**speed, "kl_first": kls[0], "kl_last": kls[-1], "base_untouched": str(same)}


def vllm(machine: Machine) -> Figures:
    """Measure rollouts by vLLM in this process, where it is installed."""
    if not (machine.cuda and importlib.util.find_spec("vllm")):
        yield "not measured", {"why": "needs a GPU and vLLM"}
        return
    from stepsearch_data.trainer.vllm import VllmSampler

    tokenizer = word_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        machine.model(tokenizer, "0.5B").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(machine.device)
        sampler = VllmSampler(policy, tokenizer, machine.accelerator(), Vllm(), LIMITS, 1.0)
        for name in ("first batch", "second batch"):
            begun = machine.clock()
            episodes = played(machine, policy, tokenizer, sampler, 64, LIMITS, half=True)
            seconds = machine.clock() - begun
            own = sum(sum(episode.response_mask) for episode in episodes)
            yield name, {"s": seconds, "own_tokens": own, "tokens_per_s": own / seconds}


SECTIONS: dict[str, tuple[Callable[[Machine], Figures], int]] = {
    "env": (env, 45),
    "kernel": (kernel, 60),
    "parity": (parity, 90),
    "rollouts": (rollouts, 120),
    "update": (update, 120),
    "resume": (resume, 60),
    "lora": (lora, 60),
    "big": (big, 120),
    "vllm": (vllm, 180),
}
"""What is measured, in the order of its worth, and the seconds that it may take on a GPU."""


def measure(section: str, *, cpu: bool) -> dict[str, Any]:
    """Measure a section in a process of its own; return its figures, or why there are none."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--section", section, *["--cpu"] * cpu]
    environment = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}
    try:
        limit = 600 if cpu else SECTIONS[section][1]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit} s"}
    figures: dict[str, Any] = dict(map(json.loads, ended.stdout.splitlines()))
    if ended.returncode:
        figures["failed"] = (ended.stderr.strip().splitlines() or ["no message"])[-1]
    return figures


def table(section: str, figures: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a section."""
    for name, values in figures.items():
        told = values if isinstance(values, str) else ", ".join(f"{key} {_short(each)}" for key, each in values.items())
        yield f"{section:<9} {name:<32} {told}"


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= _MANY else f"{value:.4g}"


def main() -> int:
    """Run the benchmark; the exit code is 1 where a section failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between them")
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not (given.cpu or torch.cuda.is_available()):
        parser.error("there is no GPU here; --cpu tries the benchmark with tiny sizes")
    if given.section:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if given.cpu:
            torch.set_num_threads(1)
        for figure in SECTIONS[given.section][0](Machine(cuda=not given.cpu)):
            print(json.dumps(figure), flush=True)
        return 0
    found = {}
    for section in given.only.split(","):
        found[section] = measure(section, cpu=given.cpu)
        if not given.json:
            print("\n".join(table(section, found[section])), flush=True)
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        print(
            "These are figures of this machine"
            + " with tiny sizes: no figure of a GPU." * given.cpu
            + "." * (not given.cpu)
        )
    return int(any("failed" in figures for figures in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
