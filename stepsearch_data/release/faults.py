"""What a failed call to the Hub means: one line, what to do about it, and never a token."""

from __future__ import annotations

import json

from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stepsearch_data.core.errors import PublishError
from stepsearch_data.release.client import CONFLICT, chain, transient
from stepsearch_data.remote.secrets import redact

TOKENS = "a token with the role `write` ({}/settings/tokens), as HF_TOKEN or by: hf auth login"
_KNOWN = (
    (LocalTokenNotFoundError, "there is no token", f"give {TOKENS}"),
    (UnicodeEncodeError, "the token is not one of the Hub's", f"give {TOKENS}"),  # it goes into a header as it is
    (OfflineModeIsEnabled, "HF_HUB_OFFLINE is set", "unset it"),
    (RevisionNotFoundError, "there is no such tag, branch or commit", "without @TAG: the newest"),
    (
        RepositoryNotFoundError,
        "there is no such dataset that you may see",
        "check the name; a private one needs HF_TOKEN, of somebody who may read it",
    ),
    (
        json.JSONDecodeError,
        "{} answers with something that is not the Hub's",
        "is a proxy or a login page in between? check HF_ENDPOINT and HTTPS_PROXY",
    ),
)
_AGAIN = "run the same command again: it goes on from what is there"
_WORDS = 300  # characters of a server's message that we repeat
_UNAUTHORIZED, _FORBIDDEN, _STALE = 401, 403, 412


class HubBusyError(PublishError):
    """The Hub does not answer, or asks for more patience than there is."""

    exit_code = 5


class ConflictError(PublishError):
    """Somebody else changed the repository meanwhile."""


def told(error: Exception, doing: str, endpoint: str, secret: str | None) -> PublishError:
    """The error of a call that was to do something, such as `commit to ann/data`."""
    found = _passing(error, doing, endpoint) or _known(error, doing, endpoint) or _answered(error, doing, endpoint)
    hidden = [clean(text, secret) for text in (found.message, found.hint)]
    return type(found)(*hidden)


def clean(text: str, secret: str | None) -> str:
    """One line of a text, without what looks like a secret."""
    return redact(" ".join(text.split()), [secret] if secret else [])


def _passing(error: Exception, doing: str, endpoint: str) -> PublishError | None:
    found = transient(error)
    if found is None:
        return None
    asked = f", and asks to wait {found.retry_after:.0f} s" if found.retry_after else ""
    return HubBusyError(f"cannot {doing}: {endpoint} does not answer ({found}{asked})", _AGAIN)


def _known(error: Exception, doing: str, endpoint: str) -> PublishError | None:
    for cause in chain(error):
        for kind, why, hint in _KNOWN:
            if isinstance(cause, kind):
                return PublishError(f"cannot {doing}: {why.format(endpoint)}", hint.format(endpoint))
    return None


def _answered(error: Exception, doing: str, endpoint: str) -> PublishError:
    response = next((cause for cause in chain(error) if isinstance(cause, HfHubHTTPError)), None)
    if response is None:
        *_, root = chain(error)
        reason = next((line for line in str(root).splitlines() if line.strip()), type(root).__name__)
        return PublishError(f"cannot {doing}: {reason[:_WORDS]}", _AGAIN)
    status, said = response.response.status_code, (response.server_message or "")[:_WORDS]
    if status == _UNAUTHORIZED:
        return PublishError(f"cannot {doing}: the Hub does not accept the token", f"give {TOKENS.format(endpoint)}")
    if status == _FORBIDDEN:
        return PublishError(f"cannot {doing}: {said or 'the token may not do that'}", f"give {TOKENS.format(endpoint)}")
    if status in (CONFLICT, _STALE):
        hint = "run the same command again: it compares anew with what is there now"
        return ConflictError(f"cannot {doing}: somebody changed it meanwhile ({said or status})", hint)
    return PublishError(f"cannot {doing}: {endpoint} answers {status}{said and ': '}{said}", _AGAIN)
