"""The real window, channels and rules of retention, through every short sequence of what can happen to them.

Two channels, one client of one or both. Publishes (plain, with a key, with a ttl), time that passes, a ttl that ends, a
process that starts again or loads the log anew, and the client that catches up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from heapq import merge
from itertools import product
from operator import attrgetter

import pytest
from msgspec.structs import replace

from pushcompat.hub.history import History
from pushcompat.limits import Retention
from pushcompat.message import Message
from pushcompat.store.base import Kept, Retained, retain

from ..by_channel import ByChannel

DEPTH = int(os.environ.get("PUSHCOMPAT_TEST_DEPTH", "5"))
PUBLISHES = ("a", "b", "a key", "b key", "a ttl")
STEPS = (*PUBLISHES, "time passes", "ttl ends", "restart", "reload", "catch up", "catch up a")
TTL_S, AGE_S = 5.0, 100.0


class World:
    def __init__(self, retention: Retention) -> None:
        self._now = 0.0
        self._retention = retention
        self._history = History(retention, clock=lambda: self._now)
        self._stored = Kept([], 0, {}, 0)
        self._published: list[Message] = []
        self._cursor = 0
        self._delivered: set[int] = set()
        self.needless_resets = 0

    def take(self, step: str) -> None:
        if step in PUBLISHES:
            self._publish(step[0], key="k" if "key" in step else None, ttl_s=TTL_S if "ttl" in step else None)
        elif step == "time passes":
            self._pass(AGE_S * 0.6)
        elif step == "ttl ends":
            self._pass(TTL_S + 1)
        elif step == "catch up":
            self._catch_up("a", "b")
        elif step == "catch up a":
            self._catch_up("a")
        else:
            if step == "restart":
                self._history = History(self._retention, clock=lambda: self._now)
            self._load()

    def _publish(self, name: str, **attributes: object) -> None:
        message = Message(name, b"x", time_ms=int(self._now * 1000), sequence=len(self._published) + 1)
        message = replace(message, **attributes)  # type: ignore[arg-type]
        self._published.append(message)
        self._stored.messages.append(message)
        channel = self._history.append(message)
        channel.skip_pass()
        self._history.trim(channel)
        self._history.shrink()

    def _pass(self, seconds: float) -> None:
        self._now += seconds
        self._history.expire()

    def _load(self) -> None:
        self._stored = retain(self._stored.messages, self._retention, int(self._now * 1000), *self._stored[1:])
        messages, floor, floors, _ = self._stored
        self._history.load(Retained(messages.copy(), floor, len(self._published), "aaaaaaaa", floors), self._now)

    def _catch_up(self, *names: str) -> None:
        channels = [self._history.channel(name) for name in names]
        missing = {message.sequence for message in self._published if message.channel in names and self._lacks(message)}
        got = [m.sequence for m in merge(*(c.after(self._cursor) for c in channels), key=attrgetter("sequence"))]
        if any(channel.floor > self._cursor for channel in channels):
            self.needless_resets += missing <= set(got)
        else:
            assert got == sorted(set(got)), "out of order, or twice"
            assert missing <= set(got), "a silent hole"
            assert not self._delivered & set(got), "again"
            self._delivered |= set(got)
        assert self._history.head >= self._cursor
        self._cursor = self._history.head
        for channel in channels:
            self._history.discard_if_idle(channel)

    def _lacks(self, message: Message) -> bool:
        """Whether the client must be sent it, or told that it is lost."""
        if message.sequence <= self._cursor:
            return False
        if message.ttl_s is not None and message.time_ms / 1000 + message.ttl_s <= self._now:
            return False
        later = self._published[message.sequence :]
        return message.key is None or (message.channel, message.key) not in {(m.channel, m.key) for m in later}


def sequences(depth: int) -> list[Sequence[str]]:
    return [
        sequence
        for length in range(2, depth + 1)
        for sequence in product(STEPS, repeat=length)
        if sequence[-1].startswith("catch up")
    ]


RETENTIONS = {
    "one message": Retention(count=1, age_s=AGE_S),
    "two messages": Retention(count=2, age_s=AGE_S),
    "bytes of two messages": Retention(age_s=AGE_S, bytes=2 * 257),
    "one message, and two of channel a for a shorter time": Retention(
        count=1, age_s=AGE_S, by_channel=ByChannel({"a": (2, AGE_S * 0.5)})
    ),
}


@pytest.mark.parametrize("retention", RETENTIONS.values(), ids=RETENTIONS)
def test_nothing_is_lost_silently_or_delivered_twice_and_no_quiet_channel_is_reset(retention: Retention) -> None:
    needless = []
    for sequence in sequences(DEPTH):
        world = World(retention)
        for step in sequence:
            world.take(step)
        # What a ttl or a key would have taken away by now may have been evicted before: nobody remembers that.
        if world.needless_resets and not {"a ttl", "a key", "b key"} & set(sequence):
            needless.append(sequence)
    assert needless == []
