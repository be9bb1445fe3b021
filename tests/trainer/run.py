"""A short training in a process of its own, to be killed: run.py MODEL OUTPUT."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepsearch_data.exports.template_file import load_template
from stepsearch_data.trainer.episode import Limits, Referee
from stepsearch_data.trainer.sampler import end_tokens
from tests.trainer.test_train import trainer

torch.set_num_threads(1)
model, output = sys.argv[1:]
tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
referee = Referee(
    load_template("musique"),
    Limits(turns=3, documents=2, total=300, turn=12, observation=60),
    lambda text: tokenizer.encode(text, add_special_tokens=False),
    tokenizer.decode,
    end_tokens(policy, tokenizer),
)
run = trainer(Path(output), policy, tokenizer, referee)
run.resume()
run.train()
