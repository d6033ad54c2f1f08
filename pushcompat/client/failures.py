"""Why a publish failed: the exceptions, and the sentence for each outcome. Standard library only."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping

from .dial import ConnectTimeout, Endpoint
from .responses import is_retryable, problem_detail


class PublishError(Exception):
    """A publish that failed. ``status`` is the response's, None if there was none.

    ``args`` has all arguments: an exception that cannot be made of them again breaks a pool of processes, with all its
    other jobs, and comes out of a Celery result without its attributes.
    """

    def __init__(self, message: str, status: int | None = None, *more: object) -> None:
        super().__init__(message, status, *more)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class PublishRefused(PublishError):
    """The server refused, for the reason in the message: nothing was published, and a repeat would be refused too."""


class PublishUnavailable(PublishError):
    """No success in time. The message may have been published nevertheless: call again with this ``idempotency_key``,
    and it is delivered once.

    ``fast``: nothing was sent, because a publish has failed shortly before (the circuit breaker).
    """

    def __init__(self, message: str, status: int | None = None, idempotency_key: str = "", fast: bool = False) -> None:
        super().__init__(message, status, idempotency_key, fast)
        self.idempotency_key = idempotency_key
        self.fast = fast


class ClosedWithoutAnswer(ConnectionError):
    """The server read the request, or a part of it, and closed the connection."""


class Response:
    """``headers`` have the names that are looked at, in lower case."""

    __slots__ = "body", "headers", "status"  # a NamedTuple would take 20 times as long to import

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


Outcome = Response | OSError | http.client.HTTPException


def may_pass(outcome: Outcome) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(outcome, Response):
        return is_retryable(outcome.status)
    return not isinstance(outcome, ssl.SSLCertVerificationError)


def concerns_a_message(refused: PublishRefused) -> bool:
    """Whether the reason may be one message of a batch; others are the key, the address, the certificate."""
    return refused.status in (400, 403, 413, 422)


def failure(outcome: Outcome, endpoint: Endpoint, key_hint: str, idempotency_key: str) -> PublishError:
    if isinstance(outcome, ssl.SSLCertVerificationError):
        sentence = f"TLS certificate verification failed for {endpoint.url}: {outcome.verify_message}"
        return PublishRefused(f"{sentence}; whom to trust is said by ssl_context= or SSL_CERT_FILE")
    if not isinstance(outcome, Response):
        return PublishUnavailable(connection_failure(outcome, endpoint), None, idempotency_key)
    if 300 <= outcome.status < 400:
        location = outcome.headers.get("location", "elsewhere")
        sentence = (
            f"{endpoint.url} redirects to {location}; redirects are not followed, use the final URL (PUSHCOMPAT_URL)"
        )
        return PublishRefused(sentence, outcome.status)
    detail = problem_detail(outcome.status, outcome.body)
    is_foreign = detail.startswith("answered ")  # by another server, or a proxy
    if is_retryable(outcome.status):
        sentence = f"{endpoint.url} {detail}; look at its log" if is_foreign else f"{endpoint.url}: {detail}"
        return PublishUnavailable(sentence, outcome.status, idempotency_key)
    if is_foreign:
        detail = f"{endpoint.url} {detail}; is the URL right (PUSHCOMPAT_URL)?"
    return PublishRefused(detail + key_hint if outcome.status == 401 else detail, outcome.status)


def connection_failure(
    error: OSError | http.client.HTTPException, endpoint: Endpoint, done: str = "it may have been published"
) -> str:
    """A sentence that says how far the request came, and which setting to look at. ``done``: what may have happened."""
    url = endpoint.url
    if isinstance(error, ConnectTimeout):
        return f"cannot reach {url}: no connection in time; is the URL right (PUSHCOMPAT_URL)?"
    if isinstance(error, TimeoutError):
        return f"timed out waiting for {url}, which was reached; {done}; look at its log, or allow more time (timeout)"
    if isinstance(error, ClosedWithoutAnswer):
        return f"{url} was reached, and closed the connection without an answer; {done}; look at its log"
    if isinstance(error, http.client.IncompleteRead | ConnectionResetError | BrokenPipeError):
        return f"the connection to {url} was lost in the middle of the response; {done}; look at its log"
    if isinstance(error, http.client.HTTPException):
        said = " ".join(str(error).split()) or type(error).__name__
        return f"{url} did not answer in HTTP ({said}); is the URL right (PUSHCOMPAT_URL)?"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with {url}: {error.reason or error}; is the URL right, https for TLS (PUSHCOMPAT_URL)?"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot reach {url}: {reason}; is the server running, and the URL right (PUSHCOMPAT_URL)?"
