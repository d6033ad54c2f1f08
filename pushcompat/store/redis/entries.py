"""What the stream contains, and the chain that its entries form.

The value of an entry is the nonce of the previous group, the nonce of its own group, and the message. So it can
follow only one entry: a reader detects that entries are missing, or that the log was replaced, also if as many
entries were added as were lost. An entry without a message starts an epoch.

An entry's id is ``<sequence number>-0``. An entry without a message has the number of the one before it:
``<number>-1``.
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
    """An entry does not follow the previous one."""


class Place(NamedTuple):
    """A reader's position: the id of the last entry it has read, and the nonce of that entry's group."""

    id: bytes
    nonce: bytes

    @property
    def sequence(self) -> int:
        return int(self.id.partition(b"-")[0])

    @property
    def order(self) -> tuple[int, int]:
        return order(self.id)


def order(entry_id: bytes) -> tuple[int, int]:
    """The sort key of entry ids."""
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
    place: Place  # of its last entry
    epochs: bool  # an epoch starts in it


def read(entries: Iterable[Entry], place: Place) -> Page:
    """The contents of ``entries``, which were read after ``place``. Raises Broken."""
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
