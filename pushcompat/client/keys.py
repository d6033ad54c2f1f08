"""Publish keys of a server, managed with its root key. Standard library only."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .dial import Connection
from .publisher import connection_failure, find_endpoint, find_key, no_key, sendable
from .responses import problem_detail, read_body

_DATE = "%Y-%m-%dT%H:%M:%SZ"
_MAX_RESPONSE_BYTES = 16 * 1024 * 1024


class KeysError(Exception):
    """The server refused, or did not answer. The message says why."""


class Keys:
    """``key`` is the root key, found as ``publish`` finds it if it is not given. Raises ValueError."""

    def __init__(self, url: str | None, key: str | None, timeout_s: float) -> None:
        self._endpoint = find_endpoint(url)
        self._key = find_key(self._endpoint) if key is None else sendable(key)
        self._timeout_s = timeout_s

    def add(self, name: str, channels: Sequence[str]) -> dict[str, Any]:
        """The new key, as the server describes it: ``key`` is its text. Raises KeysError."""
        return self._ask("POST", "/keys", "key", {"name": name, "channels": list(channels)})

    def list(self) -> Sequence[dict[str, Any]]:
        """Raises KeysError."""
        keys: Sequence[dict[str, Any]] = self._ask("GET", "/keys", "keys")["keys"]
        return keys

    def revoke(self, name: str) -> None:
        """Raises KeysError."""
        self._ask("DELETE", f"/keys/{quote(name, safe='')}")

    def table(self) -> Sequence[str]:
        """The keys as lines of text. Raises KeysError."""
        rows = [("NAME", "PREFIX", "CHANNELS", "CREATED")]
        for key in self.list():
            prefix, created = key.get("prefix") or "-", key.get("created")
            since = "in the configuration" if created is None else time.strftime(_DATE, time.gmtime(int(created)))
            rows.append((str(key["name"]), str(prefix), ",".join(map(str, key["channels"])), since))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

    def how_to_use(self, key: Mapping[str, Any]) -> Sequence[str]:
        """What to tell about a new key."""
        url = self._endpoint.url
        return [
            f"Key {key.get('name')} may publish to {', '.join(map(str, key.get('channels', ())))}."
            " It is not shown again: write it to a file that only the publisher can read. For example:",
            f"    PUSHCOMPAT_PUBLISH_KEY_FILE=FILE pushcompat publish --url {url} CHANNEL hello",
            f'    curl -H "Authorization: Bearer $(cat FILE)" -d hello {url}/channels/CHANNEL',
            *([f"Note: {key['note']}"] if "note" in key else []),
        ]

    def _ask(self, method: str, path: str, member: str = "", document: object = None) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout_s
        connection = Connection(self._endpoint, remaining_s=lambda: deadline - time.monotonic())
        body = None if document is None else json.dumps(document).encode()
        headers = {"Accept": "application/json", "Connection": "close", "User-Agent": "pushcompat"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.request(method, self._endpoint.prefix + path, body, headers)
            response = connection.getresponse()
            return self._result(response.status, read_body(response, _MAX_RESPONSE_BYTES), member)
        except (OSError, http.client.HTTPException) as error:
            raise KeysError(connection_failure(error, self._endpoint)) from None
        finally:
            connection.close()

    def _result(self, status: int, body: bytes, member: str) -> dict[str, Any]:
        """The document in the response, which must have that member; none: no document is expected."""
        if not 200 <= status < 300:
            raise KeysError(problem_detail(status, body) + (no_key() if status == 401 and not self._key else ""))
        if not member:
            return {}
        try:
            document: dict[str, Any] = json.loads(body)
            document[member]  # raises KeyError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise KeysError(f"{self._endpoint.url} did not answer like a push server; check the URL") from None
        return document
