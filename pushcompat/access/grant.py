"""The result of authorising a request, and how long it is valid."""

from __future__ import annotations

from collections.abc import Iterable

from .claims import Claims
from .quotas import Quota
from .scope import Scope

FOREVER = 1 << 60
REVOKED = -1


class Grant:
    """``publisher`` is the name under which a publisher's idempotency keys are kept, empty for a subscriber.
    ``cors`` are the response header lines that allow the requesting page to read the response. ``page`` is the page's
    origin, if it was admitted by its name. ``until``: the tick (whole monotonic second) from which it is no longer
    valid.

    ``scope``: the channels that a publisher may publish to; None: any. ``signed``: it has a signature instead of a key.

    ``quota``: how much it may publish; None: it is not limited.

    ``sub`` and ``jti`` are the subscriber's name and the id of its token; empty if it has none. ``issued_at``: Unix
    seconds at which its token was issued, or the application allowed it; None: unknown. ``claims`` are those of its
    token, ``allowed`` the channels that the application has allowed.

    A grant may be cached for the next request with the same bytes, if ``until`` is checked each time: it ends with the
    key or token that it depends on (revoked, or expired).
    """

    __slots__ = (
        "allowed", "claims", "cors", "issued_at", "jti", "page", "publisher", "quota", "scope", "signed", "sub",
        "until",
    )  # fmt: skip

    def __init__(
        self,
        publisher: str = "",
        cors: bytes = b"",
        until: int = FOREVER,
        *,
        page: str = "",
        sub: str = "",
        jti: str = "",
        issued_at: float | None = None,
        scope: Scope | None = None,
        signed: bool = False,
        quota: Quota | None = None,
        claims: Claims | None = None,
        allowed: tuple[str, ...] = (),
    ) -> None:
        self.publisher = publisher
        self.cors = cors
        self.page = page
        self.until = until
        self.sub = sub
        self.jti = jti
        self.issued_at = issued_at
        self.scope = scope
        self.signed = signed
        self.quota = quota
        self.claims = claims
        self.allowed = allowed

    def check_publish(self, channels: Iterable[str]) -> None:
        """Raises Forbidden or Unauthorized if one of the channels is not in its scope."""
        if self.scope is not None:
            self.scope.check(channels)

    def revoke(self) -> None:
        self.until = REVOKED
