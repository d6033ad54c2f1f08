"""Publishing from an application: one call, standard library only.

    from pushcompat import publish
    publish("chat", {"text": "hello"})
    publish("orders")  # the bare signal: something changed, refetch

A call takes ``timeout`` seconds at most, its retries and the pauses between them included (only the look-up of the host
name has no limit). Every attempt carries the same ``Idempotency-Key``, so a publish whose response was lost is not
delivered twice. Lost connections, 408, 425, 426, 429 and 5xx are retried, after Retry-After if there is one; other
refusals are not. Redirects are not followed and proxies not used: the publish key is sent only to the given server.

The retry logic does no I/O: it is a generator that yields each attempt, is sent its outcome, and returns what was
published. It is driven by a blocking and by an asyncio driver.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import ssl
import time
import uuid
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict, TypeVar
from urllib.parse import quote, urlencode

from ..errors import ConfigError
from ..state import KEY_FILE, checked_key, default_state_dir, read_key
from .dial import Connection, Endpoint
from .responses import is_retryable, problem_detail, read_body, retry_after_s

DEFAULT_URL = "http://127.0.0.1:8888"

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9._:~@-]{1,128}")
_FIRST_PAUSE_S = 0.2
_MAX_PAUSE_S = 5.0
_MAX_RESPONSE_BYTES = 4 * 1024 * 1024

MESSAGE_KEY_HINT = " (the parameter key is the publish key; to set the message's key use message_key=)"


class PublishError(Exception):
    """A publish that failed. ``status`` is the response's, None if there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class PublishRefused(PublishError):
    """The server refused, for the reason in the message: nothing was published, and a repeat would be refused too."""


class PublishUnavailable(PublishError):
    """No success in time. The message may have been published nevertheless: call again with this ``idempotency_key``,
    and it is delivered once.
    """

    def __init__(self, message: str, status: int | None, idempotency_key: str) -> None:
        super().__init__(message, status)
        self.idempotency_key = idempotency_key


@dataclass(frozen=True, slots=True)
class Published:
    """``id`` is the cursor of the last message, ``channels`` the number of each channel's subscribers."""

    id: str
    channels: Mapping[str, int]


class JsonText(str):
    """Text that is already a JSON document."""


class Update(TypedDict):
    """One message of a batch. ``data`` as for ``publish``, ``ttl`` in seconds."""

    channel: str
    data: NotRequired[object]
    key: NotRequired[str | None]
    type: NotRequired[str | None]
    ttl: NotRequired[float | None]


class _Post(NamedTuple):
    """A publish as it is sent."""

    path: str
    body: bytes
    content_type: str


class _Attempt(NamedTuple):
    """One attempt to publish, after a pause; all waiting ends at ``deadline``."""

    pause_s: float
    endpoint: Endpoint
    post: _Post
    headers: Mapping[str, str]
    deadline: float


class _Response(NamedTuple):
    status: int
    headers: Message
    body: bytes


_Outcome = _Response | OSError | http.client.HTTPException
_Attempts = Generator[_Attempt, _Outcome, Published]


# The calls


def publish(
    channel: str | Iterable[str],
    data: object = None,
    *,
    message_key: str | None = None,
    type: str | None = None,
    ttl: float | None = None,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = 10.0,
    retries: int = 3,
    ssl_context: ssl.SSLContext | None = None,
) -> Published:
    """Publishes ``data`` to a channel, or to each of several.

    ``data``: None is the bare signal, str and bytes (UTF-8) are text, anything else is JSON; an empty text is the
    signal too. Only the latest message per ``message_key`` is kept for subscribers that were disconnected. ``ttl``:
    seconds after which the message is dropped. ``url`` is by default $PUSHCOMPAT_URL, else http://127.0.0.1:8888.
    ``key`` is a publish key, the server's root key or a named one; by default $PUSHCOMPAT_PUBLISH_KEY, else the content
    of $PUSHCOMPAT_PUBLISH_KEY_FILE, else, for a server on this machine only, the key in its state directory.
    ``ssl_context``: whom to trust; by default the system's authorities, or those in $SSL_CERT_FILE.

    Raises PublishRefused or PublishUnavailable (both are PublishError), and before anything is sent ValueError or
    TypeError for invalid arguments.
    """
    post = _to_channels(channel, data, message_key, type, ttl)
    return _run(_attempts(post, idempotency_key, url, key, timeout, retries, ssl_context, MESSAGE_KEY_HINT))


