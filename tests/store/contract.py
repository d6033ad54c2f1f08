"""What every store must do. A store's own tests subclass ``Contract`` and say how to open one.

The clock is the test's, so nothing here waits for time to pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest
from msgspec.structs import replace

from pushcompat.errors import KeyReused, Unavailable
from pushcompat.limits import Retention
from pushcompat.message import ACCESS_LOG, EPOCH_WIDTH, Message
from pushcompat.store.base import Idempotency, Lost, Outcome, Publish, Receipt, Store, weight

from ..by_channel import ByChannel
from ..harness import PATIENCE_S

ALL = Retention(count=1000)


class Clock:
    """The time of day and a steady clock, which here go together."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


Open = Callable[[Retention, Clock], Awaitable[Store]]


class Follower:
    """Reads a store's log after a given sequence number."""

    def __init__(self, store: Store, after: int = 0, epoch: str | None = None) -> None:
        self._batches: asyncio.Queue[Sequence[Message]] = asyncio.Queue()
        self._following = asyncio.ensure_future(
            store.follow(after, store.epoch if epoch is None else epoch, self._batches.put_nowait)
        )

    async def batch(self) -> Sequence[Message]:
        """What came next, at once. Raises Lost."""
        getting = asyncio.ensure_future(self._batches.get())
        await asyncio.wait([getting, self._following], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            if self._following.done():
                self._following.result()
            raise TimeoutError
        return getting.result()

    async def read(self, count: int) -> list[Message]:
        """That many messages, in as many batches as they come."""
        messages: list[Message] = []
        while len(messages) < count:
            messages += await self.batch()
        return messages

    async def aclose(self) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)


def draft(channel: str, data: str = "x", **attributes: object) -> Message:
    return replace(Message(channel, data.encode()), **attributes)  # type: ignore[arg-type]


def batch(items: str, key: str = "", who: str = "me", lifetime_s: float = 0.0) -> Publish:
    """``items``: ids with blanks between, ``-``: none; the id is the data, another follows after ``=``. ``key``: of the
    whole.
    """
    split = [item.partition("=") for item in items.split()]
    ids = [
        None if name == "-" else Idempotency(f"{who} items", name, (other or name).encode(), lifetime_s)
        for name, _, other in split
    ]
    idempotency = Idempotency(who, key, items.encode(), lifetime_s) if key else None
    return Publish([draft("a", other or name) for name, _, other in split], {"a": 7}, idempotency, ids)


async def append_group(store: Store, group: Sequence[Publish]) -> Sequence[Outcome]:
    done: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
    store.append(group, done.set_result)
    return await asyncio.wait_for(done, PATIENCE_S)


async def append(store: Store, *drafts: Message) -> Receipt:
    """One publish."""
    (receipt,) = await append_group(store, [Publish(drafts)])
    assert isinstance(receipt, Receipt)
    return receipt


async def fill(store: Store, channel: str, *data: str) -> None:
    """One publish for each."""
    for text in data:
        await append(store, draft(channel, text))


def shown(messages: Sequence[Message]) -> list[str]:
    return [f"{m.channel}:{m.data.decode()}" for m in messages]


async def kept(store: Store) -> tuple[list[str], dict[str, int]]:
    """The messages, and the floors of channels that have lost any."""
    retained = await store.retained()
    assert retained.floor == 0, "only floors that are too many raise the global one"
    return shown(retained.messages), dict(retained.floors)


FEW = Retention(count=2, by_channel=ByChannel({"a": (1, 60.0)}))
MANY = Retention(count=3, by_channel=ByChannel({"a": (50, 600.0)}))


async def check_that_different_rules_break_nothing(
    few: Store, many: Store, trim: Callable[[Store], Awaitable[None]]
) -> None:
    """``few`` and ``many`` are one log, in processes with the retention of these names."""
    published: list[Message] = []
    for number in range(60):
        drafts = [draft(channel, str(number)) for channel in "abc"]
        await append(few if number % 2 else many, *drafts)
        published += drafts
        if number % 20 == 19:
            await trim(many if number == 39 else few)
        for store in (few, many):
            retained = await store.retained()
            there = {message.sequence for message in retained.messages}
            for message in published:
                floor = max(retained.floor, retained.floors.get(message.channel, 0))
                assert (message.sequence > floor) == (message.sequence in there)
    assert shown((await few.retained()).messages) == ["b:58", "c:58", "a:59", "b:59", "c:59"]
    for store, after in ((few, 177), (many, 177), (few, 180)):
        async with aclosing(Follower(store, after)) as follower:
            await append(many, draft("d"))
            assert (await follower.read(1))[0].sequence == after + 1


