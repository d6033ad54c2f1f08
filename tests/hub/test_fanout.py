"""Delivery, turn by turn: which subscribers are visited when, and what is sent in which order."""

from __future__ import annotations

import json

import pytest

from pushcompat.access.grant import Grant
from pushcompat.hub.connection import State
from pushcompat.hub.publishing import Publishing
from pushcompat.hub.reasons import CloseReason
from pushcompat.limits import Retention
from pushcompat.message import format_cursor
from pushcompat.store.memory import MemoryStore
from pushcompat.wire.longpoll import PollEncoding
from pushcompat.wire.request import parse_head

from .rig import EPOCH, Answer, MakeRig, Rig

# Passes


def test_a_pass_visits_everyone_and_only_those_of_the_channel(rig: Rig) -> None:
    crowd = [rig.subscribe("a") for _ in range(5)]
    other = rig.subscribe("b")
    rig.publish("a")
    rig.run()
    assert [rig.read(connection) for connection in crowd] == [["1"]] * 5
    assert rig.read(other) == []
    assert {connection.cursor for connection in crowd} == {1}


def test_updates_that_come_before_the_pass_go_out_in_one_send(rig: Rig) -> None:
    subscriber = rig.subscribe("a")
    rig.publish("a", "a", "a")
    rig.publish("a")
    rig.run()
    assert rig.read(subscriber) == ["1", "2", "3", "4"]
    assert rig.lines.encoded == [[1, 2, 3, 4]]


def test_a_turn_makes_no_more_visits_than_it_may(rig: Rig) -> None:
    crowd = [rig.subscribe("a") for _ in range(30)]
    rig.publish("a")
    rig.turn(10)
    served = sum(bool(rig.read(connection)) for connection in crowd)
    assert 5 <= served <= 10
    rig.run(10)
    assert served + sum(bool(rig.read(connection)) for connection in crowd) == 30


def test_channels_take_turns(rig: Rig) -> None:
    crowds = {name: [rig.subscribe(name) for _ in range(200)] for name in "ab"}
    rig.publish("a", "b")
    rig.turn(160)
    served = {name: sum(bool(rig.read(connection)) for connection in crowd) for name, crowd in crowds.items()}
    assert min(served.values()) >= 60


def test_an_update_during_a_pass_reaches_those_who_were_visited_and_those_who_were_not(rig: Rig) -> None:
    crowd = [rig.subscribe("a") for _ in range(20)]
    rig.publish("a")
    rig.turn(10)
    rig.publish("a")
    rig.run(10)
    assert [rig.read(connection) for connection in crowd] == [["1", "2"]] * 20
    assert sorted(rig.lines.encoded) == [[1], [1, 2], [2]]


def test_nothing_is_evicted_before_its_pass_is_through(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=2))
    crowd = [rig.subscribe("a") for _ in range(20)]
    rig.publish(*"aaaaa")
    rig.turn(10)
    assert len(rig.history.channel("a")) == 5
    rig.run(10)
    assert [rig.read(connection) for connection in crowd] == [["1", "2", "3", "4", "5"]] * 20
    assert len(rig.history.channel("a")) == 2


def test_a_channel_that_nobody_follows_is_trimmed_at_once(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=2))
    rig.publish(*"aaaaa")
    assert not rig.fanout.busy
    assert len(rig.history.channel("a")) == 2


def test_publishers_that_wait_for_a_pass_go_on_when_it_is_through(rig: Rig) -> None:
    for _ in range(20):
        rig.subscribe("a")
    rig.publish("a")
    ended: list[str] = []
    rig.fanout.on_pass_end(lambda channel: ended.append(channel.name))
    rig.turn(10)
    assert ended == []
    rig.run(10)
    assert ended == ["a"]


def test_updates_that_come_before_a_pass_make_one_pass(rig: Rig) -> None:
    ended: list[str] = []
    rig.fanout.on_pass_end(lambda channel: ended.append(channel.name))
    rig.subscribe("a")
    for _ in range(3):
        rig.publish("a")
    rig.run()
    assert ended == ["a"]
    assert sum(rig.metrics.delivery_pass_duration_seconds.counts) == 1


