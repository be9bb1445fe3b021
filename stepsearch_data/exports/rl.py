"""Rows for reinforcement learning: a prompt, and what a reward function needs to score a response."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from stepsearch_data.exports import schema
from stepsearch_data.sources.dataset import dataset_of
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.template import Template

Row = dict[str, Any]


def _source(example: Example) -> str:
    return dataset_of(example.source).data_source


def _gold(example: Example) -> list[Row]:
    return [paragraph.row() for paragraph in example.gold]


def _task(example: Example, template: Template, source: str, truth: Row, extra: Row) -> Row:
    """Make the columns that all formats derived from verl's RL format have."""
    return {
        "data_source": source,
        "prompt": template.prompt(example.question),
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"split": example.split, "index": example.index, **extra},
    }


def _task_schema(truth: pa.DataType, *extra: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [
            ("data_source", schema.TEXT),
            ("prompt", schema.CHAT),
            ("ability", schema.TEXT),
            ("reward_model", pa.struct([("style", schema.TEXT), ("ground_truth", truth)])),
            ("extra_info", pa.struct([("split", schema.TEXT), ("index", pa.int64()), *extra])),
        ]
    )


_TARGET = pa.struct([("target", schema.TEXTS)])
_TARGET_AND_KEYS = pa.struct([("target", schema.TEXTS), ("search_keys", schema.KEYS)])
SEARCH_R1 = _task_schema(_TARGET)
STEPSEARCH = _task_schema(_TARGET_AND_KEYS, ("support_docs", schema.DOCUMENTS))
TRL_GRPO = pa.schema(
    {
        "prompt": schema.CHAT,
        "question_id": schema.TEXT,
        "data_source": schema.TEXT,
        "target": schema.TEXTS,
        "search_keys": schema.KEYS,
        "support_docs": schema.DOCUMENTS,
    }
)
SKYRL = TRL_GRPO.append(pa.field("env_class", schema.TEXT))
CURRICULUM = pa.schema(
    [
        *TRL_GRPO,
        ("band", schema.TEXT),
        ("pass_rate", pa.float64()),
        ("pass_rate_low", pa.float64()),
        ("pass_rate_high", pa.float64()),
        ("right", pa.int64()),
        ("rollouts", pa.int64()),
    ]
)


def search_r1(example: Example, template: Template) -> list[Row]:
    """Make a row for Search-R1, which scores only the answer."""
    return [_task(example, template, _source(example), {"target": list(example.answers)}, {})]


def stepsearch(example: Example, template: Template) -> list[Row]:
    """Make a row as in the StepSearch release: one list of reference queries per hop, gold paragraphs as structs.

    An abstention without a gold paragraph has no row, as the reference code's rewards cannot score it.
    """
    if not example.gold:
        return []
    truth = {"target": list(example.answers), "search_keys": example.keys}
    source = dataset_of(example.source).released_as
    return [_task(example, template, source, truth, {"support_docs": _gold(example)})]


def verl(example: Example, template: Template) -> list[Row]:
    """Make a row for verl. Only with a tool, it has the columns that verl's agent loop and search tool read."""
    source = f"searchR1_{_source(example)}"
    truth = {"target": list(example.answers), "search_keys": example.keys}
    extra: Row = {"question": example.question, "support_docs": _gold(example)}
    if template.tool:
        arguments = {"ground_truth": truth, "data_source": source, **extra}
        extra |= {"need_tools_kwargs": True, "tools_kwargs": {template.tool["name"]: {"create_kwargs": arguments}}}
    row = _task(example, template, source, truth, extra)
    return [row | {"agent_name": "tool_agent"} if template.tool else row]


def verl_schema(template: Template) -> pa.Schema:
    """Return the columns of verl."""
    extra: list[tuple[str, pa.DataType]] = [("question", schema.TEXT), ("support_docs", schema.DOCUMENTS)]
    if template.tool is None:
        return _task_schema(_TARGET_AND_KEYS, *extra)
    arguments = pa.struct([("ground_truth", _TARGET_AND_KEYS), ("data_source", schema.TEXT), *extra])
    tool = pa.struct([(template.tool["name"], pa.struct([("create_kwargs", arguments)]))])
    extra += [("need_tools_kwargs", pa.bool_()), ("tools_kwargs", tool)]
    return _task_schema(_TARGET_AND_KEYS, *extra).append(pa.field("agent_name", schema.TEXT))


def trl_grpo(example: Example, template: Template) -> list[Row]:
    """Make a row for TRL's GRPO, which passes every column except `prompt` to the reward functions by name."""
    return [{"prompt": template.prompt(example.question), "question_id": example.question_id, **_to_score(example)}]


def skyrl(example: Example, template: Template) -> list[Row]:
    """Make a row for SkyRL, which hands every column but the first two to the environment of that class."""
    return [{**row, "env_class": "stepsearch"} for row in trl_grpo(example, template)]


def curriculum(example: Example, template: Template) -> list[Row]:
    """Make a row for TRL's GRPO with how often a policy passes the question; none of one that it has not played."""
    passes = example.passes
    if passes is None:
        return []
    bounds = {"pass_rate_low": passes.interval.low, "pass_rate_high": passes.interval.high}
    counted = {"band": passes.band, "pass_rate": passes.rate, **bounds, **passes._asdict()}
    return [row | counted for row in trl_grpo(example, template)]


def _to_score(example: Example) -> Row:
    """Return what reward functions need, one column each."""
    return {
        "data_source": _source(example),
        "target": list(example.answers),
        "search_keys": example.keys,
        "support_docs": _gold(example),
    }
