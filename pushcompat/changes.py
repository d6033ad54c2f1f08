"""Presence changes that are sent to an application: a channel became occupied or vacated."""

from __future__ import annotations

from typing import NamedTuple

OCCUPIED, VACATED = "occupied", "vacated"


class Change(NamedTuple):
    """``kind``: ``OCCUPIED`` or ``VACATED``. ``subscribers``: their number at that time."""

    id: str
    kind: str
    channel: str
    subscribers: int
