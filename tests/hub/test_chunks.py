"""What lies after a cursor: encoded once for all who need it, and a reset where it is gone."""

from __future__ import annotations

from collections import Counter

import pytest

from pushcompat.hub.connection import Connection
from pushcompat.hub.history import NULL_CURSOR, UNKNOWN_POSITION
from pushcompat.limits import Retention
from pushcompat.message import format_cursor

from .rig import EPOCH, Lines, MakeRig, Rig

# Encoded once


def test_bytes_that_many_need_are_encoded_once(rig: Rig) -> None:
    for _ in range(500):
        rig.subscribe("a")
    rig.publish("a", "a")
    rig.run(100)
    assert rig.lines.encoded == [[1, 2]]
    assert rig.metrics.deliveries == Counter(websocket=1000)
    assert rig.metrics.sent_bytes == Counter(websocket=500 * len("1\n2\n"))


def test_subscribers_at_any_cursor_before_the_first_message_share_its_bytes(rig: Rig) -> None:
    rig.publish(*"bbbbb")
    crowd = [rig.subscribe("a", cursor=cursor) for cursor in (0, 1, 3, 5, 5)]
    rig.publish("a")
    rig.run()
    assert [rig.read(connection) for connection in crowd] == [["6"]] * 5
    assert rig.lines.encoded == [[6]]
    assert {connection.cursor for connection in crowd} == {6}


def test_each_encoding_is_made_once(rig: Rig) -> None:
    one, other = Lines(), Lines()
    for encoding in (one, other) * 50:
        rig.subscribe("a", encoding=encoding)
    rig.publish("a")
    rig.run(30)
    assert one.encoded == other.encoded == [[1]]


@pytest.mark.parametrize("visits", [20, 256])
def test_a_merge_of_several_channels_is_made_once_for_all_who_need_it(rig: Rig, visits: int) -> None:
    crowd = [rig.subscribe("a", "b") for _ in range(50)]
    alone = [rig.subscribe("a") for _ in range(50)]
    rig.publish("a", "b", "a")
    rig.run(visits)
    assert [rig.read(connection) for connection in crowd] == [["1", "2", "3"]] * 50
    assert [rig.read(connection) for connection in alone] == [["1", "3"]] * 50
    assert sorted(rig.lines.encoded) == [[1, 2, 3], [1, 3]]


def test_encoded_chunks_are_not_sent_after_their_pass(rig: Rig) -> None:
    """It may hold what is over by then."""
    for names in (("a",), ("a",), ("a", "b"), ("a", "b")):
        rig.subscribe(*names)
    rig.publish("a", "b", ttl_s=5.0)
    rig.run()
    rig.now = 5.0
    rig.history.expire()
    late = [rig.subscribe(*names, cursor=0) for names in (("a",), ("a",), ("a", "b"), ("a", "b"))]
    for connection in late:
        rig.fanout.catch_up(connection)
    assert [rig.read(connection) for connection in late] == [[]] * 4
    assert {connection.cursor for connection in late} == {2}


def test_chunks_encoded_between_two_passes_are_shared_for_one_turn(rig: Rig) -> None:
    rig.publish("a", ttl_s=5.0)
    rig.publish("b")
    for names in (("a",), ("a", "b")):
        early = [rig.subscribe(*names, cursor=0) for _ in range(3)]
        for connection in early:
            rig.fanout.catch_up(connection)
        assert len({tuple(rig.read(connection)) for connection in early}) == 1
    assert rig.lines.encoded == [[1], [1, 2]]
    rig.turn(1)
    rig.now = 5.0
    rig.history.expire()
    late = [rig.subscribe(*names, cursor=0) for names in (("a",), ("a", "b"))]
    for connection in late:
        rig.fanout.catch_up(connection)
    assert [rig.read(connection) for connection in late] == [[], ["2"]]


def test_a_merge_is_made_anew_when_a_head_moves(rig: Rig) -> None:
    crowd = [rig.subscribe("a", "b") for _ in range(20)]
    rig.publish("a", "b")
    rig.turn(10)
    rig.publish("b")
    rig.run(10)
    assert [rig.read(connection) for connection in crowd] == [["1", "2", "3"]] * 20


# Resets


@pytest.mark.parametrize("orders", [(("a", "b"), ("a", "b")), (("a", "b"), ("b", "a")), (("a",), ("a",))])
def test_a_reset_is_counted_once_for_each_subscriber(make_rig: MakeRig, orders: list[tuple[str, ...]]) -> None:
    rig = make_rig(retention=Retention(count=1))
    rig.publish(*"aaa")
    crowd = [rig.subscribe(*names, cursor=1) for names in orders]
    rig.publish("a")
    rig.run()
    assert [rig.read(connection) for connection in crowd] == [["reset a None"]] * 2
    assert rig.metrics.resets == 2


def test_a_reset_names_the_channels_that_may_have_had_something_and_goes_on_from_the_head(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=1), refetch_rate=4.0)
    rig.publish("quiet")
    rig.publish(*"aab")
    subscriber = rig.subscribe("a", "quiet", "b", cursor=1)
    rig.subscribe("a")
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["reset a b 750"]  # three subscriptions, four refetches a second
    assert subscriber.cursor == 4


def test_a_reset_of_an_unknown_position_names_all_channels_and_has_the_null_cursor(rig: Rig) -> None:
    subscriber = rig.subscribe("a", "b", cursor=UNKNOWN_POSITION)
    assert rig.cursor(subscriber) == NULL_CURSOR
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["reset a b None"]


def earliest(rig: Rig, *names: str) -> Connection:
    subscriber = rig.subscribe(*names)
    floors = {channel: channel.floor for channel in subscriber.channels}
    subscriber.start_at(min(floors.values()), floors)
    return subscriber


def test_floors_are_ignored_for_whoever_asks_for_the_earliest_and_for_nobody_else(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=2))
    rig.publish("b", *"aaaa")
    all_of_it, from_one = earliest(rig, "a", "b"), rig.subscribe("a", cursor=1)
    for connection in (all_of_it, from_one):
        rig.fanout.catch_up(connection)
    assert rig.read(all_of_it) == ["1", "4", "5"]
    assert rig.read(from_one) == ["reset a None"]


def test_the_first_chunk_of_the_earliest_reaches_the_highest_floor_that_it_ignores(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=2), send_bytes=1)
    rig.publish(*"bb", *"aaaa", data=b"x")
    subscriber = earliest(rig, "a", "b")
    assert rig.cursor(subscriber) == "earliest"  # a cursor of that place would be answered with a reset
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["1x", "2x", "5x"]
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 5)
    assert subscriber.ignored_floors is None


def test_evictions_after_the_earliest_was_sent_are_not_ignored(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=2), send_bytes=1)
    rig.publish(*"bb", *"aaaa", data=b"x")
    subscriber = earliest(rig, "a", "b")
    rig.fanout.catch_up(subscriber)
    rig.read(subscriber)
    subscriber.unsent = memoryview(b"unsent")  # it is slow, and nobody waits for it
    rig.publish(*"bbb", data=b"x")
    rig.run()
    assert rig.history.channel("b").floor == 7
    subscriber.unsent = None
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["reset a b None"]
