"""A short training in processes of its own, to be killed or to fail: run.py MODEL OUTPUT SCHEDULE [WHO FAILS]."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepsearch_data.core.errors import SearchError
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer.config import Limits
from stepsearch_data.trainer.loading import make_search_env
from tests.trainer.test_steppo_trainer import trainer
from tests.trainer.tiny import retrieve

torch.set_num_threads(1)
model, output, schedule, *failing = sys.argv[1:]
tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
limits = Limits(max_turns=3, topk=2, max_length=300, max_new_tokens=12, max_obs_length=60)
env = make_search_env(policy, tokenizer, load_template("musique"), limits)


def search(queries: Sequence[str], k: int) -> list[list[Paragraph]]:
    """As in the other tests, but where this process is to fail only up to the first checkpoint."""
    if os.environ.get("RANK") in failing and list(Path(output).glob("checkpoint-*")):
        raise SearchError(f"the engine of process {failing[0]} is down")
    return retrieve(queries, k)


run = trainer(Path(output), policy, tokenizer, env, search, **json.loads(schedule))
run.resume()
run.train()
run.accelerator.state.destroy_process_group()  # a process that ends with an open one aborts now and then