async def publish_async(
    channel: str | Iterable[str],
    data: object = None,
    *,
    message_key: str | None = None,
    type: str | None = None,
    ttl: float | None = None,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 (as in publish)
    retries: int = 3,
    ssl_context: ssl.SSLContext | None = None,
) -> Published:
    """``publish`` for coroutines."""
    post = _to_channels(channel, data, message_key, type, ttl)
    return await _run_async(_attempts(post, idempotency_key, url, key, timeout, retries, ssl_context, MESSAGE_KEY_HINT))


def publish_batch(
    updates: Iterable[Update],
    *,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = 10.0,
    retries: int = 3,
    ssl_context: ssl.SSLContext | None = None,
) -> Published:
    """Publishes several messages to several channels, all or none: ``[{"channel": "a", "data": 1}, …]``.

    The other parameters, and what it raises, are those of ``publish``.
    """
    return _run(_attempts(_batch(updates), idempotency_key, url, key, timeout, retries, ssl_context))


async def publish_batch_async(
    updates: Iterable[Update],
    *,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109
    retries: int = 3,
    ssl_context: ssl.SSLContext | None = None,
) -> Published:
    """``publish_batch`` for coroutines."""
    return await _run_async(_attempts(_batch(updates), idempotency_key, url, key, timeout, retries, ssl_context))


# The drivers


def _run(attempts: _Attempts) -> Published:
    try:
        attempt = next(attempts)
        while True:
            time.sleep(attempt.pause_s)
            attempt = attempts.send(_send_once(attempt))
    except StopIteration as end:
        published: Published = end.value
        return published


async def _run_async(attempts: _Attempts) -> Published:
    """Each attempt runs in a thread; the pauses between them hold none."""
    import asyncio  # as slow to import as everything else, and most publishers are not asynchronous

    try:
        attempt = next(attempts)
        while True:
            await asyncio.sleep(attempt.pause_s)
            attempt = attempts.send(await asyncio.to_thread(_send_once, attempt))
    except StopIteration as end:
        published: Published = end.value
        return published


def _send_once(attempt: _Attempt) -> _Outcome:
    connection = Connection(attempt.endpoint, remaining_s=lambda: attempt.deadline - time.monotonic())
    try:
        _send(connection, attempt)
        response = connection.getresponse()
        return _Response(response.status, response.headers, read_body(response, _MAX_RESPONSE_BYTES))
    except (OSError, http.client.HTTPException) as error:
        return error
    finally:
        connection.close()


def _send(connection: Connection, attempt: _Attempt) -> None:
    path = attempt.endpoint.prefix + attempt.post.path
    try:
        connection.request("POST", path, attempt.post.body, dict(attempt.headers))
    except (BrokenPipeError, ConnectionResetError):
        if connection.sock is None:
            raise
        # The server closed before it read the whole body; its response explains why


# What is sent


def _to_channels(
    channel: str | Iterable[str], data: object, message_key: str | None, type: str | None, ttl: float | None
) -> _Post:
    names = [channel] if isinstance(channel, str) else list(channel)
    if not names:
        raise ValueError("at least one channel is required")
    path = f"/channels/{quote(','.join(map(_checked_name, names)), safe=':@~,')}"
    given = {"key": message_key, "type": type, "ttl": ttl}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    return _Post(f"{path}?{query}" if query else path, *_encoded(data))


def _batch(updates: Iterable[Update]) -> _Post:
    return _Post("/channels", f"[{','.join(map(_batch_item, updates))}]".encode(), "application/json")


def _encoded(data: object) -> tuple[bytes, str]:
    if isinstance(data, JsonText):
        return data.encode(), "application/json"
    if data is None or isinstance(data, str):
        return (data or "").encode(), "text/plain; charset=utf-8"
    if isinstance(data, bytes | bytearray):
        data.decode()  # a UnicodeDecodeError here is clearer than the server's 400
        return bytes(data), "text/plain; charset=utf-8"
    return _json(data).encode(), "application/json"


def _json(data: object) -> str:
    if isinstance(data, JsonText):
        return data
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _batch_item(update: Update) -> str:
    fields: dict[str, object] = {name: value for name, value in update.items() if value is not None}
    _checked_name(update["channel"])
    if isinstance(data := fields.get("data"), bytes | bytearray):
        fields["data"] = data.decode()
    return f"{{{','.join(f'{_json(name)}:{_json(value)}' for name, value in fields.items())}}}"


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid channel name: use 1-128 of A-Z a-z 0-9 . _ : ~ @ -")
    return name


# The retry logic


