"""Publishing from an application: one call, nothing but the standard library.

    from pushcompat import publish
    publish("chat", {"text": "hello"})
    publish("orders")  # the bare signal: something changed, look again

A call takes ``timeout`` seconds at most, its retries and the pauses between them included (only the look-up of the
host's name can not be bounded). Every try carries the same ``Idempotency-Key``, so a publish whose answer got lost is
not delivered twice. What the server refuses (4xx) is not tried again. No redirect is followed and no proxy asked: the
publish key goes to the server that was named, or nowhere.

A call is a course of tries: a generator that yields each try, is sent what came of it, and returns what was published.
One driver waits in its thread, the other is for coroutines.
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
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict
from urllib.parse import quote, urlencode

from ..errors import ConfigError
from ..state import KEY_FILE, checked_key, default_state_dir, read_key
from .dial import Connection, Endpoint, problem_detail, retry_after_s

DEFAULT_URL = "http://127.0.0.1:8888"

_NAME = re.compile(r"[A-Za-z0-9._:~@-]{1,128}")
_TRY_AGAIN = (502, 503, 504)  # from the server, or from a proxy whose server is being restarted
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_ANSWER_BYTES = 4 * 1024 * 1024


class PublishError(Exception):
    """A publish that failed. ``status`` is the answer's, None where there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class PublishRefused(PublishError):
    """The server said no, and why: nothing was published, and the same call would be refused again."""


class PublishUnavailable(PublishError):
    """No good answer in time. The update may have been published all the same: call again with this
    ``idempotency_key``, and it is delivered once.
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
    """Text that is a JSON document already, and is published as such."""


class Update(TypedDict):
    """One message of a batch. ``data`` as for ``publish``, ``ttl`` in seconds."""

    channel: str
    data: NotRequired[object]
    key: NotRequired[str | None]
    type: NotRequired[str | None]
    ttl: NotRequired[float | None]


class _Post(NamedTuple):
    """A publish as it goes over the wire."""

    path: str
    body: bytes
    content_type: str


class _Try(NamedTuple):
    """One try of a publish, after a pause; all waiting ends at ``deadline``."""

    pause_s: float
    endpoint: Endpoint
    post: _Post
    headers: Mapping[str, str]
    deadline: float


class _Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


_Outcome = _Answer | OSError | http.client.HTTPException
_Course = Generator[_Try, _Outcome, Published]


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
) -> Published:
    """Publishes ``data`` to a channel, or to each of several.

    ``data``: None is the bare signal, str and bytes (UTF-8) are text, anything else is JSON; an empty text is the
    signal, too. Of messages with the same ``message_key``, subscribers who were away get the latest only. ``ttl``:
    seconds after which the message is dropped. ``url`` is by default $PUSHCOMPAT_URL, else http://127.0.0.1:8888.
    ``key`` is by default $PUSHCOMPAT_PUBLISH_KEY, else what $PUSHCOMPAT_PUBLISH_KEY_FILE holds, else, for a server on
    this machine only, the key in its state directory.

    Raises PublishRefused or PublishUnavailable (both are PublishError), and ValueError or TypeError for what can not be
    sent.
    """
    post = _to_channels(channel, data, message_key, type, ttl)
    return _run(_tries(post, idempotency_key, url, key, timeout, retries))


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
) -> Published:
    """``publish`` for coroutines."""
    post = _to_channels(channel, data, message_key, type, ttl)
    return await _run_async(_tries(post, idempotency_key, url, key, timeout, retries))


def publish_batch(
    updates: Iterable[Update],
    *,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = 10.0,
    retries: int = 3,
) -> Published:
    """Publishes several messages to several channels, all or none: ``[{"channel": "a", "data": 1}, …]``.

    The other parameters, and what it raises, are those of ``publish``.
    """
    return _run(_tries(_batch(updates), idempotency_key, url, key, timeout, retries))


async def publish_batch_async(
    updates: Iterable[Update],
    *,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109
    retries: int = 3,
) -> Published:
    """``publish_batch`` for coroutines."""
    return await _run_async(_tries(_batch(updates), idempotency_key, url, key, timeout, retries))


# What drives a course


def _run(course: _Course) -> Published:
    try:
        step = next(course)
        while True:
            time.sleep(step.pause_s)
            step = course.send(_attempt(step))
    except StopIteration as end:
        published: Published = end.value
        return published


async def _run_async(course: _Course) -> Published:
    """Each try runs in a thread; the pauses between them hold none."""
    import asyncio  # takes as long to import as all the rest, and most who publish are not asynchronous

    try:
        step = next(course)
        while True:
            await asyncio.sleep(step.pause_s)
            step = course.send(await asyncio.to_thread(_attempt, step))
    except StopIteration as end:
        published: Published = end.value
        return published


def _attempt(step: _Try) -> _Outcome:
    connection = Connection(step.endpoint, patience=lambda: step.deadline - time.monotonic())
    try:
        _send(connection, step)
        response = connection.getresponse()
        return _Answer(response.status, response.headers, response.read(_ANSWER_BYTES))
    except (OSError, http.client.HTTPException) as error:
        return error
    finally:
        connection.close()


def _send(connection: Connection, step: _Try) -> None:
    try:
        connection.request("POST", step.endpoint.prefix + step.post.path, step.post.body, dict(step.headers))
    except (BrokenPipeError, ConnectionResetError):
        if connection.sock is None:
            raise
        # Cut off in the middle of the body: the server had seen enough, and has said why


# What is sent


def _to_channels(
    channel: str | Iterable[str], data: object, message_key: str | None, type: str | None, ttl: float | None
) -> _Post:
    names = [channel] if isinstance(channel, str) else list(channel)
    if not names:
        raise ValueError("name a channel to publish to")
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
        data.decode()  # a UnicodeDecodeError here is clearer than a 400 from there
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
        raise ValueError(f"{name!r} is no channel name: use 1-128 of A-Z a-z 0-9 . _ : ~ @ -")
    return name


# A course of tries


def _tries(
    post: _Post,
    idempotency_key: str | None,
    url: str | None,
    key: str | None,
    timeout: float,
    retries: int,
) -> _Course:
    deadline = time.monotonic() + timeout
    endpoint = find_endpoint(url)
    key = _find_key(endpoint) if key is None else _sendable(key)
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
    for tried in range(retries + 1):
        outcome = yield _Try(pause_s, endpoint, post, headers, deadline)
        if isinstance(outcome, _Answer) and outcome.status == 200:
            return _published(outcome, endpoint)
        failure = _failure(outcome, endpoint, bool(key), idempotency_key)
        pause_s = _pause_s(outcome, tried)
        if not _may_pass(outcome) or tried == retries or time.monotonic() + pause_s >= deadline:
            raise failure
    raise ValueError("retries must be 0 or more")


def find_endpoint(url: str | None) -> Endpoint:
    """Raises ValueError for what is not a server's URL."""
    return Endpoint.parse(url or os.environ.get("PUSHCOMPAT_URL") or DEFAULT_URL)


