"""Why a publish failed: the exceptions, and the sentence for each outcome. Standard library only."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from typing import NamedTuple

from .dial import ConnectTimeout, Endpoint
from .responses import is_retryable, problem_detail


class PublishError(Exception):
    """A publish that failed. ``status`` is the response's, None if there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        """All arguments: an exception that cannot be unpickled breaks a pool of processes, with all its other jobs."""
        return type(self), (str(self), self.status)


class PublishRefused(PublishError):
    """The server refused, for the reason in the message: nothing was published, and a repeat would be refused too."""


class PublishUnavailable(PublishError):
    """No success in time. The message may have been published nevertheless: call again with this ``idempotency_key``,
    and it is delivered once.

    ``fast``: nothing was sent, because a publish has failed shortly before (the circuit breaker).
    """

    def __init__(self, message: str, status: int | None = None, idempotency_key: str = "", fast: bool = False) -> None:
        super().__init__(message, status)
        self.idempotency_key = idempotency_key
        self.fast = fast

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.status, self.idempotency_key, self.fast)


class ClosedWithoutAnswer(ConnectionError):
    """The server read the request, or a part of it, and closed the connection."""


class Response(NamedTuple):
    """``headers`` have the names that are looked at, in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Outcome = Response | OSError | http.client.HTTPException


def may_pass(outcome: Outcome) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(outcome, Response):
        return is_retryable(outcome.status)
    return not isinstance(outcome, ssl.SSLCertVerificationError)


def is_out_of_reach(outcome: Outcome) -> bool:
    """Whether the server itself did not answer: a gateway did, or nobody."""
    return outcome.status in (502, 504) if isinstance(outcome, Response) else may_pass(outcome)


def failure(outcome: Outcome, endpoint: Endpoint, key_hint: str, idempotency_key: str) -> PublishError:
    if isinstance(outcome, ssl.SSLCertVerificationError):
        return PublishRefused(f"TLS certificate verification failed for {endpoint.url}: {outcome.verify_message}")
    if not isinstance(outcome, Response):
        return PublishUnavailable(connection_failure(outcome, endpoint), None, idempotency_key)
    if 300 <= outcome.status < 400:
        location = outcome.headers.get("location", "elsewhere")
        sentence = f"{endpoint.url} redirects to {location}; redirects are not followed, use the final URL"
        return PublishRefused(sentence, outcome.status)
    detail = problem_detail(outcome.status, outcome.body)
    if is_retryable(outcome.status):
        return PublishUnavailable(f"{endpoint.url}: {detail}", outcome.status, idempotency_key)
    return PublishRefused(detail + key_hint if outcome.status == 401 else detail, outcome.status)


def connection_failure(
    error: OSError | http.client.HTTPException, endpoint: Endpoint, done: str = "it may have been published"
) -> str:
    """A sentence that says how far the request came, and which setting to look at. ``done``: what may have happened."""
    if isinstance(error, ConnectTimeout):
        return f"cannot reach {endpoint.url}: no connection in time; is the URL right (PUSHCOMPAT_URL)?"
    if isinstance(error, TimeoutError):
        return f"timed out waiting for {endpoint.url}, which was reached; {done}"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection to {endpoint.url} was lost in the middle of the response; {done}"
    if isinstance(error, ClosedWithoutAnswer):
        return f"{endpoint.url} closed the connection without an answer; {done}"
    if isinstance(error, http.client.HTTPException):
        return f"{endpoint.url} did not answer in HTTP ({error or type(error).__name__}); is the URL right?"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot reach {endpoint.url}: {reason}; is the server running, and the URL right (PUSHCOMPAT_URL)?"
