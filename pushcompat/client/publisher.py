"""Publishing from an application: one call, standard library only.

    from pushcompat import publish
    publish("chat", {"text": "hello"})
    publish("orders")  # the bare signal: something changed, refetch

A call takes ``timeout`` seconds at most, its retries and the pauses between them included (only the look-up of the host
name has no limit). Redirects are not followed and proxies not used: the publish key is sent only to the given server.
"""

from __future__ import annotations

import atexit
import http.client
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .attempts import attempts
from .core import MESSAGE_KEY_HINT, Core, Published
from .exchange import Stale, exchange
from .failures import Outcome, PublishError, PublishRefused, PublishUnavailable
from .pool import Pool
from .posts import Batch, JsonText, Post, Update, batch, to_channels

if TYPE_CHECKING:
    from .later import Later, Stats

__all__ = [
    "MESSAGE_KEY_HINT", "JsonText", "PublishError", "PublishRefused", "PublishUnavailable", "Published", "Publisher",
    "Update", "default_publisher", "publish", "publish_batch",
]  # fmt: skip

TIMEOUT_S = 2.0  # what a page can be made to wait for
BREAKER_S = 5.0


class Publisher:
    """Publishes to one server, over connections that it keeps. Thread-safe; a forked process opens its own.

    ``url``: by default $PUSHCOMPAT_URL, else http://127.0.0.1:8888. ``key``: a publish key, the server's root key or a
    named one; by default $PUSHCOMPAT_PUBLISH_KEY, else the content of $PUSHCOMPAT_PUBLISH_KEY_FILE, else, for a server
    on this machine only, the key in its state directory. ``timeout``: seconds for a call, its retries included.
    ``breaker``: seconds for which calls fail at once after one that raised PublishUnavailable; 0: never.
    ``ssl_context``: whom to trust; by default the system's authorities, or those in $SSL_CERT_FILE.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = TIMEOUT_S,
        breaker: float = BREAKER_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.timeout = timeout
        self._core = Core(url, key, breaker, ssl_context)
        self._pool = Pool(self._core.endpoint)
        self._queues: dict[int, Later] = {}  # by process
        #: ``on_loss(count, reason)`` is called in the thread of ``later`` for messages that were dropped.
        self.on_loss: Callable[[int, str], None] | None = None

    def publish(
        self,
        channel: str | Iterable[str],
        data: object = None,
        *,
        message_key: str | None = None,
        type: str | None = None,
        ttl: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Publishes ``data`` to a channel, or to each of several.

        ``data``: None is the bare signal, str and bytes (UTF-8) are text, anything else is JSON; an empty text is the
        signal too. Only the latest message per ``message_key`` is kept for subscribers that were disconnected.
        ``ttl``: seconds after which the message is dropped.

        Raises PublishRefused or PublishUnavailable (both are PublishError), and before anything is sent ValueError or
        TypeError for invalid arguments.
        """
        return self.send(to_channels(channel, data, message_key, type, ttl), idempotency_key, timeout)

    __call__ = publish

    def publish_batch(
        self, updates: Iterable[Update], *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> Published:
        """Publishes several messages to several channels, all or none: ``[{"channel": "a", "data": 1}, …]``.

        Those whose ``id`` was published before are left out (``Published.repeated``): an outbox may send them again
        together with others.
        """
        return self.send(batch(updates), idempotency_key, timeout)

    def later(
        self,
        channel: str | Iterable[str],
        data: object = None,
        *,
        message_key: str | None = None,
        type: str | None = None,
        ttl: float | None = None,
    ) -> None:
        """``publish``, soon and in a batch with others, by a thread: it never waits, and never raises for the network.

        At most 1,000 messages wait; a signal, and a message with the same ``message_key``, replaces the one before it.
        What is dropped is logged, counted in ``stats()``, and told to ``on_loss``. Raises ValueError or TypeError for
        invalid arguments.
        """
        queue = self._later()
        for name in [channel] if isinstance(channel, str) else channel:
            queue.add({"channel": name, "data": data, "message_key": message_key, "type": type, "ttl": ttl})

    def flush(self, timeout: float = 2.0) -> bool:
        """Waits until all messages of ``later`` are published. Returns whether they are, within ``timeout`` seconds."""
        return self._later().flush(timeout)

    def drain(self, timeout: float = 2.0) -> None:
        """``flush``; then what is left is dropped, counted and logged. That happens at the end of a process; call it
        where Python's exit functions do not run, as in one that a signal ends.
        """
        self._later().end(time.monotonic() + timeout)

    def stats(self) -> Stats:
        """Of ``later``."""
        return self._later().stats()

    def cursor(self, channel: str = "", *, timeout: float | None = None) -> str:
        """The position of the log, for the first page: ask for it before reading what the page shows, and let the page
        subscribe from there, so that nothing is lost in between. It is the same for each ``channel``.

        Raises PublishError.
        """
        request = self._core.cursor_request()
        return self._core.cursor(self._outcome(request, self.timeout if timeout is None else timeout))

    def _later(self) -> Later:
        """The queue of this process: after a fork the parent publishes what it had queued."""
        queue = self._queues.get(os.getpid())
        if queue is None:
            from .later import Later  # most publishers do not need it

            queue = self._queues.setdefault(os.getpid(), Later(self.send, self._lost))
        return queue

    def _lost(self, count: int, reason: str) -> None:
        if self.on_loss is not None:
            self.on_loss(count, reason)

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Collects messages, and publishes them as one batch at the end of the block; nothing after an exception.

        with push.batch() as b:
            b("chat", "hello")
            b("orders")
        """
        collected = Batch()
        yield collected
        if collected.updates:
            collected.published = self.publish_batch(collected.updates)

    def close(self) -> None:
        """Closes the kept connections. The publisher can be used again."""
        self._pool.close()

    # Attempts

    def send(self, post: Post, idempotency_key: str | None = None, timeout: float | None = None) -> Published:
        request, key = self._core.request(post, idempotency_key)
        outcome = self._outcome(request, self.timeout if timeout is None else timeout)
        return self._core.result(outcome, key)

    def _outcome(self, request: bytes, timeout_s: float) -> Outcome:
        trying = attempts(timeout_s)
        try:
            pause_s, deadline = next(trying)
            while True:
                if pause_s:
                    time.sleep(pause_s)
                pause_s, deadline = trying.send(self._try(request, deadline))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    def _try(self, request: bytes, deadline: float) -> Outcome:
        def remaining_s() -> float:
            return deadline - time.monotonic()

        while True:
            try:
                sock, is_kept = self._pool.take(remaining_s)
            except OSError as error:
                return error
            try:
                response, reusable = exchange(sock, request, is_kept)
            except Stale:
                sock.close()
                continue
            except (OSError, http.client.HTTPException) as error:
                sock.close()
                self._pool.close()  # whatever has happened to this one has happened to the idle ones too
                return error
            except BaseException:
                sock.close()
                raise
            if reusable:
                self._pool.keep(sock)
            else:
                sock.close()
            return response


@atexit.register
def _end() -> None:
    """Exit functions that were registered after the import run before this one, and may still queue messages."""
    later = sys.modules.get(f"{__package__}.later")
    if later is not None:
        later.end_of_process()


# The default publishers


_MOST_PUBLISHERS = 32
_ENVIRONMENT = (
    "PUSHCOMPAT_URL", "PUSHCOMPAT_PUBLISH_KEY", "PUSHCOMPAT_PUBLISH_KEY_FILE", "PUSHCOMPAT_STATE_DIR",
    "XDG_STATE_HOME", "HOME",
)  # fmt: skip
_publishers: dict[tuple[object, ...], Publisher] = {}


def default_publisher(
    url: str | None = None, key: str | None = None, ssl_context: ssl.SSLContext | None = None
) -> Publisher:
    """The publisher that calls with these arguments, in this environment, share."""
    known = url, key, ssl_context, *map(os.environ.get, _ENVIRONMENT)
    publisher = _publishers.get(known)
    if publisher is None:
        publisher = Publisher(url, key, ssl_context=ssl_context)
        if key is not None:
            publisher._core.key_hint = MESSAGE_KEY_HINT
        if len(_publishers) >= _MOST_PUBLISHERS:
            _publishers.clear()
        publisher = _publishers.setdefault(known, publisher)
    return publisher


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
    timeout: float = TIMEOUT_S,
    ssl_context: ssl.SSLContext | None = None,
) -> Published:
    """``Publisher(url, key)(channel, data, …)``: see there. Calls with the same ``url``, ``key`` and ``ssl_context``
    share a publisher.
    """
    post = to_channels(channel, data, message_key, type, ttl)
    return default_publisher(url, key, ssl_context).send(post, idempotency_key, timeout)


def publish_batch(
    updates: Iterable[Update],
    *,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = TIMEOUT_S,
    ssl_context: ssl.SSLContext | None = None,
) -> Published:
    """``Publisher(url, key).publish_batch(updates, …)``: see there."""
    return default_publisher(url, key, ssl_context).send(batch(updates), idempotency_key, timeout)
