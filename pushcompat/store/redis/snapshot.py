"""The complete log: the snapshot, followed by the stream.

A stream frees memory only if its oldest entries are removed, so it cannot keep the few messages of a quiet channel
beside the many of a busy one. It contains the recent part of the log. The retained messages from before are a list of
chunks, the snapshot. When the stream has outgrown the snapshot, one process writes a new one and trims the stream.

That process can pause at any point, and another one can do the same in the meantime. Therefore:

- It takes a lease under a random token. The key of the chunks contains the token, and expires unless it becomes the
  snapshot.
- It loads the log as every reader does, with all checks, and writes only what it loaded.
- One script switches to the new snapshot, if epoch, identity, lease, previous snapshot and number of chunks are as
  expected, and the new one reaches further. It trims the stream up to the end of the snapshot, or less. The previous
  snapshot expires later, since others may be reading it.
- A reader starts with the state, and starts again if the parts do not match.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import NamedTuple

import msgspec

from ...limits import Retention
from ...message import Message
from ..base import Kept, retain
from .entries import Broken, Place, read, unpack
from .link import Keys, Link, NotUsable, State, state_from
from .scripts import PUSH, RELEASE, SWITCH, TAKE_LEASE

_CHUNK_BYTES = 256 * 1024
_CHUNKS_AT_ONCE = 8
_ENTRIES_AT_ONCE = 500
_READ_S = 5.0  # for one such reply
_ATTEMPTS = 5
_PAUSE_S = 0.05
_LEASE_MS = 60_000
_LEAST_ENTRIES = 8192  # a shorter stream is not worth a snapshot
_TAIL_ENTRIES = 50_000  # left in the stream for followers that lag: half a second at full speed
_TAIL_BYTES = 16 * 1024 * 1024


class Damaged(Exception):
    """Parts of the log are missing, and no process is changing it."""


class _Head(msgspec.Struct, array_like=True):
    """The first chunk of a snapshot: the floors, and the highest number evicted."""

    floor: int = 0
    floors: dict[str, int] = {}
    evicted: int = 0


Packed = tuple[int, bytes]  # sequence number, packed message

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_Head).decode
_decode_chunk = msgspec.msgpack.Decoder(list[Packed]).decode


class Log(NamedTuple):
    """The complete log at one moment."""

    state: State
    head: _Head
    snapshot: list[Packed]
    stream: list[Packed]
    place: Place

    def messages(self, after: int = 0) -> list[Message]:
        return [
            unpack(packed, number) for part in (self.snapshot, self.stream) for number, packed in part if number > after
        ]

    def retain(self, retention: Retention, now_ms: int) -> Kept:
        head = self.head
        return retain(self.messages(), retention, now_ms, head.floor, head.floors, head.evicted)


async def load(link: Link, keys: Keys) -> Log:
    """Raises Damaged, or one of ``AWAY``."""
    before: State | None = None
    for attempt in range(_ATTEMPTS):
        (fields,) = await link.call(keys.read_state)
        state = state_from(fields)
        log = await _read(link, keys, state) if state.epoch else None
        if log is not None:
            return log
        if attempt == _ATTEMPTS - 1 and before is not None and before[:2] == state[:2] and before.base == state.base:
            raise Damaged("parts of the log are missing")
        before = state
        await asyncio.sleep(_PAUSE_S * random.uniform(0.5, 1.5) * (attempt + 1))
    raise NotUsable("the log changes faster than it can be read")


async def _read(link: Link, keys: Keys, state: State) -> Log | None:
    """None: the parts do not match."""
    chunks: list[bytes] = []
    while len(chunks) < state.snapshot_chunks:
        first, last = len(chunks), len(chunks) + _CHUNKS_AT_ONCE - 1
        (some,) = await link.call(("LRANGE", state.snapshot_key, first, last), timeout_s=_READ_S)
        if not some:
            return None
        chunks += some
    if len(chunks) != state.snapshot_chunks:
        return None
    head = _decode_head(chunks[0]) if chunks else _Head(state.floor, {}, state.floor)
    snapshot = [packed for chunk in chunks[1:] for packed in _decode_chunk(chunk)]
    stream: list[Packed] = []
    place = state.base
    idle = 0  # replies without entries in a row; an append between the two commands makes one, too
    while idle < 5:
        entries, fields = await link.call(
            ("XRANGE", keys.log, b"(" + place.id, "+", "COUNT", _ENTRIES_AT_ONCE), keys.read_state, timeout_s=_READ_S
        )
        try:
            page = read(entries, place)
        except Broken:
            return None
        stream += page.packed
        place = page.place
        now = state_from(fields)
        if now.epoch != state.epoch:
            return None
        if place.nonce == now.nonce and place.sequence == now.head:  # so nothing was appended between the replies
            return Log(now, head, snapshot, stream, place)
        idle = 0 if entries else idle + 1
    return None


def due(state: State, retention: Retention) -> bool:
    """Whether the stream has outgrown the snapshot."""
    entries = state.head - state.base.sequence
    if entries > max(_LEAST_ENTRIES, 2 * state.snapshot_count):
        return True
    return entries > 0 and state.size - state.snapshot_size > retention.bytes


async def write(link: Link, keys: Keys, retention: Retention, now_ms: int, tail: int | None = None) -> str:
    """Writes a snapshot, unless another process does. Returns why not, or "". Raises Damaged, or one of ``AWAY``.

    ``tail``: how many entries of it stay in the stream, at most.
    """
    token = secrets.token_hex(8)
    (taken,) = await link.run(TAKE_LEASE, [keys.lease], token, _LEASE_MS)
    if not taken:
        return "another process is writing one"
    log = await load(link, keys)
    refused = await _write(link, keys, token, log, retention, now_ms, _TAIL_ENTRIES if tail is None else tail)
    await link.run(RELEASE, [keys.lease], token)
    return refused


async def _write(link: Link, keys: Keys, token: str, log: Log, retention: Retention, now_ms: int, tail: int) -> str:
    state = log.state
    if not log.stream:  # but it may contain the start of an epoch, which the snapshot lacks
        await link.call(("XTRIM", keys.log, "MINID", state.snapshot))
        return ""
    chunks, count = await asyncio.to_thread(_chunks, log, retention, now_ms)
    key = keys(f"snapshot:{log.place.sequence}:{token}")
    for chunk in chunks:
        (pushed,) = await link.run(PUSH, [keys.lease, key], token, _LEASE_MS, chunk, timeout_s=_READ_S)
        if not pushed:
            return "the lease has expired"
    before = state.snapshot_key
    (refused,) = await link.run(
        SWITCH,
        [keys.state, keys.log, keys.lease, key, before or key],
        state.epoch, state.ident, token, len(chunks), log.place.id, log.place.sequence, log.place.nonce, count,
        state.size, f"{_stays_from(log, tail)}-0", key, before, _LEASE_MS,
    )  # fmt: skip
    return str(refused.decode())


def _stays_from(log: Log, tail: int) -> int:
    """The first sequence number that stays in the stream."""
    first, left = log.place.sequence + 1, _TAIL_BYTES
    for number, packed in reversed(log.stream[max(0, len(log.stream) - tail) :] if tail else []):
        left -= len(packed)
        if left < 0:
            break
        first = number
    return first


def _chunks(log: Log, retention: Retention, now_ms: int) -> tuple[list[bytes], int]:
    """The chunks of a new snapshot, and the number of messages in them. Takes 1 µs a message; runs in a thread."""
    kept = log.retain(retention, now_ms)
    packed = {number: data for part in (log.snapshot, log.stream) for number, data in part}
    chunks = [_encode((kept.floor, kept.floors, kept.evicted))]
    chunk: list[Packed] = []
    size = 0
    for message in kept.messages:
        data = packed[message.sequence]
        chunk.append((message.sequence, data))
        size += len(data)
        if size >= _CHUNK_BYTES:
            chunks.append(_encode(chunk))
            chunk, size = [], 0
    if chunk:
        chunks.append(_encode(chunk))
    return chunks, len(kept.messages)
