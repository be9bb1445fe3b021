"""What the client of the Hugging Face Hub raises, in a line: why, and what to do."""

from __future__ import annotations

import re

from stepsearch_data.remote.secrets import redact

_STATUS = re.compile(r"\d{3} Client Error\..*")


def reason_of(error: Exception) -> str:
    """Return the line that says what is wrong; the Hub's client puts the bare status before it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return redact(next((line for line in lines if not _STATUS.fullmatch(line)), lines[0]))


def hint_for(error: Exception, otherwise: str) -> str:
    """Return what to do: about a token where that is missing, else what the caller says."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or "gated dataset" in str(error):
        return "set HF_TOKEN to a token that may read it"
    return otherwise
