"""How a snapshot is named, switched to and read, while its writers pause, take over, and write at the same place.

One channel, of which the last two messages are kept; a snapshot's chunk holds one message. Two writers, and a reader.
The rule that is built (``snapshot.write``, ``scripts.SWITCH``, ``snapshot.load``) names the chunks by the lease's
token, writes what was read in one piece, switches only under the same lease and to all chunks, and reads again what
does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest

from .explore import explore

KEPT = 2
STUCK = "the stream begins beyond the snapshot: nobody can load any more"
REPEAT = "a loaded window holds a message twice, or out of order"
HOLE = "a loaded window has a hole above its floor"

Key = tuple[int, int]  # the number it goes up to, the token (0: not named by it)


class Snapshot(NamedTuple):
    key: Key
    end: int
    floor: int


class Writer(NamedTuple):
    end: int
    token: int
    left: tuple[int, ...] | None  # messages to be written; None: what it has when it writes
    written: bool = False


class Reader(NamedTuple):
    snapshot: Snapshot | None
    window: tuple[int, ...] | None = None  # None: the snapshot is to be read


class World(NamedTuple):
    first: int = 1  # in the stream
    last: int = 2
    chunks: tuple[tuple[Key, tuple[int, ...]], ...] = ()
    snapshot: Snapshot | None = None
    lease: int | None = None  # its token
    pauses: int = 0
    tokens: int = 0
    writers: tuple[Writer | None, ...] = (None, None)
    reader: Reader | None = None
    wrong: str | None = None

    def write(self, key: Key, message: int) -> World:
        chunks = dict(self.chunks)
        chunks[key] = (*chunks.get(key, ()), message)
        return self._replace(chunks=tuple(sorted(chunks.items())))

    def with_writer(self, index: int, writer: Writer | None) -> World:
        return self._replace(writers=(*self.writers[:index], writer, *self.writers[index + 1 :]))


class Rules(NamedTuple):
    named_by_token: bool = True
    under_lease: bool = True  # the switch looks at it
    in_one_piece: bool = True
    counted: bool = True  # the switch looks at the number of chunks
    verified: bool = True  # by the reader
    messages: int = 4
    leases: int = 2


class Model:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def initial(self) -> World:
        return World()

    def fault(self, world: World) -> str | None:
        if world.wrong is None and world.snapshot is not None and world.first > world.snapshot.end + 1:
            return STUCK
        return world.wrong

    def is_complete(self, world: World) -> bool | None:
        return None

    def steps(self, world: World) -> Iterable[tuple[str, World]]:
        if world.last < self._rules.messages:
            yield f"m{world.last + 1} is published", world._replace(last=world.last + 1)
        if world.lease is not None and world.pauses < 2:
            yield "the lease runs out", world._replace(lease=None, pauses=world.pauses + 1)
        for index, writer in enumerate(world.writers):
            if writer is None:
                yield from self._begin(world, index)
            elif not writer.written:
                yield self._write(world, index, writer)
            else:
                yield self._switch(world, index, writer)
        yield from self._read(world)

    def _begin(self, world: World, index: int) -> Iterator[tuple[str, World]]:
        if world.lease is None and world.tokens < self._rules.leases:
            token, end = world.tokens + 1, world.last
            left = tuple(range(max(0, end - KEPT) + 1, end + 1)) if self._rules.in_one_piece else None
            after = world._replace(lease=token, tokens=token)
            yield f"writer {index} begins a snapshot up to m{end}", after.with_writer(index, Writer(end, token, left))

    def _key(self, writer: Writer) -> Key:
        return writer.end, writer.token if self._rules.named_by_token else 0

    def _write(self, world: World, index: int, writer: Writer) -> tuple[str, World]:
        left = writer.left
        if left is None:
            written = dict(world.chunks).get(self._key(writer), ())
            has = range(max(0, world.last - KEPT) + 1, writer.end + 1)
            left = tuple(message for message in has if not written or message > written[-1])
        if not left:
            return f"writer {index} has written all", world.with_writer(index, writer._replace(written=True))
        rest = None if writer.left is None else left[1:]
        after = world.write(self._key(writer), left[0]).with_writer(index, writer._replace(left=rest))
        return f"writer {index} writes m{left[0]}", after

    def _switch(self, world: World, index: int, writer: Writer) -> tuple[str, World]:
        rules, key, end = self._rules, self._key(writer), writer.end
        floor = max(0, end - KEPT)
        refused = (
            (rules.under_lease and world.lease != writer.token)
            or (rules.counted and len(dict(world.chunks).get(key, ())) != end - floor)
            or (rules.under_lease and world.snapshot is not None and world.snapshot.end >= end)
        )
        after = world.with_writer(index, None)
        if refused:
            return f"writer {index} is refused", after
        old = world.snapshot
        chunks = tuple(chunk for chunk in world.chunks if old is None or chunk[0] == key or chunk[0] != old.key)
        after = after._replace(
            snapshot=Snapshot(key, end, floor),
            chunks=chunks,
            first=max(world.first, end + 1),
            lease=None if world.lease == writer.token else world.lease,
        )
        return f"writer {index} switches to m{end}", after

    def _read(self, world: World) -> Iterator[tuple[str, World]]:
        reader = world.reader
        if reader is None:
            yield "the reader reads the state", world._replace(reader=Reader(world.snapshot))
        elif reader.window is None:
            window = () if reader.snapshot is None else dict(world.chunks).get(reader.snapshot.key)
            if window is None and self._rules.verified:
                yield "the snapshot is gone: again", world._replace(reader=None)
            else:
                yield "the reader reads the snapshot", world._replace(reader=reader._replace(window=window or ()))
        else:
            yield self._read_stream(world, reader.snapshot, reader.window)

    def _read_stream(self, world: World, snapshot: Snapshot | None, window: tuple[int, ...]) -> tuple[str, World]:
        end, floor = (0, 0) if snapshot is None else (snapshot.end, snapshot.floor)
        if self._rules.verified and world.first > end + 1:
            return "the stream does not follow the snapshot: again", world._replace(reader=None)
        window = (*window, *range(max(world.first, end + 1), world.last + 1))
        wrong = None
        if list(window) != sorted(set(window)):
            wrong = REPEAT
        elif not set(window).issuperset(range(floor + 1, world.last + 1)):
            wrong = HOLE
        return f"the reader has {window}, floor {floor}", world._replace(reader=None, wrong=wrong)


def test_a_loaded_log_has_no_gap_and_no_repeat_and_can_always_be_loaded() -> None:
    explored = explore(Model(Rules(messages=5, leases=3)))
    assert explored.whole
    assert explored.faults == {}


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        (Rules(verified=False), HOLE),
        (Rules(named_by_token=False, counted=False), REPEAT),
        (Rules(named_by_token=False), REPEAT),
        (Rules(under_lease=False), STUCK),
        (Rules(in_one_piece=False, counted=False), HOLE),
    ],
    ids=["not verified", "named by the place, not counted", "named by the place", "no lease", "not in one piece"],
)
def test_a_snapshot_by_fewer_rules_fails(rules: Rules, fault: str) -> None:
    explored = explore(Model(rules))
    assert fault in explored.faults, explored