def _attempts(
    post: _Post,
    idempotency_key: str | None,
    url: str | None,
    key: str | None,
    timeout: float,
    retries: int,
    ssl_context: ssl.SSLContext | None,
    key_hint: str = "",
) -> _Attempts:
    deadline = time.monotonic() + timeout
    endpoint = replace(find_endpoint(url), ssl_context=ssl_context)
    key_hint = "" if key is None else key_hint
    key = find_key(endpoint) if key is None else sendable(key)
    idempotency_key = idempotency_key or uuid.uuid4().hex
    headers = {
        "Content-Type": post.content_type,
        "Idempotency-Key": idempotency_key,
        "Accept": "application/json",
        "Connection": "close",
        "User-Agent": "pushcompat",
    }
    if key:
        headers["Authorization"] = f"Bearer {key}"
    pause_s = 0.0
    for retry in range(retries + 1):
        outcome = yield _Attempt(pause_s, endpoint, post, headers, deadline)
        if isinstance(outcome, _Response) and outcome.status == 200:
            return _published(outcome, endpoint)
        failure = _failure(outcome, endpoint, key_hint if key else no_key(), idempotency_key)
        pause_s = _pause_s(outcome, retry)
        if not _is_retryable(outcome) or retry == retries or time.monotonic() + pause_s >= deadline:
            raise failure
    raise ValueError("retries must be 0 or more")


def find_endpoint(url: str | None) -> Endpoint:
    """Raises ValueError for an invalid URL."""
    return Endpoint.parse(url or os.environ.get("PUSHCOMPAT_URL") or DEFAULT_URL)


def find_key(endpoint: Endpoint) -> str | None:
    """The publish key if none was given. The one on this machine is used only for a server on this machine."""
    if key := os.environ.get("PUSHCOMPAT_PUBLISH_KEY"):
        return sendable(key)
    try:
        if file := os.environ.get("PUSHCOMPAT_PUBLISH_KEY_FILE"):
            return read_key(Path(file))
        return read_key(default_state_dir() / KEY_FILE) if endpoint.is_local else None
    except ConfigError:
        return None  # a proxy may add the key; otherwise the server answers 401


def no_key() -> str:
    try:
        place = str(default_state_dir() / KEY_FILE)
    except ConfigError:
        place = "a state directory"
    return f" (no publish key given, and none found in {place})"


def sendable(key: str) -> str:
    try:
        return checked_key(key.strip(), "key")
    except ConfigError as error:
        raise ValueError(str(error)) from None  # http.client's own error would show the key


def _is_retryable(outcome: _Outcome) -> bool:
    if isinstance(outcome, _Response):
        return is_retryable(outcome.status)
    return not isinstance(outcome, ssl.SSLCertVerificationError)


def _pause_s(outcome: _Outcome, retry: int) -> float:
    """Retry-After, and full jitter: clients that failed together must not retry together."""
    jitter_s = random.uniform(0, min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2**retry))
    asked_s = retry_after_s(outcome.headers.get("Retry-After", "")) if isinstance(outcome, _Response) else None
    return jitter_s + (asked_s or 0.0)


# The result


def _published(response: _Response, endpoint: Endpoint) -> Published:
    try:
        document = json.loads(response.body)
        counts = {name: _of(int, channel["subscribers"]) for name, channel in document["channels"].items()}
        return Published(_of(str, document["id"]), counts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PublishRefused(f"{endpoint.url} did not answer like a push server; check the URL", 200) from None


def _of(kind: type[_T], value: object) -> _T:
    """Raises TypeError for another type. True is an int to Python, but not to JSON."""
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _failure(outcome: _Outcome, endpoint: Endpoint, key_hint: str, idempotency_key: str) -> PublishError:
    if isinstance(outcome, ssl.SSLCertVerificationError):
        return PublishRefused(f"TLS certificate verification failed for {endpoint.url}: {outcome.verify_message}")
    if not isinstance(outcome, _Response):
        return PublishUnavailable(connection_failure(outcome, endpoint), None, idempotency_key)
    if 300 <= outcome.status < 400:
        location = outcome.headers.get("Location", "elsewhere")
        sentence = f"{endpoint.url} redirects to {location}; redirects are not followed, use the final URL"
        return PublishRefused(sentence, outcome.status)
    detail = problem_detail(outcome.status, outcome.body)
    if is_retryable(outcome.status):
        return PublishUnavailable(f"{endpoint.url}: {detail}", outcome.status, idempotency_key)
    return PublishRefused(detail + key_hint if outcome.status == 401 else detail, outcome.status)


def connection_failure(error: OSError | http.client.HTTPException, endpoint: Endpoint) -> str:
    if isinstance(error, TimeoutError):
        return f"timed out waiting for {endpoint.url}"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection to {endpoint.url} was lost in the middle of the response"
    reason = getattr(error, "strerror", None) or str(error) or error.__class__.__name__
    return f"cannot reach {endpoint.url}: {reason}; is the server running?"
