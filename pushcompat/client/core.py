"""What publishers of both kinds share: server, key, requests, circuit breaker, and what a response means. Standard
library only.
"""

import json
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from .breaker import Breaker
from .credentials import find_endpoint, find_key, no_key, sendable
from .failures import Outcome, PublishRefused, PublishUnavailable, Response, failure
from .posts import Post

MESSAGE_KEY_HINT = " (the parameter key is the publish key; to set the message's key use message_key=)"
_KEY_HINT = " (look at PUSHCOMPAT_PUBLISH_KEY or PUSHCOMPAT_PUBLISH_KEY_FILE)"

_T = TypeVar("_T")


# Without "from __future__ import annotations", whose text ``typing`` would compile: 4 % of the time of the import
class Published(NamedTuple):
    """``id`` is the cursor of the last message, ``channels`` the number of each channel's subscribers. ``repeated``:
    the indexes of a batch's messages that were published before, with the same ids, and were left out.
    """

    id: str
    channels: Mapping[str, int]
    repeated: Sequence[int] = ()


class Core:
    """See ``Publisher`` for the parameters. Raises ValueError for an invalid URL or key."""

    def __init__(self, url: str | None, key: str | None, breaker_s: float, ssl_context: ssl.SSLContext | None) -> None:
        self.endpoint = find_endpoint(url, ssl_context)
        self.key_hint = _KEY_HINT if key is None else ""  # what a refusal of the key adds
        self._key = find_key(self.endpoint) if key is None else sendable(key)
        self._breaker = Breaker(breaker_s)
        self._fields = self._fixed_fields()

    def request(self, post: Post, idempotency_key: str | None) -> tuple[bytes, str]:
        """Head and body as they are sent, and the key. Raises PublishUnavailable while the circuit breaker is open."""
        key = os.urandom(16).hex() if idempotency_key is None else _in_a_header(idempotency_key)
        self._check_breaker(key)
        head = (
            f"POST {self.endpoint.prefix}{post.path} HTTP/1.1\r\n{self._fields}Content-Type: {post.content_type}\r\n"
            f"Content-Length: {len(post.body)}\r\nIdempotency-Key: {key}\r\n\r\n"
        )
        return head.encode("latin-1") + post.body, key

    def _check_breaker(self, idempotency_key: str) -> None:
        if not self._breaker.allows():
            away = f"{self.endpoint.url} has failed shortly before, and is not tried again yet (breaker)"
            raise PublishUnavailable(away, None, idempotency_key, fast=True)

    def cursor_request(self) -> bytes:
        """Asks for the position of the log. Raises PublishUnavailable while the circuit breaker is open."""
        self._check_breaker("")
        return f"GET {self.endpoint.prefix}/cursor HTTP/1.1\r\n{self._fields}\r\n".encode("latin-1")

    def cursor(self, outcome: Outcome) -> str:
        """Raises PublishError, unless the last outcome is a success."""
        response = self._success(outcome, "")
        try:
            return _of(str, json.loads(response.body)["cursor"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._not_ours() from None

    def result(self, outcome: Outcome, idempotency_key: str) -> Published:
        """Raises PublishError, unless the last outcome is a success."""
        response = self._success(outcome, idempotency_key)
        try:
            document = json.loads(response.body)
            counts = {name: _of(int, channel["subscribers"]) for name, channel in document["channels"].items()}
            repeated = tuple([_of(int, index) for index in document.get("repeated", ())])
            return Published(_of(str, document["id"]), counts, repeated)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._not_ours() from None

    def _not_ours(self) -> PublishRefused:
        return PublishRefused(
            f"{self.endpoint.url} did not answer like a push server; is the URL right (PUSHCOMPAT_URL)?", 200
        )

    def _success(self, outcome: Outcome, idempotency_key: str) -> Response:
        if isinstance(outcome, Response) and outcome.status == 200:
            self._breaker.succeeded()
            return outcome
        error = failure(outcome, self.endpoint, self.key_hint if self._key else no_key(), idempotency_key)
        if isinstance(error, PublishUnavailable):
            self._breaker.failed()
        else:
            self._breaker.succeeded()
        raise error

    def _fixed_fields(self) -> str:
        usual_port = 443 if self.endpoint.secure else 80
        host = self.endpoint.authority.removesuffix(f":{usual_port}")
        key = f"Authorization: Bearer {self._key}\r\n" if self._key else ""
        return f"Host: {host}\r\nUser-Agent: pushcompat\r\nAccept: application/json\r\n{key}"


def _in_a_header(text: str) -> str:
    if not (text and text.isascii() and text.isprintable()):
        raise ValueError(f"idempotency_key {text!r} cannot be sent: use printable ASCII characters")
    return text


def _of(kind: type[_T], value: object) -> _T:
    """Raises TypeError for another type. True is an int to Python, but not to JSON."""
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
