"""Encoded bytes that are made once and sent to every subscriber that needs them."""

from __future__ import annotations

import msgspec

from .encoding import Encoding


class Chunk(msgspec.Struct, eq=False):
    """``cursor`` is the position (sequence number) of a client after ``data``."""

    encoding: Encoding
    data: bytes
    cursor: int
    count: int  # messages
    partial: bool = False  # the backlog is larger than one send
    is_reset: bool = False
