"""Any store under any order of publishes, repeats, time, trims, restarts, and followers that come, read and leave.

A store's tests subclass ``StoreMachine`` and say how to open one; its ``TestCase`` is the test.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import astuple, replace

from pushcompat.errors import KeyReused
from pushcompat.limits import Retention
from pushcompat.message import ACCESS_LOG, Message
from pushcompat.store.base import Idempotency, Lost, Publish, Receipt, Store, weight

from ..by_channel import ByChannel
from ..harness import EXAMPLES, PATIENCE_S
from .contract import Clock, Follower, append_group, draft

RETENTION = Retention(
    count=3,
    age_s=60.0,
    bytes=12 * weight(draft("a")),
    idempotency_s=30.0,
    by_channel=ByChannel({"a": (5, 30.0)}),
)
SETTINGS = settings(
    max_examples=25 * EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)

drafts = st.builds(
    draft,
    channel=st.sampled_from("abc"),
    key=st.sampled_from([None, None, "k", "l"]),
    ttl_s=st.sampled_from([None, None, 5.0]),
    json=st.booleans(),
)
entries = st.builds(
    draft, channel=st.just(ACCESS_LOG), key=st.sampled_from(["revoke:1", "key:2"]), ttl_s=st.sampled_from([None, 5.0])
)
publishes = st.lists(st.one_of(drafts, drafts, entries), min_size=1, max_size=3)


class StoreMachine(RuleBasedStateMachine):
    """The model is the list of everything that was ever published."""

    restarts = False  # keeps its contents

    async def open(self, retention: Retention, clock: Clock) -> Store:
        """Opens the log of this run; with ``restarts`` the same each time."""
        raise NotImplementedError

    async def trim(self, store: Store) -> None:
        """Makes it forget what it need not keep, if it does not do so by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._clock = Clock()
        self._published: list[Message] = []
        self._receipts: dict[str, tuple[Receipt, float]] = {}
        self._items: dict[str, tuple[str, Receipt, float]] = {}  # by id: content, receipt, time
        self._batch: list[tuple[str, str]] = []  # the last one with a key
        self._followers: list[tuple[Follower, int]] = []  # with its place

    @initialize()
    def begin(self) -> None:
        self._store = self._run(self.open(RETENTION, self._clock))
        self._epoch = self._store.epoch

    def teardown(self) -> None:
        for follower, _ in self._followers:
            self._run(follower.aclose())
        with suppress(AttributeError):  # it was never opened
            self._run(self._store.close())
        self._runner.close()

    def _run(self, work: Any) -> Any:
        return self._runner.run(asyncio.wait_for(work, PATIENCE_S))

    # What happens

    @rule(group=st.lists(publishes, min_size=1, max_size=4))
    def publish(self, group: list[list[Message]]) -> None:
        outcomes = self._run(append_group(self._store, [Publish([replace(m) for m in drafts]) for drafts in group]))
        for drafts, outcome in zip(group, outcomes, strict=True):
            self._note(drafts)
            assert outcome == Receipt(self._epoch, len(self._published), {})

    @rule(drafts=publishes, key=st.sampled_from("xyz"))
    def publish_with_a_key(self, drafts: list[Message], key: str) -> None:
        publish = Publish([replace(m) for m in drafts], {"a": 1}, Idempotency("me", key, b"digest"))
        (outcome,) = self._run(append_group(self._store, [publish]))
        first, at = self._receipts.get(key, (None, 0.0))
        if first is not None and self._clock.now < at + RETENTION.idempotency_s:
            assert outcome == replace(first, repeated=True)
            return
        self._note(drafts)
        assert outcome == Receipt(self._epoch, len(self._published), {"a": 1})
        self._receipts[key] = outcome, self._clock.now

    @rule(
        items=st.lists(st.tuples(st.sampled_from("-123"), st.sampled_from("aaab")), min_size=1, max_size=4),
        key=st.sampled_from(["", "", "X", "again"]),
    )
    def publish_items(self, items: list[tuple[str, str]], key: str) -> None:
        """``items``: id and channel, which is the content. ``key`` "again": the last batch with a key, as it was."""
        content = dict(reversed(items))
        items = [(name, channel if name == "-" else content[name]) for name, channel in items]
        if key == "again":
            items, key = self._batch or items, "X"
        now, window_s = self._clock.now, RETENTION.idempotency_s
        known = {name: item for name, item in self._items.items() if now < item[2] + window_s}
        publish = Publish(
            [draft(channel) for _, channel in items],
            {"a": 1},
            Idempotency("me", key, repr(items).encode()) if key else None,
            [None if n == "-" else Idempotency("me items", n, c.encode()) for n, c in items],
        )
        (outcome,) = self._run(append_group(self._store, [publish]))
        first, at = self._receipts.get(key, (None, 0.0))
        if first is not None and now < at + window_s:
            if items == self._batch:
                assert outcome == replace(first, repeated=True)
            else:
                assert isinstance(outcome, KeyReused)
            return
        if any(name in known and known[name][0] != channel for name, channel in items):
            assert isinstance(outcome, KeyReused)
            return
        seen = set(known)
        again = []
        for index, (name, channel) in enumerate(items):
            if name in seen:
                again.append(index)
                continue
            self._note([draft(channel)])
            if name != "-":
                seen.add(name)
                self._items[name] = channel, Receipt(self._epoch, len(self._published), {}), now
        if len(again) < len(items):
            assert outcome == Receipt(self._epoch, len(self._published), {"a": 1}, again=tuple(again))
        else:
            last = max(self._items[name][1].sequence for name, _ in items)
            assert outcome == Receipt(self._epoch, last, {"a": 1}, repeated=True, again=tuple(again))
        if key:
            self._receipts[key] = outcome, now
            self._batch = items

    def _note(self, drafts: list[Message]) -> None:
        for message in drafts:
            number = len(self._published) + 1
            self._published.append(replace(message, sequence=number, time_ms=int(self._clock.now * 1000)))

    @rule(seconds=st.sampled_from([1, 6, 31, 61]))
    def time_passes(self, seconds: int) -> None:
        self._clock.now += seconds

    @rule()
    def trim_it(self) -> None:
        self._run(self.trim(self._store))

    @precondition(lambda self: self.restarts)
    @rule()
    def restart(self) -> None:
        for follower, _ in self._followers:
            self._run(follower.aclose())
        self._followers.clear()
        self._run(self._store.close())
        self._store = self._run(self.open(RETENTION, self._clock))
        assert self._store.epoch == self._epoch

    @precondition(lambda self: len(self._followers) < 2)
    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self._published)))

        async def begin() -> Follower:
            return Follower(self._store, place)

        self._followers.append((self._run(begin()), place))

    @precondition(lambda self: self._followers)
    @rule()
    def read_and_leave(self) -> None:
        """Reads all up to a message that is published now."""
        follower, place = self._followers.pop(0)
        floors = self._retained_floors()
        self.publish([[draft("last")]])
        try:
            seen = self._run(self._up_to(follower, len(self._published)))
        except Lost:
            assert place < max(floors.values(), default=0), "it was told lost, and nothing after its place was evicted"
            return
        finally:
            self._run(follower.aclose())
        numbers = [message.sequence for message in seen]
        assert numbers == sorted(set(numbers))
        for message in self._published[place:]:
            assert message.sequence in numbers or self._is_over(message), message
        for message in seen:
            assert astuple(message) == astuple(self._published[message.sequence - 1])

    async def _up_to(self, follower: Follower, number: int) -> list[Message]:
        messages: list[Message] = []
        while not messages or messages[-1].sequence < number:
            messages += await follower.batch()
        return messages

    # What holds

    @invariant()
    def nothing_is_gone_without_a_floor(self) -> None:
        if not hasattr(self, "_store"):
            return
        retained = self._run(self._store.retained())
        assert (retained.epoch, retained.head) == (self._epoch, len(self._published))
        assert self._run(self._store.head()) == (self._epoch, len(self._published))
        kept = {message.sequence: message for message in retained.messages}
        assert list(kept) == sorted(kept)
        for message in self._published:
            number = message.sequence
            if number in kept:
                assert astuple(kept[number]) == astuple(message)
            else:
                floor = max(retained.floor, retained.floors.get(message.channel, 0))
                assert number <= floor or self._is_over(message), message
        for channel in "abc":
            assert sum(message.channel == channel for message in kept.values()) <= RETENTION.of(channel)[0]
        assert ACCESS_LOG not in retained.floors
        assert sum(weight(message) for message in kept.values() if message.channel != ACCESS_LOG) <= RETENTION.bytes
        assert max(retained.floors.values(), default=0) <= retained.head

    def _retained_floors(self) -> dict[str, int]:
        return dict(self._run(self._store.retained()).floors)

    def _is_over(self, message: Message) -> bool:
        """Replaced, or its ttl has ended: no loss."""
        if message.ttl_s is not None and message.time_ms + message.ttl_s * 1000 <= self._clock.now * 1000:
            return True
        return message.key is not None and any(
            (later.channel, later.key) == (message.channel, message.key)
            for later in self._published[message.sequence :]
        )
