"""Runs whose tiny models know a few trajectories by heart, in each form of an episode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from stepsearch_data.core.progress import Reporter
from stepsearch_data.evaluation.evaluate import Report, evaluate
from stepsearch_data.evaluation.setup import Options
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.template import Template
from stepsearch_data.trainer import demo
from stepsearch_data.trainer.config import Chat
from stepsearch_data.trainer.data import demonstrate, demonstration, load_examples, subsample
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer
from stepsearch_data.trainer.loading import encoders, make_form
from stepsearch_data.trainer.recipe import Recipe
from tests.trainer.families import chat_template
from tests.trainer.tiny import load

TEMPLATE = Path(demo.__path__[0]) / "template.txt"
KNOWN, FEW = 8, 2
BRIEF = """\
=== user ===
${question}
=== start ===
First: ${sub_question}
=== next ===
Next: ${sub_question}
=== again ===
Another query for: ${sub_question}
=== last ===
<answer> ${answer} </answer>
=== abstain ===
<answer> ${answer} </answer>
=== information ===
${documents}
=== document ===
[${rank}] ${title}
${text}
=== tool ===
{"name": "search", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}}
"""


def learn(model: Any, tokenizer: Any, examples: list[Example], template: Template, chat: Chat, steps: int) -> None:
    """Have it know the trajectories by heart, in the form of the template and the chat."""
    torch.set_num_threads(1)
    encode, _ = encoders(tokenizer, chat)
    form = make_form(tokenizer, template, chat)
    rows = [demonstrate(each, template, form, encode, tokenizer.eos_token_id) for each in examples]
    width = max(len(row["labels"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    labels = torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()


def write_recipe(folder: Path, store: Path, template: str, chat: Chat, *, max_length: int) -> None:
    limits = {"max_turns": 5, "topk": 1, "max_length": max_length, "max_new_tokens": 60}
    model = {"path": "tiny", "chat_turns": chat.turns}
    trained = {"store": store, "template": template, "model": model, "limits": limits}
    (folder / "recipe.json").write_text(Recipe.model_validate(trained).model_dump_json())


def save(folder: Path, model: Any, tokenizer: Any) -> None:
    model.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")


def make_chats(store: Path, folder: Path) -> Path:
    """Make two runs, which have learnt a few questions in messages: `turns` in tags, `tools` by calls."""
    (folder / "tools.txt").write_text(BRIEF)
    for name, template, chat in (
        ("turns", str(TEMPLATE), Chat(turns=True)),
        ("tools", str(folder / "tools.txt"), Chat()),
    ):
        wording = load_template(template)
        examples = subsample(load_examples(Store.open(store), "train"), FEW)
        words = [text for each in examples for text, _ in demonstration(each, wording)]
        queries = [step.search.query for each in examples for step in each.steps]
        calls = [json.dumps({"name": "search", "arguments": {"query": query}}) for query in queries]
        words += [f"assistant\n\n<tool_call>\n{call}\n</tool_call>" for call in calls]
        tokenizer = make_tokenizer(words)
        tokenizer.chat_template = chat_template("qwen2_5")
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
        model = make_model(tokenizer, width=32, layers=2)
        learn(model, tokenizer, examples, wording, chat, 150)
        save(folder / name / "checkpoint-000001", model, tokenizer)
        write_recipe(folder / name, store, template, chat, max_length=1500)
    return folder


def rollouts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


def ask(checkpoint: Path | str, **options: Any) -> Report:
    asked = {"split": "train", "limit": KNOWN, **options}
    return evaluate(Options(checkpoint=str(checkpoint), **asked), load, Reporter(quiet=True))


def whole(report: Report) -> dict[str, Any]:
    return report.measures["all"]["all"]
