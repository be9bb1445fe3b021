"""What policies did, as sessions of the Hub's trace viewer and as trajectories of Harbor.

Both want a search as a call of a tool and what it showed as the call's result. A policy's tags are read by the rules
of the rewards: a thought, the text around it, a query. The numbers of a turn and of the whole stand where a format has
room for what is not its own. Calls that are no search are text, as in the table, and what they returned is a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import orjson
import pyarrow as pa

from stepsearch_data.core.version import __version__
from stepsearch_data.exports import schema
from stepsearch_data.exports.reading import Played
from stepsearch_data.exports.sft import tools
from stepsearch_data.rewards.rollout import Places, Span, sections
from stepsearch_data.schemas.rows import RolloutTurn
from stepsearch_data.schemas.tables import ROLLOUT_TURNS, ROLLOUTS
from stepsearch_data.sources.dataset import dataset_of
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.template import Template

Row = dict[str, Any]
HARNESS = "stepsearch-data"
"""The name under which sessions are written; by it and their first key, a file is known as ours."""
_ATIF = "ATIF-v1.7"  # the first version that has all that is written here
_THOUGHTS = ("observation", "think", "plan")  # the first is the policy's note of what it has found
_ENVIRONMENT = ("information", "warning")
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}  # where `str.splitlines` ends a line
_KEYS = ("question_id", "policy", "sample")
_TEXTS = ("response", "observations")


@dataclass(frozen=True)
class Turn:
    """What the policy said, or the environment where it is no result of a search: `own` is False.

    `search` is the search that ends the turn, `shown` the text that the engine answered; None where it did not.
    """

    text: str
    thought: str = ""
    own: bool = True
    search: RolloutTurn | None = None
    shown: str | None = None


def turns_of(played: Played) -> list[Turn]:
    """Split a rollout into its turns, at least one. Tags of thoughts, searches and answers are not in their texts."""
    rollout, searches = played.rollout, iter(played.turns)
    turns: list[Turn] = []
    thoughts: list[str] = []
    texts: list[str] = []

    def end(search: RolloutTurn | None = None) -> None:
        if thoughts or texts or search:
            turns.append(Turn("\n".join(texts), "\n".join(thoughts), search=search))
        thoughts.clear()
        texts.clear()

    answered = True
    for name, text in _parts(rollout.response, rollout.places):
        if name == "search":
            end(next(searches))
        elif name == "information" and not answered:
            turns[-1] = replace(turns[-1], shown=text)
        elif name in _ENVIRONMENT:
            end()
            turns.append(Turn(text, own=False))
        else:
            (thoughts if name in _THOUGHTS else texts).append(text)
        answered = name != "search"
    end()
    return turns or [Turn("")]


def _parts(text: str, places: Places | None) -> Iterator[tuple[str, str]]:
    """Yield the parts of a rollout by name; text of the environment without a tag is a `warning`."""
    for name, span in sections(text, places):
        if name == "text" and places:
            yield from _by_writer(text, span, places)
        else:
            yield name, span.text


def _by_writer(text: str, span: Span, places: Places) -> Iterator[tuple[str, str]]:
    at = span.start
    for start, end in (*places, (span.end, span.end)):
        first, after = min(max(start, at), span.end), min(end, span.end)
        parts = (("text", text[at:first].strip()), ("warning", text[first:after].strip()))
        yield from (part for part in parts if part[1])
        at = max(at, after)


def identify(played: Played) -> str:
    """Return the name of a rollout that no other of the store has."""
    rollout = played.rollout
    return f"{rollout.question_id}/{rollout.policy}/{rollout.sample}"


def about(played: Played) -> Row:
    """Return the numbers of a rollout and of its question. `right` is the exact match by its source's script."""
    rollout, question, passes = played.rollout, played.question, played.passes
    return {
        **rollout.model_dump(exclude=set(_TEXTS)),
        "data_source": dataset_of(rollout.source).data_source,
        "split": played.split,
        "target": [question.answer, *question.answer_aliases],
        "pass_rate": passes.rate,
        "rollouts": passes.rollouts,
    }


def worth(turn: RolloutTurn) -> Row:
    """Return the numbers of a turn: what it showed of the gold passages, and the paper's rewards."""
    return turn.model_dump(exclude=set(_KEYS))


_TURN = pa.struct([field for field in ROLLOUT_TURNS.schema if field.name not in _KEYS])
_ABOUT = [
    *(field for field in ROLLOUTS.schema if field.name not in _TEXTS),
    ("data_source", schema.TEXT),
    ("split", schema.TEXT),
    ("target", schema.TEXTS),
    ("pass_rate", pa.float64()),
    ("rollouts", pa.int64()),
]


@cache
def _worded() -> Template:
    return load_template("tools")


def search_tool() -> list[Row]:
    """Return the definition of the function that a search calls here."""
    return tools(_worded())


def _call(turn: RolloutTurn) -> tuple[str, str, Row]:
    """Return the id of a search's call, its function and the arguments."""
    tool = _worded().tool
    assert tool is not None
    return f"search-{turn.turn}", tool["name"], {_worded().argument[0]: turn.query}


# ---- the Hub's session traces (Session Trace Simple Format)


def session(played: Played, _: Template) -> list[Row]:
    """Make a session."""
    return [session_of(played)]


