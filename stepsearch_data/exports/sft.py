"""Rows for supervised fine-tuning. The environment's answers are in them, but marked so that no trainer learns them."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa

from stepsearch_data.exports import schema
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.template import Message, Template

Row = dict[str, Any]
_CONVERSATIONS = pa.list_(pa.struct([("from", schema.TEXT), ("value", schema.TEXT)]))


def tools(template: Template) -> list[Row]:
    """Return the definitions of the functions that may be called."""
    assert template.tool is not None
    return [{"type": "function", "function": template.tool}]


def tools_text(template: Template) -> Row:
    """Return the column `tools` as JSON text, or none without a tool."""
    return {"tools": orjson.dumps(tools(template)).decode()} if template.tool else {}


def verl_sft(example: Example, template: Template) -> list[Row]:
    """Make a row for verl's multi-turn SFT, which learns only the assistant's messages."""
    calls = {"tools": tools(template)} if template.tool else {}
    return [{"messages": template.conversation(example), **calls}]


def verl_sft_schema(template: Template) -> pa.Schema:
    """Return the columns of verl's multi-turn SFT. `tools` is nested, as its dataset passes it to the tokenizer."""
    kind = pa.infer_type([tools(template)]) if template.tool else schema.TEXT
    return schema.with_tools(template, ("messages", schema.chat(template)), kind=kind)


def trl_sft(example: Example, template: Template) -> list[Row]:
    """Make TRL's rows: with a tool one conversation, with tags a prompt and a completion for every turn.

    A prompt holds everything before the turn, also the environment's answers, and TRL learns only
    completions. The rows of a question are in the order of its turns.
    """
    if template.tool:
        return [{"messages": template.conversation(example), **tools_text(template)}]
    opening = template.opening(example.question)
    turns = [*(template.turn(example, at) for at in range(len(example.steps))), template.last(example)]
    return [
        {"prompt": opening + template.rounds(example, at), "completion": turn.text} for at, turn in enumerate(turns)
    ]


def trl_sft_schema(template: Template) -> pa.Schema:
    """Return the columns of TRL's SFT."""
    if template.tool:
        return schema.with_tools(template, ("messages", schema.chat(template)))
    return pa.schema([("prompt", schema.TEXT), ("completion", schema.TEXT)])


def llama_factory(example: Example, template: Template) -> list[Row]:
    """Make a row for LLaMA-Factory: human or observation alternates with gpt or function_call."""
    names = {"user": "human", "tool": "observation", "call": "function_call"}
    definitions = {"tools": orjson.dumps([template.tool]).decode()} if template.tool else {}
    return [_conversations(example, template, names) | definitions]


def sharegpt(example: Example, template: Template) -> list[Row]:
    """Make a ShareGPT row, in which a call is part of the text."""
    return [_conversations(example, template, {"user": "human", "tool": "tool"}) | tools_text(template)]


def conversations_schema(template: Template) -> pa.Schema:
    """Return the columns of LLaMA-Factory and ShareGPT."""
    system = [("system", schema.TEXT)] if "system" in template.parts else []
    return schema.with_tools(template, ("conversations", _CONVERSATIONS), *system)


def _conversations(example: Example, template: Template, names: dict[str, str]) -> Row:
    """Make a row of messages with the given names of their roles, by default `gpt`."""
    row: Row = {"conversations": []}
    for message in template.conversation(example):
        if message["role"] == "system":
            row["system"] = message["content"]
            continue
        role = "call" if "tool_calls" in message else message["role"]
        row["conversations"].append({"from": names.get(role, "gpt"), "value": _said(message)})
    return row


def _said(message: Message) -> str:
    """Return a message's text, and after it a call in <tool_call> tags, as Hermes and Qwen models write it."""
    if "tool_calls" not in message:
        return str(message["content"])
    call = orjson.dumps(message["tool_calls"][0]["function"]).decode()
    return f"{message['content']}\n<tool_call>\n{call}\n</tool_call>"
