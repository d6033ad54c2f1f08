"""Delivery, turn by turn: who is visited when, what is encoded once, what goes out in which order.

The sockets are real, so what a subscriber gets is read from its other end; the turns are the test's.
"""

from __future__ import annotations

import json
import math
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from pushcompat.access import Grant
from pushcompat.hub.channel import Channel
from pushcompat.hub.connection import Connection, State
from pushcompat.hub.context import Context
from pushcompat.hub.fanout import Fanout
from pushcompat.hub.history import NULL_CURSOR, UNKNOWN_POSITION
from pushcompat.hub.publishing import Publishing
from pushcompat.hub.reasons import CloseReason
from pushcompat.hub.responses import Responses
from pushcompat.hub.subscriptions import Subscriptions
from pushcompat.limits import Limits, Retention
from pushcompat.message import Message, format_cursor
from pushcompat.metrics import Metrics
from pushcompat.store.memory import MemoryStore
from pushcompat.wire.encoding import Encoding
from pushcompat.wire.longpoll import Answers
from pushcompat.wire.request import parse_head

EPOCH = "aaaaaaaa"


class Lines:
    """An encoding that is easy to read, and counts what it encodes."""

    transport = "websocket"
    once = False
    keep_alive = False

    def __init__(self) -> None:
        self.encoded: list[list[int]] = []

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        self.encoded.append([message.sequence for message in messages])
        return b"".join(b"%d%b\n" % (message.sequence, message.data) for message in messages)

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None) -> bytes:
        return f"reset {' '.join(channels)} {spread_ms}\n".encode()

    def opening(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        raise NotImplementedError

    def ping(self, cursor: str) -> bytes:
        raise NotImplementedError

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        raise NotImplementedError


class Answer(Lines):
    """The same, for one answer."""

    transport = "longpoll"
    once = True
    keep_alive = True


class Rig:
    def __init__(self, limits: Limits) -> None:
        self.now = 0.0
        self.metrics = Metrics()
        self.context = Context(limits, self.metrics)
        self.history = self.context.history
        self.history.epoch = EPOCH
        self.history._clock = lambda: self.now
        self.sockets = self.context.sockets
        self.responses = Responses(self.context)
        self.fanout = Fanout(self.context, self.responses)
        self.subscriptions = Subscriptions(self.context)
        self.lines = Lines()
        self._peers: dict[Connection, socket.socket] = {}
        self._sequence = 0

    def close(self) -> None:
        self.sockets.close_all()
        for peer in self._peers.values():
            peer.close()

    def connect(self) -> Connection:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        connection = Connection(ours, 0)
        self.sockets.watch(connection)
        self._peers[connection] = theirs
        return connection

    def subscribe(self, *names: str, cursor: int | None = None, encoding: Encoding | None = None) -> Connection:
        connection = self.connect()
        channels = tuple(self.history.channel(name) for name in names)
        connection.subscribe(
            channels if len(channels) > 1 else channels[0].as_tuple, encoding or self.lines, "", self.context.timers.now
        )
        for channel in channels:
            channel.subscribers.add(connection)
        connection.start_at(self.history.head if cursor is None else cursor)
        assert connection.encoding is not None
        connection.move(State.POLLING if connection.encoding.once else State.STREAMING)
        return connection

    def publish(self, *names: str, data: bytes = b"") -> None:
        """One update in each; no turn is taken."""
        for channel in [self._append(name, data) for name in names]:
            self.fanout.mark_dirty(channel)

    def _append(self, name: str, data: bytes) -> Channel:
        self._sequence += 1
        return self.history.append(Message(name, data, sequence=self._sequence))

    def turn(self, visits: int) -> None:
        self.fanout.run(visits, until=math.inf)

    def cursor(self, connection: Connection) -> str:
        return self.subscriptions.cursor(connection)

    def run(self, visits: int = 256) -> None:
        """Turns until nothing is left to do."""
        turns = 0
        while self.fanout.busy:
            self.turn(visits)
            turns += 1
            assert turns < 1000

    def read(self, connection: Connection) -> list[str]:
        """All lines that have come, by now."""
        received = b""
        try:
            while data := self._peers[connection].recv(1 << 20):
                received += data
        except BlockingIOError:
            pass
        return received.decode().splitlines()

    def flush(self, connection: Connection) -> list[str]:
        """Reads on and on, as the kernel takes more, until nothing more comes."""
        text = ""
        while lines := self._peers_data(connection):
            text += lines
            if connection.unsent is not None:
                self.sockets._flush(connection)
            self.fanout.catch_up(connection)
            self.run()
        return text.splitlines()

    def _peers_data(self, connection: Connection) -> str:
        try:
            return self._peers[connection].recv(1 << 20).decode()
        except BlockingIOError:
            return ""


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(*, retention: Retention | None = None, **limits: float) -> Rig:
        rigs.append(Rig(Limits(retention=retention or Retention(), **limits)))  # type: ignore[arg-type]
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()


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


def test_a_publisher_that_waited_for_a_pass_waits_for_the_next_one_where_the_channel_is_still_full(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(retention=Retention(count=2))
    for _ in range(20):
        rig.subscribe("a")
    rig.publish("a")
    rig.turn(10)
    rig.publish(*"aaaa")  # behind the pass: it has to keep all of these for the next one
    publishing = Publishing(rig.context, MemoryStore(Retention()), "", rig.fanout, rig.responses)
    request = parse_head(b"POST /channels/a HTTP/1.1\r\nHost: test\r\n\r\n")
    publishing.submit(rig.connect(), request, ["a"], Grant("publisher"))
    assert rig.metrics.publish_throttled == 1
    rig.turn(10)
    assert len(rig.history.channel("a")) == 4
    assert rig.metrics.publish_throttled == 2
    rig.run(10)
    assert len(rig.history.channel("a")) == 2
    assert rig.metrics.publish_throttled == 2


def test_somebody_who_left_during_a_pass_is_not_visited(rig: Rig) -> None:
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


# Encoded once


def test_what_many_need_is_encoded_once(rig: Rig) -> None:
    for _ in range(500):
        rig.subscribe("a")
    rig.publish("a", "a")
    rig.run(100)
    assert rig.lines.encoded == [[1, 2]]
    assert rig.metrics.deliveries == Counter(websocket=1000)
    assert rig.metrics.sent_bytes == Counter(websocket=500 * len("1\n2\n"))


def test_whoever_stands_anywhere_before_the_first_message_shares_its_bytes(rig: Rig) -> None:
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


def test_a_merge_of_several_channels_is_made_once_for_all_who_need_it(rig: Rig) -> None:
    crowd = [rig.subscribe("a", "b") for _ in range(50)]
    alone = [rig.subscribe("a") for _ in range(50)]
    rig.publish("a", "b", "a")
    rig.run()
    assert [rig.read(connection) for connection in crowd] == [["1", "2", "3"]] * 50
    assert [rig.read(connection) for connection in alone] == [["1", "3"]] * 50
    assert sorted(rig.lines.encoded) == [[1, 2, 3], [1, 3]]


def test_what_was_encoded_dies_with_its_pass(rig: Rig) -> None:
    for names in (("a",), ("a",), ("a", "b"), ("a", "b")):
        rig.subscribe(*names)
    rig.publish("a", "b")
    rig.run()
    assert rig.history.channel("a").cache is None
    assert not rig.fanout._chunks._merged
    late = [rig.subscribe("a", cursor=0) for _ in range(2)]
    for connection in late:
        rig.fanout.catch_up(connection)
    assert [rig.read(connection) for connection in late] == [["1"]] * 2
    assert rig.lines.encoded.count([1]) == 2  # for the pass, and for these two
    rig.turn(1)
    assert rig.history.channel("a").cache is None


def test_a_reset_is_counted_once_for_each_who_is_told(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=1))
    rig.publish(*"aaa")
    crowd = [rig.subscribe(*names, cursor=1) for names in (("a", "b"), ("b", "a"))]
    rig.publish("a")
    rig.run()
    assert [rig.read(connection) for connection in crowd] == [["reset a None"]] * 2
    assert rig.metrics.resets == 2


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
    poll = rig.subscribe("a", encoding=Answers(b"", True))
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


def test_nothing_is_evicted_before_one_who_reads_was_sent_it_in_however_many_sends(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=10, retention=Retention(count=2))
    reader = rig.subscribe("a")
    rig.publish(*["a"] * 6, data=b"0123456789")
    rig.run()
    assert rig.read(reader) == [f"{number}0123456789" for number in range(1, 7)]
    assert len(rig.history.channel("a")) == 2


def test_whoever_is_behind_gets_on_while_passes_never_end(make_rig: MakeRig) -> None:
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


def test_nothing_more_is_taken_for_one_who_does_not_read_and_all_comes_in_order_when_it_does(rig: Rig) -> None:
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


def test_one_who_reads_again_too_late_is_told(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=3))
    slow = rig.subscribe("a")
    for _ in range(80):
        rig.publish("a", data=b"x" * 60_000)
        rig.run()
    lines = [line.rstrip("x") for line in rig.flush(slow)]
    assert lines[-1] == "reset a None"
    assert lines[:-1] == [str(number) for number in range(1, len(lines))]
    assert slow.cursor == 80