def session_of(played: Played) -> Row:
    """Return a session: the header, whose further fields the viewer ignores, and the messages.

    A message has only the fields that the format names, so the numbers of all turns are in the header.
    """
    rollout = played.rollout
    outcome = "right" if rollout.right else "wrong"
    header = {
        "type": "session",
        "harness": HARNESS,
        "id": identify(played),
        "name": f"{played.question.question} ({rollout.policy} {rollout.sample}: {outcome})",
        **about(played),
        "turns": [worth(turn) for turn in played.turns],
    }
    said = [{"role": "user", "content": played.question.question}]
    for turn in turns_of(played):
        said += _said(turn, rollout.policy)
    return {"session": header, "messages": [{"type": "message", "message": message} for message in said]}


def _said(turn: Turn, model: str) -> list[Row]:
    if not turn.own:
        return [{"role": "user", "content": turn.text}]
    message: Row = {"role": "assistant", "content": turn.text, "model": model}
    if turn.thought:
        message["reasoningContent"] = turn.thought
    if turn.search is None:
        return [message]
    key, name, arguments = _call(turn.search)
    message["toolCalls"] = [{"id": key, "function": {"name": name, "arguments": orjson.dumps(arguments).decode()}}]
    return [message] if turn.shown is None else [message, {"role": "tool", "toolCallId": key, "content": turn.shown}]


def session_lines(row: Row) -> bytes:
    """Return a session as its file holds it: a JSON object per line, the header first."""
    lines = (orjson.dumps(line).decode().translate(_LINE_ENDS) + "\n" for line in (row["session"], *row["messages"]))
    return "".join(lines).encode()


_FUNCTION = pa.struct([("name", schema.TEXT), ("arguments", schema.TEXT)])
_MESSAGE = pa.struct(
    [
        *((name, schema.TEXT) for name in ("role", "content", "model", "reasoningContent", "toolCallId")),
        ("toolCalls", pa.list_(pa.struct([("id", schema.TEXT), ("function", _FUNCTION)]))),
    ]
)
_HEADER = [(name, schema.TEXT) for name in ("type", "harness", "id", "name")]
SESSION = pa.schema(
    [
        ("session", pa.struct([*_HEADER, *_ABOUT, ("turns", pa.list_(_TURN))])),
        ("messages", pa.list_(pa.struct([("type", schema.TEXT), ("message", _MESSAGE)]))),
    ]
)


def chat(played: Played) -> list[Row]:
    """Return a rollout as chat messages with calls, as trainers and the viewer's own conversion of sessions have it."""
    messages: list[Row] = [{"role": "user", "content": played.question.question}]
    for turn in turns_of(played):
        message: Row = {"role": "assistant" if turn.own else "user", "content": turn.text}
        messages.append(message)
        if turn.thought:
            message["reasoning_content"] = turn.thought
        if turn.search is not None:
            key, name, arguments = _call(turn.search)
            message["tool_calls"] = [
                {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}
            ]
            if turn.shown is not None:
                messages.append({"role": "tool", "tool_call_id": key, "name": name, "content": turn.shown})
    return messages


# ---- ATIF, the Agent Trajectory Interchange Format


def atif(played: Played, _: Template) -> list[Row]:
    """Make a trajectory. `extra` of a step has the numbers of its turn, that of the whole those of the rollout."""
    rollout = played.rollout
    steps = [{"source": "user", "message": played.question.question}, *map(_step, turns_of(played))]
    tokens = {} if rollout.own_tokens is None else {"total_completion_tokens": rollout.own_tokens}
    return [
        {
            "schema_version": _ATIF,
            "session_id": identify(played),
            "trajectory_id": identify(played),
            "agent": {
                "name": HARNESS,
                "version": __version__,
                "model_name": rollout.policy,
                "tool_definitions": search_tool(),
            },
            "steps": [{"step_id": number, **step} for number, step in enumerate(steps, start=1)],
            "final_metrics": {"total_steps": len(steps), **tokens},
            "extra": about(played),
        }
    ]


def _step(turn: Turn) -> Row:
    step: Row = {"source": "agent" if turn.own else "user", "message": turn.text}
    if turn.thought:
        step["reasoning_content"] = turn.thought
    if turn.search is not None:
        key, name, arguments = _call(turn.search)
        step["tool_calls"] = [{"tool_call_id": key, "function_name": name, "arguments": arguments}]
        if turn.shown is not None:
            step["observation"] = {"results": [{"source_call_id": key, "content": turn.shown}]}
        step["extra"] = worth(turn.search)
    return step


def atif_schema(_: Template) -> pa.Schema:
    """Return the fields of a trajectory."""
    argument = pa.struct([(_worded().argument[0], schema.TEXT)])
    call = pa.struct([("tool_call_id", schema.TEXT), ("function_name", schema.TEXT), ("arguments", argument)])
    result = pa.struct([("source_call_id", schema.TEXT), ("content", schema.TEXT)])
    step = [
        ("step_id", pa.int64()),
        *((name, schema.TEXT) for name in ("source", "message", "reasoning_content")),
        ("tool_calls", pa.list_(call)),
        ("observation", pa.struct([("results", pa.list_(result))])),
        ("extra", _TURN),
    ]
    agent = [(name, schema.TEXT) for name in ("name", "version", "model_name")]
    return pa.schema(
        [
            *((name, schema.TEXT) for name in ("schema_version", "session_id", "trajectory_id")),
            ("agent", pa.struct([*agent, ("tool_definitions", pa.infer_type([search_tool()]))])),
            ("steps", pa.list_(pa.struct(step))),
            ("final_metrics", pa.struct([(name, pa.int64()) for name in ("total_steps", "total_completion_tokens")])),
            ("extra", pa.struct(_ABOUT)),
        ]
    )
