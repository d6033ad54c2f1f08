"""Publishes that are signed instead of sent with a key: Standard Webhooks (https://www.standardwebhooks.com).

The signature covers the id, the time and the body as it was sent, before anything else is made of it. It does not cover
the URL: the id is remembered with the channels that it was used for (the store refuses another use of it), for as long
as the time in the signature would be accepted again.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..errors import Unauthorized
from ..wire.request import Request
from .named_key import NamedKey

_FIELDS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Signatures:
    """The keys that have secrets."""

    def __init__(self, keys: Sequence[NamedKey]) -> None:
        self._verifiers = [(key, [_verifier(secret) for secret in key.secrets]) for key in keys if key.secrets]

    def signs(self, request: Request) -> bool:
        """By its head, the request is signed, and there are keys that may have signed it."""
        return bool(self._verifiers) and b"webhook-signature" in request.fields.headers

    def verify(self, request: Request) -> NamedKey:
        """The key whose secret has signed the request. Raises Unauthorized, without detail."""
        headers = {name: request.header(name.encode()) for name in _FIELDS}
        body = bytes(request.body).decode("latin-1")
        # With a "." in it, an id could take the beginning of the body for the time (specification, "Signature scheme")
        if "." not in headers["webhook-id"]:
            for key, verifiers in self._verifiers:
                if any(_verifies(verifier, body, headers) for verifier in verifiers):
                    return key
        raise Unauthorized("invalid signature")


def _verifies(verifier: Any, body: str, headers: dict[str, str]) -> bool:
    from standardwebhooks import WebhookVerificationError

    try:
        verifier.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError, UnicodeError: of what is not base64, not ASCII
        return False
    return True


def _verifier(secret: bytes) -> Any:
    from standardwebhooks import Webhook

    class Verifier(Webhook):
        """Signs the body's bytes, given as Latin-1: the library would take them for UTF-8, which they need not be."""

        def sign(self, msg_id: str, timestamp: datetime, data: str) -> str:
            signed = f"{msg_id}.{int(timestamp.timestamp())}.{data}".encode("latin-1")
            return f"v1,{base64.b64encode(hmac.digest(secret, signed, 'sha256')).decode()}"

    return Verifier(secret)
