"""What a client may do: the verdict on one request, and for how long it holds."""

from __future__ import annotations

FOREVER = float("inf")
REVOKED = float("-inf")


class Grant:
    """``publisher`` is the name under which a publisher's idempotency keys are kept, empty for a subscriber.
    ``cors`` are the response header lines that let the page that asked read the answer. ``until``: monotonic seconds.

    A grant may be remembered for the next request with the same header fields, by whoever asks ``until`` each time: it
    dies with what it rests on (a key that is revoked, a token that expires).
    """

    __slots__ = ("cors", "publisher", "until")

    def __init__(self, publisher: str = "", cors: bytes = b"", until: float = FOREVER) -> None:
        self.publisher = publisher
        self.cors = cors
        self.until = until

    def revoke(self) -> None:
        self.until = REVOKED
