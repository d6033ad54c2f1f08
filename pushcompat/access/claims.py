"""What a verified token says; ``access.tokens`` has the meaning of each. Imports no library of tokens."""

from __future__ import annotations

from typing import Protocol

from .patterns import Pattern


class Claims(Protocol):
    """``key`` identifies the key and the settings that the token was verified with."""

    @property
    def sub(self) -> str: ...

    @property
    def jti(self) -> str: ...

    @property
    def channels(self) -> tuple[Pattern, ...] | None: ...

    @property
    def until(self) -> float: ...

    @property
    def issued_at(self) -> float | None: ...

    @property
    def key(self) -> bytes: ...


class Verifier(Protocol):
    def verify(self, token: bytes, now: float) -> Claims:
        """``now``: Unix seconds. Raises Unauthorized."""

    def trusts(self, claims: Claims) -> bool:
        """Whether claims that another verifier has verified would be verified by this one too."""
