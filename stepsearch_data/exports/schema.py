"""Arrow types that several formats share."""

from __future__ import annotations

import pyarrow as pa

from stepsearch_data.templates.template import Template

TEXT = pa.string()
TEXTS = pa.list_(TEXT)
CHAT = pa.list_(pa.struct([("role", TEXT), ("content", TEXT)]))
DOCUMENTS = pa.list_(pa.struct([("title", TEXT), ("paragraph_text", TEXT)]))
KEYS = pa.list_(TEXTS)


def chat(template: Template) -> pa.DataType:
    """Return the type of messages. With a tool they have a column of calls, null where there are none."""
    if template.tool is None:
        return CHAT
    name, many = template.argument
    function = pa.struct([("name", TEXT), ("arguments", pa.struct([(name, TEXTS if many else TEXT)]))])
    calls = pa.list_(pa.struct([("type", TEXT), ("function", function)]))
    return pa.list_(pa.struct([("role", TEXT), ("content", TEXT), ("tool_calls", calls)]))


def with_tools(template: Template, *fields: tuple[str, pa.DataType], kind: pa.DataType = TEXT) -> pa.Schema:
    """Return a schema of these columns, and of `tools` where the template has a tool."""
    return pa.schema([*fields, *([("tools", kind)] if template.tool else [])])
