"""What an application is told of a channel: that it is occupied now, or vacated."""

from __future__ import annotations

from typing import NamedTuple

OCCUPIED, VACATED = "occupied", "vacated"


class Change(NamedTuple):
    """``kind``: ``OCCUPIED`` or ``VACATED``. ``subscribers``: when it was settled."""

    id: str
    kind: str
    channel: str
    subscribers: int
