"""What senders of webhooks ask before they send, or to see whether the receiver is still there. Nothing is published.

Answers repeat what the request contains: as plain text that browsers do not take for anything else (``nosniff``), and
bounded.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tornado.escape import json_encode

from ..access.hooks import Challenge, Hook
from ..access.providers import Unverified
from ..errors import BadRequest
from ..wire.documents import document
from ..wire.templates import Missing

_LONGEST = 2048  # characters of a challenge
_ORIGIN = re.compile(r"[A-Za-z0-9.:*_-]{1,253}")  # a DNS name, by the specification

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    body: str
    content_type: str = "text/plain; charset=utf-8"


def asked_in_body(hook: Hook, headers: Headers, body: bytes) -> Answer | None:
    """Called with a request that was verified. None: it is no question."""
    ask = _IN_BODY.get(hook.provider.name)
    return None if ask is None else ask(headers, body)


def asked_in_query(hook: Hook, query: Mapping[str, str]) -> Answer | None:
    """Microsoft Graph: a POST with ``validationToken``, to a URL that has the hook's token
    (https://learn.microsoft.com/graph/change-notifications-delivery-webhooks). Raises BadRequest.
    """
    token = query.get("validationToken")
    return None if token is None or not hook.has_token else _echo("validationToken", token)


def challenged(hook: Hook, query: Mapping[str, str]) -> Answer | None:
    """A GET with ``hub.mode``, if the hook is configured for it. Raises BadRequest, Unverified."""
    if hook.challenge is None or "hub.mode" not in query:
        return None
    if hook.challenge is Challenge.META:
        given = query.get("hub.verify_token", "").encode()
        if not hmac.compare_digest(given, hook.verify_token):
            raise Unverified("wrong hub.verify_token")
    elif query["hub.mode"] == "denied":  # WebSub: the subscription was refused, and nothing is asked
        return Answer("")
    return _echo("hub.challenge", query.get("hub.challenge", ""))


def allowed_origin(headers: Headers) -> str | None:
    """CloudEvents: the value of WebHook-Allowed-Origin
    (https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md). Raises BadRequest.
    """
    origin = headers.get("WebHook-Request-Origin")
    if origin is not None and not _ORIGIN.fullmatch(origin):
        raise BadRequest("WebHook-Request-Origin must be a DNS name")
    return origin


def _echo(name: str, text: str) -> Answer:
    if not 0 < len(text) <= _LONGEST:
        raise BadRequest(f"{name} must have 1 to {_LONGEST} characters")
    return Answer(text)


def _github(headers: Headers, body: bytes) -> Answer | None:
    return Answer("") if headers.get("X-GitHub-Event") == "ping" else None


def _slack(headers: Headers, body: bytes) -> Answer | None:
    """https://docs.slack.dev/reference/events/url_verification"""
    members = _members(body) if b"url_verification" in body else {}
    if members.get("type") != "url_verification":
        return None
    return _echo("challenge", str(members.get("challenge", "")))


def _ping(headers: Headers, body: bytes) -> Answer | None:
    """Discord's PING, which is answered with the same."""
    if "X-Signature-Ed25519" in headers and _members(body).get("type") == "1":
        return Answer(json_encode({"type": 1}), "application/json")
    return None


def _members(body: bytes) -> Mapping[str, object]:
    try:
        found = document(body, "application/json", {})
    except Missing:
        return {}
    return found if isinstance(found, dict) else {}


_IN_BODY: Mapping[str, Callable[[Headers, bytes], Answer | None]] = {
    "github": _github,
    "slack": _slack,
    "token": _ping,
}
