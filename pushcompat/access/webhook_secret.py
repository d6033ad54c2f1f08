"""Secrets of Standard Webhooks, checked when they are configured.

The library takes any text: it makes another secret of one with a typing error, or in another alphabet, in silence.
"""

from __future__ import annotations

import base64
import binascii
from importlib.util import find_spec

MAX_SECRETS = 2  # of one key: the old and the new one
_SECRET_BYTES = (24, 64)  # of the specification
_PREFIX = "whsec_"
_ASYMMETRIC = ("whsk_", "whpk_")


def secret_bytes(text: str) -> bytes:
    """The secret in ``whsec_`` and base64. Raises ValueError, with a sentence that does not show it."""
    if text.startswith(_ASYMMETRIC):
        raise ValueError(f"a webhook secret begins with {text[:5]}, a key for ed25519; use a symmetric one, whsec_…")
    if not text.startswith(_PREFIX):
        raise ValueError("a webhook secret begins with whsec_; create one: whsec_$(openssl rand -base64 32)")
    encoded = text.removeprefix(_PREFIX)
    if "-" in encoded or "_" in encoded:
        raise ValueError("a webhook secret is in the URL-safe alphabet of base64; use + and / instead of - and _")
    padded = encoded + "=" * (-len(encoded) % 4)
    try:
        secret = base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    least, most = _SECRET_BYTES
    if not least <= len(secret) <= most or base64.b64encode(secret).decode() != padded:
        raise ValueError(f"a webhook secret is whsec_ and {least} to {most} bytes in base64; copy the whole of it")
    return secret


def require_library() -> None:
    """Raises ValueError if the library that verifies signatures is not installed."""
    if find_spec("standardwebhooks") is None:
        raise ValueError('signed publishes need a library: pip install "pushcompat[access]"')
