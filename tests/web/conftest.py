"""The Tornado application in this process, under the fixtures of pytest-tornado: ``http_client`` and ``fetch`` ask it.

What belongs to the server process (its options, the way from the hub to Tornado and back, how a connection ends, the
metrics of real traffic) is tested with tests/harness.py instead, on real sockets.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import _HTTPRequestContext

from ..harness import PATIENCE_S

Fetch = Callable[..., Awaitable[HTTPResponse]]


@pytest.fixture(autouse=True)
def _admin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of Tornado's own server say, as those of the hub do, that they may administrate."""
    monkeypatch.setattr(_HTTPRequestContext, "admin", True, raising=False)


@pytest.fixture
def fetch(http_client: AsyncHTTPClient, base_url: str) -> Fetch:
    """``await fetch(path, method=…, body=…, headers=…)``: the response, whatever its status."""

    def fetch(path: str, **request: Any) -> Awaitable[HTTPResponse]:
        settings = {"raise_error": False, "follow_redirects": False, "request_timeout": PATIENCE_S}
        return http_client.fetch(base_url + path, **settings, allow_nonstandard_methods=True, **request)

    return fetch


def problem(response: HTTPResponse) -> tuple[int, str]:
    """A refusal, which must be a problem document: status, and the detail for the user."""
    assert response.headers["Content-Type"] == "application/problem+json", response.body
    document = json.loads(response.body)
    assert (document["status"], bool(document["title"])) == (response.code, True)
    return response.code, document["detail"]


async def exposed() -> bytes:
    return b"a 1.0\n"
