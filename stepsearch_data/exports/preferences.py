"""Rows that compare good searches with bad ones: pairs for DPO, labelled steps for process reward models."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.exports import schema
from stepsearch_data.exports.sft import tools_text
from stepsearch_data.templates.examples import Example, Preferred, Search
from stepsearch_data.templates.template import Template

Row = dict[str, Any]
TRL_STEPWISE = pa.schema({"prompt": schema.TEXT, "completions": schema.TEXTS, "labels": pa.list_(pa.bool_())})


def trl_dpo(example: Example, template: Template) -> list[Row]:
    """Make TRL's rows for DPO: per hop, the good search with each search that the vote rejected.

    DPO learns every token of both sides, so they end with the query. What the bad search found is in
    `rejected_documents`, to show why it was bad. A hop without a good or without a bad search makes no pair. Of a
    teacher, pairs are what it wrote in a right and in a wrong rollout, where the two part; `hop` is the turn.
    """
    if example.origin == "teacher":
        return [_parted(example, template, each) for each in example.preferred]
    return [
        {
            **_sides(example, template, at, search),
            **tools_text(template),
            "question_id": example.question_id,
            "hop": step.hop,
            "rejected_documents": [document.row() for document in search.documents],
        }
        for at, step in enumerate(example.steps)
        if step.role == "gold" and step.search.good
        for search in step.rejected
    ]


def _parted(example: Example, template: Template, pair: Preferred) -> Row:
    if template.tool:
        raise ConfigError("a teacher's pairs are written in tags", "--template musique or paper")
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    about = {"question_id": example.question_id, "hop": pair.turn, "rejected_documents": []}
    before = f"{pair.context.strip()}\n" if pair.context else ""
    return {"prompt": template.opening(example.question) + before, **sides, **about}


def _sides(example: Example, template: Template, at: int, search: Search) -> Row:
    chosen, rejected = template.turn(example, at), template.turn(example, at, search)
    if template.tool:
        prompt = template.conversation(example, at)
        return {"prompt": prompt, "chosen": template.messages(chosen), "rejected": template.messages(rejected)}
    prompt_text = template.opening(example.question) + template.rounds(example, at)
    return {"prompt": prompt_text, "chosen": chosen.text, "rejected": rejected.text}


def trl_dpo_schema(template: Template) -> pa.Schema:
    """Return the columns of TRL's DPO."""
    kind = schema.chat(template) if template.tool else schema.TEXT
    free = [("question_id", schema.TEXT), ("hop", pa.int64()), ("rejected_documents", schema.DOCUMENTS)]
    sides = [(name, kind) for name in ("prompt", "chosen", "rejected")]
    return schema.with_tools(template, *sides, *free)


def trl_stepwise(example: Example, template: Template) -> list[Row]:
    """Make TRL's stepwise rows: one of the trajectory, and one for each bad search, which ends with it.

    A step is a turn and the environment's answer to it. A search is right when it passed the vote and
    shows a gold paragraph. The answer is right when the search of every gold round is right, and a teacher's always.
    """
    steps = [_step(template, example, at) for at in range(len(example.steps))]
    labels = [step.search.good for step in example.steps]
    supported = example.origin == "teacher" or all(step.search.good for step in example.steps if step.role == "gold")
    prompt, last = template.opening(example.question), template.last(example).text
    return [{"prompt": prompt, "completions": [*steps, last], "labels": [*labels, supported]}] + [
        {
            "prompt": prompt,
            "completions": [*steps[:at], _step(template, example, at, search)],
            "labels": [*labels[:at], False],
        }
        for at, step in enumerate(example.steps)
        if step.role == "gold"
        for search in step.rejected
    ]


def _step(template: Template, example: Example, at: int, search: Search | None = None) -> str:
    """Write a turn and its observation as text, with a tool call as the query on its own line."""
    turn = template.turn(example, at, search)
    documents = (search or example.steps[at].search).documents
    call = f"\n{turn.query}" if template.tool else ""
    return f"{turn.text}{call}\n{template.observation(documents)}"