def _find_key(endpoint: Endpoint) -> str | None:
    """The publish key where none was given. The one on this disk is for the server on this machine only."""
    if key := os.environ.get("PUSHCOMPAT_PUBLISH_KEY"):
        return _sendable(key)
    try:
        if file := os.environ.get("PUSHCOMPAT_PUBLISH_KEY_FILE"):
            return read_key(Path(file))
        return read_key(default_state_dir() / KEY_FILE) if endpoint.is_local else None
    except ConfigError:
        return None  # a proxy may add one; if not, the refusal says what to do


def _state_dir_shown() -> str:
    try:
        return str(default_state_dir() / KEY_FILE)
    except ConfigError:
        return "a state directory"


def _sendable(key: str) -> str:
    try:
        return checked_key(key.strip(), "key")
    except ConfigError as error:
        raise ValueError(str(error)) from None  # http.client's own error would show the key


def _may_pass(outcome: _Outcome) -> bool:
    if isinstance(outcome, _Answer):
        return outcome.status in _TRY_AGAIN
    return not isinstance(outcome, ssl.SSLCertVerificationError)


def _pause_s(outcome: _Outcome, tried: int) -> float:
    """What the server asks for, and full jitter: those who failed together must not come back together."""
    jitter = random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tried))
    asked = retry_after_s(outcome.headers.get("Retry-After", "")) if isinstance(outcome, _Answer) else None
    return jitter + (asked or 0.0)


# What came of it


def _published(answer: _Answer, endpoint: Endpoint) -> Published:
    try:
        document = json.loads(answer.body)
        counts = {name: int(channel["subscribers"]) for name, channel in document["channels"].items()}
        return Published(str(document["id"]), counts)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PublishRefused(f"what answers at {endpoint.url} is not a push server; check the URL", 200) from None


def _failure(outcome: _Outcome, endpoint: Endpoint, has_key: bool, idempotency_key: str) -> PublishError:
    if isinstance(outcome, ssl.SSLCertVerificationError):
        return PublishRefused(f"{endpoint.url} shows a certificate that is not valid: {outcome.verify_message}")
    if not isinstance(outcome, _Answer):
        return PublishUnavailable(_unreachable(outcome, endpoint), None, idempotency_key)
    if 300 <= outcome.status < 400:
        elsewhere = outcome.headers.get("Location", "elsewhere")
        return PublishRefused(f"{endpoint.url} redirects to {elsewhere}; name the server itself", outcome.status)
    detail = problem_detail(outcome.status, outcome.body)
    if outcome.status >= 500:
        return PublishUnavailable(f"{endpoint.url}: {detail}", outcome.status, idempotency_key)
    if outcome.status == 401 and not has_key:
        detail += f" (no key was given, and none found in {_state_dir_shown()})"
    return PublishRefused(detail, outcome.status)


def _unreachable(error: OSError | http.client.HTTPException, endpoint: Endpoint) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer from {endpoint.url} in time"
    reason = getattr(error, "strerror", None) or str(error) or error.__class__.__name__
    return f"can not reach {endpoint.url}: {reason}; is the server running there?"
