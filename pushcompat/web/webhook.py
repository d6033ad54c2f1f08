"""The webhook that reports which channels are occupied, signed according to https://www.standardwebhooks.com.

Signing is three lines with the standard library, so ``standardwebhooks`` is not a dependency; the tests verify
signatures with it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from .. import __version__, logs
from ..changes import Change
from ..errors import ConfigError
from ..logs import Event

_AT_ONCE = 4
_TIMEOUT_S = 10.0
_ANSWER_BYTES = 64 * 1024  # limit of a response, which is ignored
_BACKOFF_S = (1.0, 300.0)  # the first, and the longest
_LONGEST_RETRY_AFTER_S = 3600.0
_GONE = 410  # Standard Webhooks: the receiver has unsubscribed


class Counts(Protocol):
    webhooks: int
    webhook_failures: int


def signing_key(secret: str) -> bytes:
    """``whsec_`` and 24 to 64 bytes in base64. Raises ConfigError."""
    prefix, _, text = secret.partition("_")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if prefix != "whsec" or not 24 <= len(key) <= 64:
        raise ConfigError(
            "--presence-secret: must be whsec_ and 24 to 64 bytes in base64: whsec_$(openssl rand -base64 32)"
        )
    return key


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    digest = hmac.digest(key, b"%b.%d.%b" % (id.encode(), timestamp, body), "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhook:
    """Sends changes, a few at a time; retries each until the receiver has accepted it."""

    def __init__(self, url: str, key: bytes, counts: Counts, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._key = key
        self._counts = counts
        self._clock = clock
        self._queue: asyncio.Queue[tuple[int, Change, str]] = asyncio.Queue()  # bounded by the channels' changes
        self._round = 0  # changes queued in an earlier round are dropped
        self._works = True
        self._tasks: list[asyncio.Task[None]] = []
        self._client = AsyncHTTPClient(force_instance=True, max_clients=_AT_ONCE, max_body_size=_ANSWER_BYTES)

    def start(self, on_accepted: Callable[[Change], None]) -> None:
        self._on_accepted = on_accepted
        self._tasks = [asyncio.create_task(self._work()) for _ in range(_AT_ONCE)]

    def notify(self, change: Change) -> None:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        self._queue.put_nowait((self._round, change, when))

    def forget(self) -> None:
        self._round += 1
        while not self._queue.empty():
            self._queue.get_nowait()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._client.close()

    async def _work(self) -> None:
        while True:
            number, change, when = await self._queue.get()
            attempts = 0
            while number == self._round:
                wait_s = await self._send(change, when, attempts)
                if wait_s is None:
                    if number == self._round:
                        self._on_accepted(change)
                    break
                attempts += 1
                await asyncio.sleep(wait_s)

    async def _send(self, change: Change, when: str, attempts: int) -> float | None:
        """Returns the delay before the next attempt; None: the receiver has accepted it, or has unsubscribed."""
        data = {"channel": change.channel, "subscribers": change.subscribers}
        body = json.dumps({"type": f"channel.{change.kind}", "timestamp": when, "data": data}).encode()
        timestamp = int(self._clock())
        request = HTTPRequest(
            self._url,
            method="POST",
            headers={
                "Content-Type": "application/json",
                "User-Agent": f"pushcompat/{__version__}",
                "webhook-id": change.id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signature(self._key, change.id, timestamp, body),
            },
            body=body,
            connect_timeout=_TIMEOUT_S,
            request_timeout=_TIMEOUT_S,
            follow_redirects=False,
        )
        retry_after = ""
        try:
            response = await self._client.fetch(request, raise_error=False)
            if response.code == _GONE or 200 <= response.code < 300:
                self._note(change, response)
                return None
            problem, retry_after = f"{response.code} {response.reason}", response.headers.get("Retry-After", "")
        except Exception as error:  # any error of the receiver's response: the next attempt may succeed
            problem = str(error) or type(error).__name__
        self._counts.webhook_failures += 1
        if self._works:
            logs.event(Event.WEBHOOK_FAILED, logging.WARNING, detail=problem)
        self._works = False
        first, longest = _BACKOFF_S
        backoff_s: float = min(longest, first * 2.0 ** min(attempts, 20)) * random.uniform(0.5, 1.0)
        asked_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return max(backoff_s, min(asked_s, _LONGEST_RETRY_AFTER_S))

    def _note(self, change: Change, response: HTTPResponse) -> None:
        if not self._works:
            logs.event(Event.WEBHOOK_WORKS, logging.WARNING)
        self._works = True
        self._counts.webhooks += 1
        logs.event(Event.WEBHOOK, logging.DEBUG, channel=change.channel, kind=change.kind, status=response.code)