# Where one stands


def test_whoever_is_caught_up_stands_at_the_head_of_the_log(rig: Rig) -> None:
    subscriber = rig.subscribe("a", "c")
    rig.publish("b", "b")
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 2)
    rig.publish("a")
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 0)
    rig.run()
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 3)


def test_whoever_is_behind_stands_where_its_bytes_end(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=1)
    rig.publish(*"aba", data=b"x")
    subscriber = rig.subscribe("a", "b", cursor=0)
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["1x"]
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 1)


def test_whoever_is_ahead_of_the_log_stays_there(rig: Rig) -> None:
    ahead = rig.subscribe("a", cursor=3)
    rig.publish("a", "a")
    rig.run()
    assert (ahead.cursor, rig.cursor(ahead)) == (3, format_cursor(EPOCH, 3))
    rig.publish("a", "a")
    rig.run()
    assert rig.read(ahead) == ["4"]


def test_messages_that_are_gone_without_loss_move_the_cursor_and_say_nothing(rig: Rig) -> None:
    rig.subscribe("a")
    rig.fanout.mark_dirty(rig.history.append(Message("a", b"", ttl_s=5.0, sequence=1)))
    rig.run()
    rig.now = 5.0
    rig.history.expire()
    subscriber = rig.subscribe("a", cursor=0)
    rig.fanout.catch_up(subscriber)
    assert (rig.read(subscriber), subscriber.cursor) == ([], 1)


# Resets


def test_a_reset_names_the_channels_that_may_have_had_something_and_goes_on_from_the_head(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=1), refetch_rate=4.0)
    rig.publish("quiet")
    rig.publish(*"aab")
    subscriber = rig.subscribe("a", "quiet", "b", cursor=1)
    rig.subscribe("a")
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["reset a b 750"]  # three subscriptions, four refetches a second
    assert subscriber.cursor == 4


def test_of_somebody_unknown_all_channels_are_named_and_its_cursor_is_nowhere(rig: Rig) -> None:
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


def test_what_goes_after_the_earliest_was_sent_is_not_ignored(make_rig: MakeRig) -> None:
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
