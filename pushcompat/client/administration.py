"""Administration of a server with its root key. Standard library only."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from .credentials import find_endpoint, find_key, no_key, sendable
from .dial import Connection
from .failures import connection_failure
from .responses import problem_detail, read_body

_MAX_RESPONSE_BYTES = 16 * 1024 * 1024


class AdministrationError(Exception):
    """The server refused, or did not answer. The message says why."""


class Administration:
    """``key`` is the root key, found as ``publish`` finds it if it is not given. Raises ValueError."""

    def __init__(self, url: str | None, key: str | None, timeout_s: float) -> None:
        self.endpoint = find_endpoint(url)
        self._key = find_key(self.endpoint) if key is None else sendable(key)
        self._timeout_s = timeout_s

    def revoke(self, **target: object) -> None:
        """Refuses subscribers: ``sub``, ``jti``, ``channel``, ``expires`` (seconds). Raises AdministrationError."""
        self.ask("POST", "/revoke", document={name: value for name, value in target.items() if value is not None})

    def ask(self, method: str, path: str, member: str = "", document: object = None) -> dict[str, Any]:
        """The document in the response, which must have that member. Raises AdministrationError."""
        deadline = time.monotonic() + self._timeout_s
        connection = Connection(self.endpoint, remaining_s=lambda: deadline - time.monotonic())
        body = None if document is None else json.dumps(document).encode()
        headers = {"Accept": "application/json", "Connection": "close", "User-Agent": "pushcompat"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.request(method, self.endpoint.prefix + path, body, headers)
            response = connection.getresponse()
            return self._result(response.status, read_body(response, _MAX_RESPONSE_BYTES), member)
        except (OSError, http.client.HTTPException) as error:
            raise AdministrationError(connection_failure(error, self.endpoint, "it may have been done")) from None
        finally:
            connection.close()

    def _result(self, status: int, body: bytes, member: str) -> dict[str, Any]:
        """The document in the response, which must have that member; none: no document is expected."""
        if not 200 <= status < 300:
            raise AdministrationError(
                problem_detail(status, body) + (no_key() if status == 401 and not self._key else "")
            )
        if not member:
            return {}
        try:
            document: dict[str, Any] = json.loads(body)
            document[member]  # raises KeyError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise AdministrationError(f"{self.endpoint.url} did not answer like a push server; check the URL") from None
        return document
