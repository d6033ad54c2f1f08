"""The result of authorising a request, and how long it is valid."""

from __future__ import annotations

FOREVER = float("inf")
REVOKED = float("-inf")


class Grant:
    """``publisher`` is the name under which a publisher's idempotency keys are kept, empty for a subscriber.
    ``cors`` are the response header lines that allow the requesting page to read the response. ``until``: monotonic
    seconds.

    A grant may be cached for the next request with the same header fields, if ``until`` is checked each time: it ends
    with the key or token that it depends on (revoked, or expired).
    """

    __slots__ = ("cors", "publisher", "until")

    def __init__(self, publisher: str = "", cors: bytes = b"", until: float = FOREVER) -> None:
        self.publisher = publisher
        self.cors = cors
        self.until = until

    def revoke(self) -> None:
        self.until = REVOKED
