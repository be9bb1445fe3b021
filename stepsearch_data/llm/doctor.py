"""What `doctor` finds out about a model's server."""

from __future__ import annotations

from contextlib import aclosing

from stepsearch_data.core.errors import ProviderError, RowRejected
from stepsearch_data.llm.chat import Message, Request
from stepsearch_data.llm.endpoint import Endpoint
from stepsearch_data.llm.settings import KEY, LlmSettings
from stepsearch_data.remote.http import TransientError
from stepsearch_data.remote.secrets import redact, show_url

_SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
_ASK = Message("user", 'Reply with this JSON and nothing else: {"ok": true}')
_LISTED = 8  # models that are named when the one asked for is missing


async def examine(settings: LlmSettings, model: str) -> list[str]:
    """Return the findings, one per line. Raises ProviderError for what has to be mended first."""
    shown = show_url(settings.base_url)
    async with aclosing(Endpoint(settings, connections=1)) as endpoint:
        lines = [f"endpoint   {shown}", f"key        {'set' if endpoint.has_key else f'none ({KEY} is not set)'}"]
        try:
            lines.append(await _offered(endpoint, model))
            request = Request(model, (_ASK,), schema=_SCHEMA, max_tokens=64)
            try:
                reply = await endpoint.send(request)
            except TransientError:  # a server that has just closed the connection, as after a fault in /models
                reply = await endpoint.send(request)
        except (TransientError, RowRejected) as error:
            raise ProviderError(f"{shown} does not answer: {error}", "check OPENAI_BASE_URL and the server") from error
        except ProviderError as error:
            missing = [line for line in lines if "not listed" in line]
            raise ProviderError(error.message, "; ".join(missing) or error.hint) from error
    used = f"{reply.usage.prompt_tokens} + {reply.usage.completion_tokens} tokens"
    lines.append(f"reply      in {reply.latency:.2f} s, {used}: {reply.text.strip()[:60]!r}")
    lines.append(f"structured {_WORDS[endpoint.format]}")
    return [redact(line) for line in lines]


_WORDS = {
    "json_schema": "the server accepts JSON schemas",
    "json_object": "the server accepts JSON mode only; replies are checked and repaired",
    "text": "the server accepts neither schemas nor JSON mode; JSON is looked for in the text",
}


async def _offered(endpoint: Endpoint, model: str) -> str:
    """Return whether the model is offered, as far as the server lists its models."""
    try:
        offered = await endpoint.models()
    except (TransientError, RowRejected, ProviderError):  # if more is wrong, the call will show it
        return "models     the server does not list them"
    if model in offered:
        return f"model      {model} is offered"
    return f"model      {model} is not listed; the server lists {', '.join(offered[:_LISTED]) or 'none'}"
