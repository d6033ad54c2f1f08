"""Subscribers in other processes: counts by channel, and names of clients, kept by leases.

Processes that share a log also share a ``Registry``. Each leaves notes there of what has changed in it, at most two a
second, and reads the notes of the others. A note has the absolute counts of the channels that changed, so the counts of
one process do not depend on those of another.

- **Leases without a clock.** With each exchange a process increments a counter of its own, its beat. A process is
  counted while the others see its beat move, and for ``LEASE_S`` after it stopped, by their own monotonic clocks.
- **Whole notes.** Only the latest notes are kept. A process that is new, or has missed some, asks the others for all of
  their counts, and counts a process only after it has answered. So what dead processes left behind is never counted.
  A whole note may have megabytes, so only the last one of each living process is kept.
- **Names.** The registry numbers the notes, so all processes agree to which of them a client came last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

LEASE_S = 5.0
_SLICE = 1024  # channels that are counted before yielding to other tasks
_NO_NOTES = 2**53 - 1  # is after all of them; Lua has no larger integers
KEPT_NOTES = 256  # a few seconds of 16 processes


class Exchanged(NamedTuple):
    """``number``: of the last note in the registry; ``own``: of the note that was written (0: none); ``first``: of the
    oldest note that is kept. ``notes``: number, process and text, in any order. ``beats``: of all processes.
    """

    number: int
    own: int
    first: int
    beats: Mapping[str, int]
    notes: Sequence[tuple[int, str, bytes]]


class Registry(Protocol):
    async def open(self) -> None:
        """Raises nothing: a registry that does not work yet is retried."""

    async def exchange(
        self, process: str, note: bytes, whole: bytes, after: int, gone: Mapping[str, int], marks: Mapping[str, str]
    ) -> Exchanged:
        """Increments the process's beat, writes a note (empty: none), and with it a whole note (empty: none) that
        replaces the last one of the process, removes the processes in ``gone`` and their whole notes if their beats are
        unchanged, sets the ``marks`` of channels (empty: removes them), and reads the notes after ``after``, its own
        and whole ones included. Raises StoreError.
        """

    async def marks(self) -> Mapping[str, str]:
        """The marks of all channels: they outlive the processes. Raises StoreError."""

    async def close(self, process: str) -> None:
        """Removes the process and its whole note, if the registry works."""


class Changes(NamedTuple):
    """``counts``: channels whose number of subscribers has changed, and the number. ``came`` and ``gone``: the names
    (hashes) of clients that are now here, and that no longer are. ``marks``: see ``Registry``.
    """

    counts: Mapping[str, int] = {}
    came: Collection[bytes] = ()
    gone: Collection[bytes] = ()
    marks: Mapping[str, str] = {}


class News(NamedTuple):
    """``changed``: channels whose number in other processes has changed. ``own``: the number of this process's note.
    ``came``: number of the note, process, name; ``gone``: process, name. ``ended``: processes that have ended.
    """

    own: int
    changed: Collection[str]
    came: Sequence[tuple[int, str, bytes]]
    gone: Sequence[tuple[str, bytes]]
    ended: Collection[str]


class _Note(msgspec.Struct, array_like=True, omit_defaults=True):
    counts: dict[str, int] = {}
    came: list[bytes] = []
    gone: list[bytes] = []
    whole: bool = False  # other channels have no subscribers
    asks: bool = False  # requests whole notes


class _Peer:
    def __init__(self, beat: int, now: float) -> None:
        self.beat = beat
        self.moved = now
        self.counts: dict[str, int] | None = None  # None: unknown, so it is not counted


_decode = msgspec.msgpack.Decoder(_Note).decode
_encode = msgspec.msgpack.Encoder().encode


class Peers:
    """The state of the other processes. ``others``: their total subscribers by channel."""

    def __init__(self, registry: Registry, process: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.others: dict[str, int] = {}
        self._registry = registry
        self._process = process
        self._clock = clock
        self._peers: dict[str, _Peer] = {}
        self._own: dict[str, int] = {}  # the numbers that this process has sent
        self._after = 0
        self._beat = 0  # our own
        self._exchanged = clock()
        self._asks = True
        self._asked = True  # by another process, or at the start: send a whole note
        self._changed: set[str] = set()
        self._dead: dict[str, int] = {}  # dead processes, and their last beats

    @property
    def first(self) -> bool:
        """Whether this process is the first by name, as far as it knows: it does what only one process should do."""
        return self._beat > 0 and all(self._process < name for name in self._peers)

    @property
    def total(self) -> int:
        """Subscribers of all channels, in all processes."""
        return sum(self._own.values()) + sum(self.others.values())

    def __len__(self) -> int:
        """The number of processes that are counted, including this one."""
        return 1 + sum(peer.counts is not None for peer in self._peers.values())

    async def exchange(self, changes: Changes) -> News:
        """Raises StoreError: the changes must be sent again."""
        own = self._own
        for channel, count in changes.counts.items():
            if count:
                own[channel] = count
            else:
                own.pop(channel, None)
        whole = self._asked
        counts = {} if whole else dict(changes.counts)
        note = _Note(counts, list(changes.came), list(changes.gone), asks=self._asks)
        said = any((whole, counts, note.came, note.gone, note.asks))
        texts = _encode(note) if said else b"", _encode(_Note(own, whole=True)) if whole else b""
        dead, self._dead = self._dead, {}
        # Notes from before this process may be of dead processes, and have many megabytes
        after = self._after if self._beat else _NO_NOTES
        found = await self._registry.exchange(self._process, *texts, after, dead, changes.marks)
        if whole:
            self._asked = False
        return await self._take(found)

    async def _take(self, found: Exchanged) -> News:
        beat = found.beats.get(self._process, 0)
        self._asks = beat != self._beat + 1 or self._after < found.first - 1  # another registry, or notes are missing
        self._after, self._beat = found.number, beat
        ended = self._look_at(found.beats)
        came: list[tuple[int, str, bytes]] = []
        gone: list[tuple[str, bytes]] = []
        for number, process, text in sorted(found.notes):
            if process == self._process or process not in found.beats:
                continue
            try:
                note = _decode(text)
            except msgspec.DecodeError:
                continue  # of another version
            self._asked |= note.asks
            await self._read(process, note)
            came += [(number, process, name) for name in note.came]
            gone += [(process, name) for name in note.gone]
        changed, self._changed = self._changed, set()
        return News(found.own, changed, came, gone, ended)

    async def _read(self, process: str, note: _Note) -> None:
        peer = self._peers[process]
        if note.whole:
            note.counts.update(dict.fromkeys((peer.counts or {}).keys() - note.counts, 0))
            if peer.counts is None:
                peer.counts = {}
        if peer.counts is None:
            return
        for done, (channel, count) in enumerate(note.counts.items()):
            if done % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)  # there may be 100,000 of them
            self._count(channel, count - peer.counts.get(channel, 0))
            if count:
                peer.counts[channel] = count
            else:
                peer.counts.pop(channel, None)

    def _look_at(self, beats: Mapping[str, int]) -> list[str]:
        """Renews leases, and ends expired ones; returns their processes."""
        now, peers = self._clock(), self._peers
        if now > self._exchanged + LEASE_S / 2:  # this process was suspended, and does not know which others were
            for peer in peers.values():
                peer.moved = now
        self._exchanged = now
        for process, beat in beats.items():
            if process == self._process:
                continue
            known = peers.get(process)
            if known is None:
                peers[process] = _Peer(beat, now)
                self._asks = True
            elif known.beat != beat:
                known.beat, known.moved = beat, now
                self._asks |= known.counts is None
        ended = [name for name, peer in peers.items() if name not in beats or peer.moved + LEASE_S <= now]
        for name in ended:
            for channel, count in (peers.pop(name).counts or {}).items():
                self._count(channel, -count)
            if name in beats:
                self._dead[name] = beats[name]
        return ended

    def _count(self, channel: str, more: int) -> None:
        if not more:
            return
        self._changed.add(channel)
        count = self.others.get(channel, 0) + more
        if count:
            self.others[channel] = count
        else:
            del self.others[channel]