class Contract:
    """The subclass has a fixture ``open_store`` that returns an ``Open``."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def run(self, open_store: Open, clock: Clock) -> Callable[..., None]:
        """Runs a scenario against a store of its own: ``run(scenario)`` or ``run(scenario, retention)``."""

        @asynccontextmanager
        async def opened(retention: Retention) -> AsyncIterator[Store]:
            store = await open_store(retention, clock)
            try:
                yield store
            finally:
                await store.close()

        async def play(scenario: Callable[[Store], Awaitable[None]], retention: Retention) -> None:
            async with asyncio.timeout(PATIENCE_S), opened(retention) as store:
                await scenario(store)

        return lambda scenario, retention=ALL: asyncio.run(play(scenario, retention))

    # Appending

    def test_a_log_starts_empty_under_an_epoch_of_fixed_width(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            assert await store.retained() == ([], 0, 0, store.epoch, {})
            assert await store.head() == (store.epoch, 0)
            assert len(store.epoch) == EPOCH_WIDTH

        run(scenario)

    def test_all_channels_share_one_sequence(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            receipts = [await append(store, draft(channel)) for channel in ("a", "b", "a")]
            assert [r.sequence for r in receipts] == [1, 2, 3]
            assert [(m.channel, m.sequence) for m in (await store.retained()).messages] == [
                ("a", 1),
                ("b", 2),
                ("a", 3),
            ]

        run(scenario)

    def test_a_receipt_names_the_epoch_and_the_last_message_and_repeats_the_counts(
        self, run: Callable[..., None]
    ) -> None:
        async def scenario(store: Store) -> None:
            publish = Publish([draft("a"), draft("b")], {"a": 3, "b": 0})
            assert await append_group(store, [publish]) == [Receipt(store.epoch, 2, {"a": 3, "b": 0})]

        run(scenario)

    def test_a_group_of_publishes_has_an_outcome_for_each_in_order_and_each_lies_side_by_side(
        self, run: Callable[..., None]
    ) -> None:
        async def scenario(store: Store) -> None:
            group = [Publish([draft("a", "1"), draft("b", "2")]), Publish([draft("a", "3")])]
            outcomes = await append_group(store, group)
            assert [outcome.sequence for outcome in outcomes if isinstance(outcome, Receipt)] == [2, 3]
            assert await kept(store) == (["a:1", "b:2", "a:3"], {})

        run(scenario)

    def test_published_messages_are_read_back_unchanged(self, run: Callable[..., None], clock: Clock) -> None:
        async def scenario(store: Store) -> None:
            said = draft("a", '{"ü": "\u2028"}', json=True, key="k", type="t", ttl_s=60.0, spread_ms=250)
            await append(store, replace(said))
            (message,), *_ = await store.retained()
            assert message.time_ms == int(clock.now * 1000)
            for name in ("channel", "data", "json", "key", "type", "ttl_s", "spread_ms"):
                assert getattr(message, name) == getattr(said, name)

        run(scenario)

    def test_many_publishers_at_once_get_each_a_place_of_their_own(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            receipts = await asyncio.gather(*(append(store, draft("a", str(n)), draft("b", str(n))) for n in range(20)))
            assert sorted(r.sequence for r in receipts) == list(range(2, 42, 2))
            messages = (await store.retained()).messages
            for one, other in zip(messages[::2], messages[1::2], strict=True):
                assert (one.channel, other.channel, one.data) == ("a", "b", other.data)

        run(scenario)

    # Coming again

    def test_a_publish_that_comes_again_is_answered_as_the_first_time_and_kept_once(
        self, run: Callable[..., None]
    ) -> None:
        async def scenario(store: Store) -> None:
            first, again = (
                Publish([draft("a")], {"a": subscribers}, Idempotency("me", "k", b"digest")) for subscribers in (7, 8)
            )
            (receipt,) = await append_group(store, [first])
            await append(store, draft("b"))
            (repeated,) = await append_group(store, [again])
            assert receipt == Receipt(store.epoch, 1, {"a": 7})
            assert repeated == Receipt(store.epoch, 1, {"a": 7}, repeated=True)
            assert await kept(store) == (["a:x", "b:x"], {})

        run(scenario)

    def test_a_publish_that_comes_twice_in_one_group_is_kept_once(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            group = [Publish([draft("a")], {}, Idempotency("me", "k", b"digest")) for _ in range(2)]
            first, second = await append_group(store, group)
            assert isinstance(first, Receipt)
            assert second == replace(first, repeated=True)
            assert await kept(store) == (["a:x"], {})

        run(scenario)

    def test_a_key_that_comes_with_another_body_is_refused_and_nothing_of_it_kept(
        self, run: Callable[..., None]
    ) -> None:
        async def scenario(store: Store) -> None:
            await append_group(store, [Publish([draft("a")], {}, Idempotency("me", "k", b"one"))])
            group = [
                Publish([draft("b"), draft("c")], {}, Idempotency("me", "k", b"another")),
                Publish([draft("d")]),
            ]
            refused, taken = await append_group(store, group)
            assert isinstance(refused, KeyReused)
            assert refused.status == 422
            assert taken == Receipt(store.epoch, 2, {})
            assert await kept(store) == (["a:x", "d:x"], {})

        run(scenario)

    def test_two_publishers_may_use_the_same_key(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            group = [Publish([draft("a", who)], {}, Idempotency(who, "k", who.encode())) for who in ("me", "you")]
            assert [r.sequence for r in await append_group(store, group) if isinstance(r, Receipt)] == [1, 2]

        run(scenario)

    # Items that come again

    def test_the_items_of_a_batch_whose_ids_are_known_are_not_appended_and_the_others_are(
        self, run: Callable[..., None]
    ) -> None:
        async def scenario(store: Store) -> None:
            first, second, third, fourth = [
                (await append_group(store, [batch(items)]))[0]
                for items in ("1 2", "2 - 3 1", "3 2", "- -")
            ]  # fmt: skip
            assert first == Receipt(store.epoch, 2, {"a": 7})
            assert second == Receipt(store.epoch, 4, {"a": 7}, again=(0, 3))
            assert third == Receipt(store.epoch, 4, {"a": 7}, repeated=True, again=(0, 1))
            assert fourth == Receipt(store.epoch, 6, {"a": 7})
            assert await kept(store) == (["a:1", "a:2", "a:-", "a:3", "a:-", "a:-"], {})
            async with aclosing(Follower(store)) as follower:
                assert [m.sequence for m in await follower.read(6)] == [1, 2, 3, 4, 5, 6]

        run(scenario)

    def test_a_batch_with_an_id_that_had_other_content_is_refused_as_a_whole(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await append_group(store, [batch("1 2")])
            refused, taken = await append_group(store, [batch("3 1 2=other 4", key="k"), batch("3")])
            assert isinstance(refused, KeyReused)
            assert (refused.status, refused.detail.partition(":")[0]) == (422, "message 2 of the batch")
            assert taken == Receipt(store.epoch, 3, {"a": 7})
            assert await append_group(store, [batch("4", key="k")]) == [Receipt(store.epoch, 4, {"a": 7})]
            assert await kept(store) == (["a:1", "a:2", "a:3", "a:4"], {})

        run(scenario)

    def test_a_batch_without_any_id_is_answered_like_the_first_by_its_key(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            (first,) = await append_group(store, [batch("- -", key="k")])
            assert first == Receipt(store.epoch, 2, {"a": 7})
            assert await append_group(store, [batch("- -", key="k")]) == [replace(first, repeated=True)]

        run(scenario)

    def test_batches_of_one_group_know_each_others_ids(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            group = [batch("1 2"), Publish([draft("b")]), batch("2 3"), batch("3=other 4"), batch("4 1")]
            first, other, second, refused, last = await append_group(store, group)
            assert first == Receipt(store.epoch, 2, {"a": 7})
            assert other == Receipt(store.epoch, 3, {})
            assert second == Receipt(store.epoch, 4, {"a": 7}, again=(0,))
            assert isinstance(refused, KeyReused)
            assert last == Receipt(store.epoch, 5, {"a": 7}, again=(1,))
            assert await kept(store) == (["a:1", "a:2", "b:x", "a:3", "a:4"], {})

        run(scenario)

    def test_an_item_that_is_in_a_batch_twice_is_appended_once(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            for again in (False, True):
                (outcome,) = await append_group(store, [batch("1 2 1 - 2", key="k")])
                assert outcome == Receipt(store.epoch, 3, {"a": 7}, repeated=again, again=(2, 4))
            assert await kept(store) == (["a:1", "a:2", "a:-"], {})

        run(scenario)

    def test_a_batch_that_comes_again_with_its_key_gets_the_first_answer_also_if_nothing_of_it_was_new(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            await append_group(store, [batch("1 2")])
            clock.now += 290
            (some,) = await append_group(store, [batch("- 2 3", key="some")])
            (none,) = await append_group(store, [batch("2 1", key="none")])
            assert some == Receipt(store.epoch, 4, {"a": 7}, again=(1,))
            assert none == Receipt(store.epoch, 2, {"a": 7}, repeated=True, again=(0, 1))
            clock.now += 20  # the ids of the first batch are over, the keys are not
            assert await append_group(store, [batch("- 2 3", key="some")]) == [replace(some, repeated=True)]
            assert await append_group(store, [batch("2 1", key="none"), batch("2 1", key="none")]) == [none, none]
            (refused,) = await append_group(store, [batch("2 1 5", key="none")])
            assert isinstance(refused, KeyReused)
            assert "Idempotency-Key" in refused.detail
            assert await kept(store) == (["a:1", "a:2", "a:-", "a:3"], {})
            assert await append_group(store, [batch("2 3")]) == [Receipt(store.epoch, 5, {"a": 7}, again=(1,))]

        run(scenario)

    def test_an_id_is_its_publishers_own_and_is_forgotten_after_the_time_of_keys_or_its_own(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            def batches() -> list[Publish]:
                return [batch("1"), batch("1", who="you"), batch("1", who="signer", lifetime_s=660.0)]

            new = [Receipt(store.epoch, sequence, {"a": 7}) for sequence in range(1, 6)]
            known = [replace(receipt, repeated=True, again=(0,)) for receipt in new]
            assert await append_group(store, batches()) == new[:3]
            clock.now += 299
            assert await append_group(store, batches()) == known[:3]
            clock.now += 1
            assert await append_group(store, batches()) == [new[3], new[4], known[2]]

        run(scenario)

    def test_ids_count_in_the_budget_of_keys(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await append_group(store, [batch(" ".join(map(str, range(100))))])
            health = store.health()
            assert 1 < health.idempotency_keys < 20
            (outcome,) = await append_group(store, [batch("99 0")])
            assert outcome == Receipt(store.epoch, 101, {"a": 7}, again=(0,))

        run(scenario, Retention(count=1000, idempotency_bytes=8192))

    def test_a_key_is_forgotten_after_its_time_and_not_before(self, run: Callable[..., None], clock: Clock) -> None:
        async def scenario(store: Store) -> None:
            def publish() -> list[Publish]:
                return [Publish([draft("a")], {}, Idempotency("me", "k", b"digest"))]

            await append_group(store, publish())
            clock.now += 299
            (before,) = await append_group(store, publish())
            clock.now += 1
            (after,) = await append_group(store, publish())
            assert before == Receipt(store.epoch, 1, {}, repeated=True)
            assert after == Receipt(store.epoch, 2, {})

        run(scenario)

    def test_a_key_with_a_lifetime_is_remembered_for_it_whatever_the_window_is(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            def publish() -> list[Publish]:
                return [
                    Publish([draft("a")], {"a": 1}, Idempotency("me", "lasting", b"digest", 660.0)),
                    Publish([draft("a")]),
                    Publish([draft("a")], {"a": 2}, Idempotency("me", "usual", b"digest")),
                ]

            first = await append_group(store, publish())
            assert first == [Receipt(store.epoch, 1, {"a": 1}), Receipt(store.epoch, 2, {}),
                             Receipt(store.epoch, 3, {"a": 2})]  # fmt: skip
            clock.now += 659
            again = await append_group(store, publish())
            assert again[0] == Receipt(store.epoch, 1, {"a": 1}, repeated=True)
            assert again[2] == Receipt(store.epoch, 5, {"a": 2})
            other = Publish([draft("b")], {}, Idempotency("me", "lasting", b"another", 660.0))
            assert isinstance((await append_group(store, [other]))[0], KeyReused)
            clock.now += 1
            assert (await append_group(store, publish()))[0] == Receipt(store.epoch, 6, {"a": 1})
            assert not [message for message in (await store.retained()).messages if message.channel == "b"]

        run(scenario, Retention(count=1000, idempotency_s=30))

    def test_a_key_with_a_lifetime_is_not_forgotten_for_others_and_further_ones_are_refused_instead(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            def publish(key: str, lifetime_s: float = 0.0) -> list[Publish]:
                return [Publish([draft("a")], {}, Idempotency("me", key, b"digest", lifetime_s))]

            await append_group(store, publish("first", 660.0))
            for number in range(20):
                await append_group(store, publish(str(number)))
            outcomes = [(await append_group(store, publish(f"lasting-{n}", 660.0)))[0] for n in range(20)]
            head = (await store.head())[1]
            assert isinstance(outcomes[0], Receipt)
            assert isinstance(outcomes[-1], Unavailable)
            assert head == 21 + sum(isinstance(outcome, Receipt) for outcome in outcomes)
            assert isinstance((await append_group(store, publish("usual")))[0], Receipt)
            clock.now += 659
            (after,) = await append_group(store, publish("later", 660.0))
            assert isinstance(after, Unavailable)
            clock.now += 1
            assert (await append_group(store, publish("later", 660.0)))[0] == Receipt(store.epoch, head + 2, {})

        run(scenario, Retention(count=1000, idempotency_bytes=4096))

    # What is retained

    def test_a_channel_keeps_its_latest_and_its_floor_is_the_last_that_went(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "quiet", "1")
            await fill(store, "busy", *"abcde")
            assert await kept(store) == (["quiet:1", "busy:d", "busy:e"], {"busy": 4})

        run(scenario, Retention(count=2))

    def test_messages_that_are_too_old_are_evicted(self, run: Callable[..., None], clock: Clock) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "a", "old", "old")
            clock.now += 61
            await fill(store, "b", "new")
            assert await kept(store) == (["b:new"], {"a": 2})

        run(scenario, Retention(age_s=60))

    def test_beyond_the_byte_budget_the_oldest_of_all_channels_go(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "a", "1" * 100, "2" * 100)
            await fill(store, "b", "3" * 100)
            retained = await store.retained()
            assert [m.sequence for m in retained.messages] == [2, 3]
            assert (retained.floor, retained.floors) == (0, {"a": 1})

        run(scenario, Retention(bytes=2 * weight(draft("a", "x" * 100))))

    def test_messages_evicted_by_count_do_not_count_in_the_byte_budget(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "quiet", "1")
            await fill(store, "busy", *"abcdef")
            assert await kept(store) == (["quiet:1", "busy:f"], {"busy": 6})

        run(scenario, Retention(count=1, bytes=2 * weight(draft("a"))))

    def test_channels_keep_as_many_messages_and_for_as_long_as_their_rules_say(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "tokens", *"abcdef")
            await fill(store, "plain", *"123")
            await self.trim_soon(store)
            assert await kept(store) == ([*(f"tokens:{n}" for n in "bcdef"), "plain:3"], {"tokens": 1, "plain": 8})
            clock.now += 11
            assert await kept(store) == (["plain:3"], {"tokens": 6, "plain": 8})
            await fill(store, "plain", "4")
            clock.now += 50
            await self.trim_soon(store)
            assert await kept(store) == (["plain:4"], {"tokens": 6, "plain": 9})

        run(scenario, Retention(count=1, age_s=60.0, by_channel=ByChannel({"tokens": (5, 10.0)})))

    def test_only_keys_and_ttl_remove_messages_of_the_access_log(self, run: Callable[..., None], clock: Clock) -> None:
        async def scenario(store: Store) -> None:
            async with aclosing(Follower(store)) as follower:
                for key, ttl_s in (("revoke:a", 100.0), ("key:b", None), ("revoke:c", 1000.0), ("key:b", None)):
                    await append(store, draft(ACCESS_LOG, key, key=key, ttl_s=ttl_s))
                assert [m.sequence for m in await follower.read(4)] == [1, 2, 3, 4]
            for number in range(20):
                await append(store, draft("busy", f"{number}" * 100))
            clock.now += 500
            await self.trim_soon(store)
            await fill(store, "busy", "last")
            messages, floors = await kept(store)
            assert messages == ["!access:revoke:c", "!access:key:b", "busy:last"]
            assert floors == {"busy": 24}
            async with aclosing(Follower(store, (await store.retained()).head)) as follower:
                await append(store, draft("a"), draft(ACCESS_LOG, "x", key="key:d"))
                assert shown(await follower.read(2)) == ["a:x", "!access:x"]

        run(scenario, Retention(count=1, age_s=60.0, bytes=2 * weight(draft("a", "x" * 200))))

    def test_the_access_log_is_followed_with_the_messages_around_it(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await append(store, draft("a"), draft(ACCESS_LOG, "1", key="key:b"), draft("a"))
            await append(store, draft(ACCESS_LOG, "2", key="key:c"))
            await fill(store, "a", "y")
            for after in range(5):
                async with aclosing(Follower(store, after)) as follower:
                    assert [m.sequence for m in await follower.read(5 - after)] == list(range(after + 1, 6))

        run(scenario)

    def test_a_message_past_its_ttl_goes_and_does_not_move_the_floor(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            await append(store, draft("a", "short", ttl_s=10.0), draft("a", "long", ttl_s=100.0))
            clock.now += 9
            assert await kept(store) == (["a:short", "a:long"], {})
            clock.now += 1
            assert await kept(store) == (["a:long"], {})

        run(scenario)

    def test_the_latest_message_of_a_key_is_kept_and_the_floor_does_not_move(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await append(store, draft("a", "1", key="k"))
            await append(store, draft("b", "2", key="k"))
            await append(store, draft("a", "3", key="other"))
            await append(store, draft("a", "4", key="k"))
            assert await kept(store) == (["b:2", "a:3", "a:4"], {})

        run(scenario)

    def test_a_key_never_pushes_anothers_history_out(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "a", "1", "2")
            for n in range(50):
                await append(store, draft("a", f"signal {n}", key=""))
            assert await kept(store) == (["a:1", "a:2", "a:signal 49"], {})

        run(scenario, Retention(count=3))

    def test_a_replaced_message_does_not_return_when_its_successor_expires(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            await append(store, draft("a", "earlier", key="k"))
            await append(store, draft("a", "later", key="k", ttl_s=1.0))
            clock.now += 2
            assert await kept(store) == ([], {})

        run(scenario)

    def test_retention_does_not_depend_on_subscribers(self, run: Callable[..., None], clock: Clock) -> None:
        async def scenario(store: Store) -> None:
            async with aclosing(Follower(store)) as lazy:
                await fill(store, "a", "1")
                await lazy.batch()
                await fill(store, "a", "2", "3")
                await append(store, draft("b", "4", ttl_s=1.0))
                clock.now += 2
                assert await kept(store) == (["a:3"], {"a": 2})
                assert [m.sequence for m in await lazy.read(2)][:2] == [2, 3]

        run(scenario, Retention(count=1))

    def test_floors_stay_where_a_channel_has_no_messages_any_more(self, run: Callable[..., None], clock: Clock) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "a", "1", "2")
            await append(store, draft("a", "3", ttl_s=1.0))
            clock.now += 2
            await fill(store, "b", "4")
            assert await kept(store) == (["a:2", "b:4"], {"a": 1})
            clock.now += 60
            assert await kept(store) == (["b:4"], {"a": 2})

        run(scenario, Retention(count=1, age_s=60))

    def test_the_floor_never_sinks(self, run: Callable[..., None], clock: Clock) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "a", *"123")
            assert await kept(store) == (["a:3"], {"a": 2})
            await append(store, draft("a", "4", key="k"))
            clock.now += 61
            assert await kept(store) == ([], {"a": 4})
            assert await kept(store) == ([], {"a": 4})
            assert (await append(store, draft("a"))).sequence == 5

        run(scenario, Retention(count=1, age_s=60))

    def test_the_head_is_the_last_number_given_though_its_message_is_over(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            await append(store, draft("a", "1"), draft("a", "2", ttl_s=1.0))
            clock.now += 2
            retained = await store.retained()
            assert (shown(retained.messages), retained.floors, retained.head) == (["a:1"], {}, 2)
            async with aclosing(Follower(store, retained.head)) as follower:
                await fill(store, "a", "3")
                assert shown(await follower.read(1)) == ["a:3"]

        run(scenario)

    # Following

    @pytest.mark.parametrize("after", range(6))
    def test_a_follower_gets_everything_after_its_place_in_order(self, run: Callable[..., None], after: int) -> None:
        async def scenario(store: Store) -> None:
            await append(store, draft("a", "1"), draft("b", "2"))
            await fill(store, "a", "3", "4", "5")
            async with aclosing(Follower(store, after)) as follower:
                reading = asyncio.create_task(follower.read(6 - after))
                await append(store, draft("b", "6"))
                assert [m.sequence for m in await reading] == list(range(after + 1, 7))

        run(scenario)

    def test_ten_thousand_messages_arrive_in_order_and_once(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            async with aclosing(Follower(store)) as one, aclosing(Follower(store)) as other:
                reading = asyncio.gather(one.read(10_000), other.read(10_000))
                for start in range(0, 10_000, 250):
                    group = [
                        Publish([draft("a", str(n)) for n in range(at, at + 5)]) for at in range(start, start + 250, 5)
                    ]
                    await append_group(store, group)
                for log in await reading:
                    assert [m.sequence for m in log] == list(range(1, 10_001))
                    assert [m.data for m in log] == [str(n).encode() for n in range(10_000)]

        run(scenario, Retention(count=20_000))

    def test_a_store_may_be_closed_during_an_append_and_with_a_follower(self, open_store: Open, clock: Clock) -> None:
        async def scenario() -> None:
            store = await open_store(ALL, clock)
            answers: list[Sequence[Outcome]] = []
            async with asyncio.timeout(PATIENCE_S), aclosing(Follower(store)):
                await append(store, draft("a"))
                store.append([Publish([draft("a")])], answers.append)
                await store.close()
            assert len(answers) <= 1

        asyncio.run(scenario())

    def test_a_follower_of_an_empty_log_waits_for_the_first(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            async with aclosing(Follower(store)) as follower:
                reading = asyncio.create_task(follower.batch())
                done, _ = await asyncio.wait([reading], timeout=0.01)
                assert not done
                await fill(store, "a", "1")
                assert shown(await reading) == ["a:1"]

        run(scenario)

    def test_followers_miss_nothing_and_see_nothing_twice_while_others_append(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            async def publisher(name: str) -> None:
                for n in range(25):
                    await append(store, *(draft(name, f"{n}.{part}") for part in range(1 + n % 3)))
                    await asyncio.sleep(0)

            total = 4 * sum(1 + n % 3 for n in range(25))
            publishers = [asyncio.create_task(publisher(name)) for name in "abcd"]
            async with aclosing(Follower(store)) as one, aclosing(Follower(store)) as other:
                logs = await asyncio.gather(one.read(total), other.read(total))
            await asyncio.gather(*publishers)
            for log in logs:
                assert [m.sequence for m in log] == list(range(1, total + 1))
                for name in "abcd":
                    assert [m.data.decode() for m in log if m.channel == name] == [
                        f"{n}.{part}" for n in range(25) for part in range(1 + n % 3)
                    ]

        run(scenario)

    def test_a_follower_may_be_slower_than_another_and_still_gets_all(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            async with aclosing(Follower(store)) as quick, aclosing(Follower(store)) as slow:
                for n in range(1, 10):
                    await append(store, draft("a", str(n)))
                    assert [m.sequence for m in await quick.batch()] == [n]
                assert [m.sequence for m in await slow.read(9)] == list(range(1, 10))

        run(scenario)

    def test_a_follower_that_leaves_does_not_end_another(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            async with aclosing(Follower(store)) as stays:
                async with aclosing(Follower(store)) as leaves:
                    await fill(store, "a", "1")
                    await leaves.batch()
                await fill(store, "a", "2")
                assert [m.sequence for m in await stays.read(2)] == [1, 2]

        run(scenario)

    def test_a_follower_that_has_left_is_not_called(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            called: list[Sequence[Message]] = []
            following = asyncio.ensure_future(store.follow(0, store.epoch, called.append))
            async with aclosing(Follower(store)) as stays:
                await fill(store, "a", "1")
                await stays.batch()
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                before = len(called)
                await fill(store, "a", "2")
                await stays.batch()
                assert len(called) == before

        run(scenario)

    def test_following_from_below_what_was_trimmed_raises_lost(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await self.trim(store)
            floor = max((await store.retained()).floors.values())
            assert floor > 1
            async with aclosing(Follower(store, 1)) as late:
                with pytest.raises(Lost):
                    await late.batch()
            epoch = store.epoch
            async with aclosing(Follower(store, floor)) as follower:
                assert (await follower.read(1))[0].sequence == floor + 1
            assert store.epoch == epoch

        run(scenario, Retention(count=1))

    def test_a_follower_below_what_was_trimmed_of_one_channel_is_lost_though_it_could_read_on_in_another(
        self, run: Callable[..., None]
    ) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "a", "1")
            await self.trim(store)  # of channel a
            await fill(store, "b", "2")
            async with aclosing(Follower(store, 0)) as late:
                with pytest.raises(Lost):
                    await late.batch()

        run(scenario, Retention(count=1))

    def test_the_head_is_the_last_number_given(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "a", "1", "2")
            assert await store.head() == (store.epoch, 2)

        run(scenario)

    def test_following_another_epoch_raises_lost(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await fill(store, "a", "1")
            async with aclosing(Follower(store, 1, "another1")) as follower:
                with pytest.raises(Lost):
                    await follower.batch()

        run(scenario)

    def test_news_come_before_the_publisher_is_answered_or_after_but_always(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            async with aclosing(Follower(store)) as follower:
                await asyncio.sleep(0)
                receipt = await append(store, draft("a"))
                assert [m.sequence for m in await follower.batch()] == [receipt.sequence]

        run(scenario)

    def test_a_store_that_works_has_no_problem(self, run: Callable[..., None]) -> None:
        async def scenario(store: Store) -> None:
            await append_group(store, [Publish([draft("a")], {}, Idempotency("me", "k", b"digest"))])
            health = store.health()
            assert (health.problem, health.idempotency_keys, health.idempotency_window_s) == (None, 1, 300.0)

        run(scenario)

    def test_more_keys_than_their_budget_shorten_the_window_and_the_latest_are_known(
        self, run: Callable[..., None], clock: Clock
    ) -> None:
        async def scenario(store: Store) -> None:
            def publish(number: int) -> list[Publish]:
                return [Publish([draft("a")], {}, Idempotency("me", f"k{number}", b"digest"))]

            for number in range(100):
                clock.now += 1
                await append_group(store, publish(number))
            (last,) = await append_group(store, publish(99))
            (first,) = await append_group(store, publish(0))
            assert isinstance(last, Receipt)
            assert isinstance(first, Receipt)
            assert (last.repeated, first.repeated) == (True, False)
            health = store.health()
            assert health.idempotency_keys < 20
            assert health.idempotency_window_s < 20

        run(scenario, Retention(idempotency_bytes=8192))

    async def trim_soon(self, store: Store) -> None:
        """Makes the store forget what it need not keep, if that appends nothing."""

    async def trim(self, store: Store) -> None:
        """Makes the store really forget what it need not keep."""
        raise NotImplementedError
