"""How calls to the Hub are sent: with time-outs, and again when what is wrong may pass.

`huggingface_hub` waits for ever for an answer, repeats some calls for as long as a server asks for, and others never.
Here it raises at once what may pass, and `patiently` is the one place where calls are repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import httpx2
from huggingface_hub import get_session, set_client_factory
from huggingface_hub.utils import logging, parse_ratelimit_headers
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from stepsearch_data.remote.http import RETRIED, TransientError, retry_after

T = TypeVar("T")
Say = Callable[[str], None]
CONFLICT = 409
_PASSING = RETRIED - {CONFLICT}  # a conflict on the Hub is somebody else's commit or tag, and stays one
_CONNECT, _ANSWER = 10.0, 120.0  # seconds
_LONGEST = 30.0  # seconds between two attempts where the server does not say how long
_TOLD = 2.0  # seconds to wait that a person is told of


class _Client(httpx2.Client):
    """Raises TransientError for what may pass: no answer, and answers that say so."""

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = super().send(request, **options)
        except httpx2.TransportError as error:
            raise TransientError(_why(error)) from error
        if response.status_code in _PASSING:
            response.close()
            raise TransientError(f"it answers {response.status_code}", _asked_to_wait(response))
        return response


def _why(error: httpx2.TransportError) -> str:
    return "no answer in time" if isinstance(error, httpx2.TimeoutException) else str(error) or type(error).__name__


def _asked_to_wait(response: httpx2.Response) -> float | None:
    limit = parse_ratelimit_headers(response.headers)
    if limit and not limit.remaining:
        return float(limit.reset_in_seconds)
    return retry_after({name.lower(): value for name, value in response.headers.items()})


def use_client(patience: float) -> None:
    """Have all calls of `huggingface_hub` in this process sent by such a client."""
    logging.set_verbosity_error()  # it warns of every attempt, with whole URLs
    timeout = httpx2.Timeout(min(_ANSWER, patience), connect=min(_CONNECT, patience))
    own_hooks = get_session().event_hooks  # offline mode is one of them
    set_client_factory(partial(_Client, event_hooks=own_hooks, timeout=timeout, follow_redirects=True))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def transient(error: BaseException | None) -> TransientError | None:
    """What may pass, where that is behind an error."""
    return next((cause for cause in chain(error) if isinstance(cause, TransientError)), None)


def patiently(call: Callable[[], T], patience: float, say: Say) -> T:
    """The call's result. Repeated until `patience` seconds after it first failed; then its last error is raised."""
    failed: list[float] = []
    growing = wait_random_exponential(multiplier=1, max=_LONGEST)

    def wait(state: RetryCallState) -> float:
        found = transient(state.outcome.exception() if state.outcome else None)
        asked = found.retry_after if found else None
        return growing(state) if asked is None else asked

    def stop(state: RetryCallState) -> bool:
        now = state.outcome_timestamp or 0.0
        failed.append(now)  # from the first on, as an upload may take an hour before anything goes wrong
        return now - failed[0] + state.upcoming_sleep > patience

    def tell(state: RetryCallState) -> None:
        found = transient(state.outcome.exception() if state.outcome else None)
        seconds = state.next_action.sleep if state.next_action else 0.0
        if seconds >= _TOLD:
            say(f"the Hub is busy ({found}); trying again in {seconds:.0f} s")

    return Retrying(
        retry=retry_if_exception(lambda error: transient(error) is not None),
        wait=wait,
        stop=stop,
        before_sleep=tell,
        reraise=True,
    )(call)
