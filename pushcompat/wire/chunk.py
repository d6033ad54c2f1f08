"""Encoded bytes that are made once and sent to every subscriber that needs them."""

from __future__ import annotations

import msgspec

from .encoding import Encoding


class Chunk(msgspec.Struct, eq=False):
    """``cursor`` is the sequence number at which a reader of ``data`` stands."""

    encoding: Encoding
    data: bytes
    cursor: int
    count: int  # messages
    partial: bool = False  # there is more than one send may take
    is_reset: bool = False
