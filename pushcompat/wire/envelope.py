"""The JSON that every transport carries: a message's envelope, and control messages.

    {"id": "<cursor>", "channel": "chat", "data": …, "time": 1764000000000, "type"?: …, "key"?: …, "spread"?: ms}
    {"control": "open" | "ping" | "reset" | "rotate" | "expired", "cursor": "<cursor>", …}

Published JSON was validated on receipt and is embedded verbatim, so numbers and the order of members survive. Names,
keys and types have an alphabet that JSON does not escape.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..message import Message, format_cursor

_encode = msgspec.json.encode


def envelope(message: Message, epoch: str) -> bytes:
    data = message.data if message.json else _encode(message.data.decode())
    more = b""
    if message.type is not None:
        more += b',"type":"%b"' % message.type.encode()
    if message.key:
        more += b',"key":"%b"' % message.key.encode()
    if message.spread_ms is not None:
        more += b',"spread":%d' % message.spread_ms
    cursor = format_cursor(epoch, message.sequence).encode()
    # One expression: with many quiet channels an envelope is created for each delivery.
    return b'{"id":"%b","channel":"%b","data":%b,"time":%d%b}' % (
        cursor,
        message.channel.encode(),
        data,
        message.time_ms,
        more,
    )


def opened(cursor: str, heartbeat_s: float, lifetime_s: float | None) -> bytes:
    """The first message of a stream. ``lifetime`` is null if the server does not end it."""
    return _encode({"control": "open", "cursor": cursor, "heartbeat": heartbeat_s, "lifetime": lifetime_s})


def ping(cursor: str) -> bytes:
    return b'{"control":"ping","cursor":"%b"}' % cursor.encode()


def reset(cursor: str, channels: Sequence[str], spread_ms: int | None) -> bytes:
    document: dict[str, object] = {"control": "reset", "cursor": cursor, "channels": channels}
    return _encode(document if spread_ms is None else {**document, "spread": spread_ms})


def rotate(cursor: str, retry_ms: int) -> bytes:
    return b'{"control":"rotate","cursor":"%b","retry":%d}' % (cursor.encode(), retry_ms)


def expired(cursor: str) -> bytes:
    return b'{"control":"expired","cursor":"%b"}' % cursor.encode()
