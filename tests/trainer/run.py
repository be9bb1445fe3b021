"""A short training in a process of its own, to be killed: run.py MODEL OUTPUT."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepsearch_data.exports.template_file import load_template
from stepsearch_data.trainer.episode import Limits
from stepsearch_data.trainer.loading import make_referee
from tests.trainer.test_train import trainer

torch.set_num_threads(1)
model, output = sys.argv[1:]
tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
limits = Limits(turns=3, documents=2, total=300, turn=12, observation=60)
referee = make_referee(policy, tokenizer, load_template("musique"), limits)
run = trainer(Path(output), policy, tokenizer, referee)
run.resume()
run.train()
