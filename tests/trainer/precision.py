"""How policy, reference and sampler of a training in bfloat16 read the same texts: precision.py MODEL OUTPUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.causal_lm import log_probabilities, trunk_of
from stepsearch_data.trainer.config import Limits, PPOConfig, Schedule
from stepsearch_data.trainer.loading import make_search_env
from stepsearch_data.trainer.model import Critic
from stepsearch_data.trainer.steppo_trainer import StePPOTrainer
from tests.trainer.tiny import TASKS, retrieve

model, output = sys.argv[1:]
tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
torch.manual_seed(4)
critic = Critic(trunk_of(AutoModelForCausalLM.from_config(policy.config)))
env = make_search_env(
    policy, tokenizer, load_template("musique"), Limits(max_turns=1, max_length=300, max_new_tokens=12)
)
accelerator = Accelerator(mixed_precision="bf16")
run = StePPOTrainer(
    policy, critic, tokenizer, env, retrieve, TASKS, Path(output),
    schedule=Schedule(num_updates=1, rollout_batch_size=4, learning_rate=1e-2),
    ppo=PPOConfig(mini_batch_size=4, micro_batch_size=2), accelerator=accelerator,
)  # fmt: skip
torch.manual_seed(0)
tokens = torch.randint(3, len(tokenizer), (2, 40))
whole = torch.ones_like(tokens, dtype=torch.bool)


@torch.no_grad()
def read() -> list[torch.Tensor]:
    """Log-probabilities under the policy that is trained, the reference, and what the sampler reads with."""
    inner = run.inner.policy
    with accelerator.autocast():
        reference = run.reference.logps(inner, tokens, whole)
        sampler = log_probabilities(run.whole_policy(), tokens, whole, 1.0)[0]
    return [run.model(tokens, whole).logps, reference, sampler]


before = read()
metrics = run.training_step()[0]
after = read()
saved = run.save() / "policy"
if accelerator.is_main_process:
    told = {
        "types": [str(each.dtype) for each in before],
        "rounded": [bool((each.bfloat16() == each).all()) for each in before],
        "apart": [float((before[0] - each).abs().max()) for each in before],
        "apart_after": [float((after[0] - each).abs().max()) for each in after],
        "reference_moved": float((after[1] - before[1]).abs().max()),
        "kl": metrics["kl"],
        "saved": str(AutoModelForCausalLM.from_pretrained(saved, dtype="auto").dtype),
    }
    print(json.dumps(told))
accelerator.state.destroy_process_group()  # a process that ends with an open one aborts now and then
