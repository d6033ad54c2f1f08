"""What the stream holds, and the chain that its entries form.

An entry is the nonce of the group before, the nonce of its own group, and the message. So it fits exactly one entry
before it: whoever reads on notices that something is missing in between, or that the log is another one by now, also
where as many new entries came as were lost. An entry without a message begins an epoch.

An entry's id is ``<sequence number>-0``; one without a message shares the number before it: ``<number>-1``, …
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ...message import Message

NONCE_BYTES = 8
_LINK_BYTES = 2 * NONCE_BYTES

Entry = tuple[bytes, Sequence[bytes]]  # id; the field's name and its value


class Broken(Exception):
    """An entry that does not follow the one before."""


class Place(NamedTuple):
    """Where a reader stands: the id of the last entry that it has read, and the nonce of that one's group."""

    id: bytes
    nonce: bytes

    @property
    def sequence(self) -> int:
        return int(self.id.partition(b"-")[0])

    @property
    def order(self) -> tuple[int, int]:
        return order(self.id)


def order(entry_id: bytes) -> tuple[int, int]:
    """Entry ids compare by this."""
    number, _, part = entry_id.partition(b"-")
    return int(number), int(part)


class _Packed(Message, array_like=True):
    """A message as it is stored: without its sequence number, which is the entry's id."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


def pack(draft: Message, time_ms: int) -> bytes:
    m = draft
    return _encode((m.channel, m.data, m.json, m.key, m.type, m.ttl_s, m.spread_ms, time_ms))


def unpack(packed: bytes, sequence: int) -> Message:
    message = _decode(packed)
    message.sequence = sequence
    return message


def nonce_of(entry: Entry) -> bytes:
    return entry[1][1][NONCE_BYTES:_LINK_BYTES]


def place_of(entry: Entry) -> Place:
    return Place(entry[0], nonce_of(entry))


class Page(NamedTuple):
    packed: list[tuple[int, bytes]]  # sequence number, packed message
    place: Place  # behind it
    epochs: bool  # an epoch begins in it


def read(entries: Iterable[Entry], place: Place) -> Page:
    """What ``entries``, read from ``place`` on, hold. Raises Broken."""
    last, nonce = place
    sequence = place.sequence
    packed: list[tuple[int, bytes]] = []
    epochs = False
    for entry_id, (_, value) in entries:
        if value[:NONCE_BYTES] != nonce:
            raise Broken
        nonce = value[NONCE_BYTES:_LINK_BYTES]
        if len(value) == _LINK_BYTES:
            epochs = True
        else:
            sequence += 1
            packed.append((sequence, value[_LINK_BYTES:]))
            if entry_id != b"%d-0" % sequence:
                raise Broken
        last = entry_id
    return Page(packed, Place(last, nonce), epochs)


def messages(page: Page) -> list[Message]:
    return [unpack(packed, sequence) for sequence, packed in page.packed]
