"""One message of a batch, as decoded from JSON."""

from __future__ import annotations

import msgspec


class Item(msgspec.Struct, forbid_unknown_fields=True):
    channel: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    key: str | None = None
    type: str | None = None
    ttl: float | None = None
    id: str | None = None
