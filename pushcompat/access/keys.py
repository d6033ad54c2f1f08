"""Publish keys, sent as ``Authorization: Bearer KEY``."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from ..errors import Unauthorized
from ..wire.request import Request


class PublishKeys:
    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = list(keys)

    def check(self, request: Request, what: str = "publishing") -> str:
        """The name of the publisher. ``what`` names the action, for the error. Raises Unauthorized."""
        return self.check_given(request.fields.headers.get(b"authorization", b""), what)

    def check_given(self, authorization: bytes, what: str) -> str:
        given = _bearer(authorization)
        if not given:
            raise Unauthorized(f'{what} needs the publish key: send "Authorization: Bearer KEY"')
        known = False
        for key in self._keys:  # compare with all: timing must not reveal which one matched
            known |= hmac.compare_digest(given, key)
        if not known:
            raise Unauthorized("invalid publish key; the server prints the path of the key's file at its start")
        return "publisher"

    def revoke(self, key: bytes) -> None:
        self._keys.remove(key)


def _bearer(authorization: bytes) -> bytes:
    scheme, _, credentials = authorization.partition(b" ")
    return credentials.strip() if scheme.lower() == b"bearer" else b""