def test_a_publish_waits_again_while_its_channel_is_full(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(retention=Retention(count=2))
    for _ in range(20):
        rig.subscribe("a")
    rig.publish("a")
    rig.turn(10)
    rig.publish(*"aaaa")  # behind the pass: it has to keep all of these for the next one
    publishing = Publishing(rig.context, MemoryStore(Retention()), rig.fanout, rig.responses)
    request = parse_head(b"POST /channels/a HTTP/1.1\r\nHost: test\r\n\r\n")
    publishing.submit(rig.connect(), request, ["a"], Grant("publisher"))
    assert rig.metrics.publish_throttled == 1
    rig.turn(10)
    assert len(rig.history.channel("a")) == 4
    assert rig.metrics.publish_throttled == 2
    rig.run(10)
    assert len(rig.history.channel("a")) == 2
    assert rig.metrics.publish_throttled == 2


def test_a_subscriber_that_left_during_a_pass_is_not_visited(rig: Rig) -> None:
    crowd = [rig.subscribe("a") for _ in range(20)]
    rig.publish("a")
    rig.turn(10)
    waiting = [connection for connection in crowd if connection.cursor == 0]
    for connection in waiting[1:]:
        rig.sockets.abort(connection, CloseReason.CLIENT_CLOSED)
    rig.run(10)
    assert rig.read(waiting[0]) == ["1"]
    assert not rig.fanout.busy


def test_a_peer_that_is_gone_costs_nobody_else_anything(rig: Rig) -> None:
    gone, stays = rig.subscribe("a"), rig.subscribe("a")
    rig._peers[gone].close()
    rig.publish("a")
    rig.run()
    assert gone.state is State.CLOSED
    assert rig.read(stays) == ["1"]


# In order, and once


def test_two_subscriptions_at_the_same_cursor_do_not_see_each_others_bytes(rig: Rig) -> None:
    one, both, other = rig.subscribe("a"), rig.subscribe("a", "b"), rig.subscribe("b")
    for names in ("a", "b", "ab", "ba"):
        rig.publish(*names)
        rig.run(1)
    rig.publish(*"aabb")
    rig.run(2)
    assert rig.read(one) == ["1", "3", "6", "7", "8"]
    assert rig.read(other) == ["2", "4", "5", "9", "10"]
    assert rig.read(both) == [str(number) for number in range(1, 11)]


@pytest.mark.parametrize("visits", [1, 2, 3, 256])
@pytest.mark.parametrize("send_bytes", [1, 5, 1000])
def test_visits_of_several_passes_in_one_turn_keep_the_order(make_rig: MakeRig, visits: int, send_bytes: int) -> None:
    rig = make_rig(send_bytes=send_bytes)
    crowd = [rig.subscribe(*names) for names in ("ab", "ba", "abc", "cb", "a", "b")]
    for _ in range(20):
        rig.publish(*"abcab", data=b"x")
        rig.turn(visits)
    rig.run(visits)
    for connection in crowd:
        names = {channel.name for channel in connection.channels}
        expected = [f"{number + 1}x" for number in range(100) if "abcab"[number % 5] in names]
        assert rig.read(connection) == expected


def test_a_poll_gets_one_answer_however_many_passes_visit_it(rig: Rig) -> None:
    answers = Answer()
    poll = rig.subscribe("a", "b", encoding=answers)
    rig.publish("a", "b")
    rig.run()
    rig.publish("a", "b")
    rig.run()
    assert poll.state is State.READING_HEAD
    assert rig.read(poll) == ["1", "2"]
    assert poll.cursor == 2


def test_a_poll_with_more_than_one_answer_may_take_gets_the_first_part_and_its_cursor(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=10)
    poll = rig.subscribe("a", encoding=PollEncoding(b"", True))
    rig.publish("a", "a", "a", data=b"12345")
    rig.publish("a", data=b"12345")
    rig.run()
    document = json.loads("\n".join(rig.read(poll)).rpartition("\n")[2])
    assert [message["id"] for message in document["messages"]] == [format_cursor(EPOCH, 1), format_cursor(EPOCH, 2)]
    assert document["cursor"] == format_cursor(EPOCH, 2)
    assert poll.cursor == 2


# As much as one send may take


def test_a_backlog_goes_out_in_sends_of_bounded_size(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=1000)
    rig.publish(*"aaaaaaaaaa", data=b"x" * 399)
    subscriber = rig.subscribe("a", cursor=0)
    rig.fanout.catch_up(subscriber)
    assert (subscriber.cursor, rig.lines.encoded) == (2, [[1, 2]])
    rig.run()
    assert rig.lines.encoded == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert rig.read(subscriber) == [f"{number}{'x' * 399}" for number in range(1, 11)]


def test_a_message_that_is_larger_than_one_send_may_be_goes_alone(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=10)
    rig.publish("a", "a", data=b"x" * 50)
    subscriber = rig.subscribe("a", cursor=0)
    rig.fanout.catch_up(subscriber)
    rig.run()
    assert rig.lines.encoded == [[1], [2]]
    assert subscriber.cursor == 2


def test_nothing_is_evicted_before_a_reader_was_sent_it_in_however_many_sends(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=10, retention=Retention(count=2))
    reader = rig.subscribe("a")
    rig.publish(*["a"] * 6, data=b"0123456789")
    rig.run()
    assert rig.read(reader) == [f"{number}0123456789" for number in range(1, 7)]
    assert len(rig.history.channel("a")) == 2


def test_a_subscriber_with_a_backlog_gets_on_while_passes_never_end(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=10)
    for _ in range(100):
        rig.subscribe("hot")
    rig.publish(*["quiet"] * 5, data=b"0123456789")
    behind = rig.subscribe("quiet", cursor=0)
    rig.fanout.catch_up(behind)
    for _ in range(10):
        rig.publish("hot")
        rig.turn(50)
        assert rig.history.channel("hot").dirty
    assert len(rig.read(behind)) == 5


def test_a_slow_reader_is_given_no_more_and_then_goes_on_in_order(rig: Rig) -> None:
    slow, quick = rig.subscribe("a"), rig.subscribe("a")
    got: list[str] = []
    for number in range(80):
        rig.publish("a", data=b"x" * 60_000)
        rig.run()
        got += rig.flush(quick)
        if number == 40:
            assert slow.unsent is not None
            stood = slow.cursor
    assert slow.cursor == stood < 40
    assert slow.unsent is not None
    assert len(slow.unsent) <= 60_010
    assert [line.rstrip("x") for line in got] == [str(number) for number in range(1, 81)]
    assert [line.rstrip("x") for line in rig.flush(slow)] == [str(number) for number in range(1, 81)]


def test_a_subscriber_that_reads_again_too_late_is_reset(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=3))
    slow = rig.subscribe("a")
    for _ in range(80):
        rig.publish("a", data=b"x" * 60_000)
        rig.run()
    lines = [line.rstrip("x") for line in rig.flush(slow)]
    assert lines[-1] == "reset a None"
    assert lines[:-1] == [str(number) for number in range(1, len(lines))]
    assert slow.cursor == 80
