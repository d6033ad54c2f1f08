"""What is configured for one webhook of someone else: ``/hooks/NAME``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..wire.templates import Template
from .providers import Provider


class Challenge(Enum):
    """Which sender asks with a GET, before its first request, whether the URL is its subscriber's."""

    META = "meta"  # https://developers.facebook.com/docs/graph-api/webhooks/getting-started
    WEBSUB = "websub"  # https://www.w3.org/TR/websub/#hub-verifies-intent


@dataclass(frozen=True, slots=True)
class Hook:
    """``secrets``: as its provider's ``key`` returns them. Without ``publishes_body`` and ``template`` it publishes the
    signal UPDATED. ``body_bytes``: the longest body; None: the server's limit. ``line``: in the configuration file.
    """

    name: str
    channels: tuple[str, ...]
    provider: Provider
    secrets: tuple[bytes, ...] = field(repr=False)
    publishes_body: bool = False
    template: Template | None = None
    key: str | None = None
    type: str | None = None
    body_bytes: int | None = None
    allows_get: bool = False
    challenge: Challenge | None = None
    verify_token: bytes = field(default=b"", repr=False)
    line: int = 0

    @property
    def has_token(self) -> bool:
        """Its URL is the secret."""
        return self.provider.name == "token"
