"""What a request proves its sender's identity with: ``Authorization: Bearer``, and cookies (RFC 6750, RFC 6265)."""

from __future__ import annotations

from ..wire.request import Request


def bearer(request: Request) -> bytes:
    """The credentials of ``Authorization: Bearer``; empty if there are none."""
    scheme, _, credentials = request.fields.headers.get(b"authorization", b"").partition(b" ")
    return credentials.strip() if scheme.lower() == b"bearer" else b""


def cookie(request: Request, name: bytes) -> bytes:
    """The value of a cookie; of several with the name the first, which browsers choose by the longest path."""
    for pair in request.fields.headers.get(b"cookie", b"").split(b";"):
        key, found, value = pair.partition(b"=")
        if found and key.strip() == name:
            return value.strip().strip(b'"')
    return b""
