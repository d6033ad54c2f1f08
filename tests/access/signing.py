"""What a sender of Standard Webhooks does."""

from __future__ import annotations

import base64
import hmac
import time

SECRET = b"0123456789abcdef0123456789abcdef"
OTHER = b"another secret of thirty-two byte"
OTHER_TEXT = f"whsec_{base64.b64encode(OTHER).decode()}"
TEXT = f"whsec_{base64.b64encode(SECRET).decode()}"


def sign(body: bytes, id: str = "msg_1", secret: bytes = SECRET, at: float | None = None) -> dict[str, str]:
    """The header fields of a signed request."""
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.digest(secret, b"%b.%b.%b" % (id.encode(), timestamp.encode(), body), "sha256")
    return {
        "webhook-id": id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
