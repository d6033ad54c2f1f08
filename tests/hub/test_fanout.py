"""Delivery, turn by turn: who is visited when, what is encoded once, what goes out in which order.

The sockets are real, so what a subscriber gets is read from its other end; the turns are the test's.
"""

from __future__ import annotations

import json
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import pytest

from pushcompat.hub.answering import Answering
from pushcompat.hub.channel import Channel
from pushcompat.hub.clock import Wheel
from pushcompat.hub.connection import Connection, State
from pushcompat.hub.fanout import NOWHERE, UNKNOWN, Fanout
from pushcompat.hub.history import History
from pushcompat.hub.publishing import Publishing
from pushcompat.hub.sockets import Sockets
from pushcompat.limits import Limits, Retention
from pushcompat.message import Message, format_cursor
from pushcompat.metrics import Metrics
from pushcompat.store.memory import MemoryStore
from pushcompat.wire.encoding import Encoding
from pushcompat.wire.http import parse_head
from pushcompat.wire.longpoll import Answers

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
        self.wheel: Wheel[Connection] = Wheel(0)
        self.now = 0.0
        self.metrics = Metrics()
        self.history = History(limits.retention, lambda: self.now)
        self.sockets = Sockets(self.wheel, 1.0, lambda connection, reason: None)
        self.fanout = Fanout(self.sockets, self.history, self.wheel, limits, self.metrics, self._answered)
        self.fanout.epoch = EPOCH
        self.lines = Lines()
        self._peers: dict[Connection, socket.socket] = {}
        self._sequence = 0

    def _answered(self, connection: Connection, keep_alive: bool) -> None:
        connection.move(State.HEAD)

    def close(self) -> None:
        self.sockets.close()
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
        connection.channels = channels if len(channels) > 1 else channels[0].alone
        for channel in channels:
            channel.subscribers.add(connection)
        connection.encoding = encoding or self.lines
        connection.cursor = self.history.head if cursor is None else cursor
        connection.move(State.POLLING if connection.encoding.once else State.STREAMING)
        return connection

    def publish(self, *names: str, data: bytes = b"") -> None:
        """One update in each; no turn is taken."""
        for channel in [self._append(name, data) for name in names]:
            self.fanout.mark(channel)

    def _append(self, name: str, data: bytes) -> Channel:
        self._sequence += 1
        return self.history.append(Message(name, data, sequence=self._sequence))

    def run(self, visits: int = 256) -> None:
        """Turns until nothing is left to do."""
        turns = 0
        while self.fanout.busy:
            self.fanout.run(visits)
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
            if connection.rest is None or self.sockets.flush(connection):
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
    rig.fanout.run(10)
    served = sum(bool(rig.read(connection)) for connection in crowd)
    assert 5 <= served <= 10
    rig.run(10)
    assert served + sum(bool(rig.read(connection)) for connection in crowd) == 30


def test_channels_take_turns(rig: Rig) -> None:
    crowds = {name: [rig.subscribe(name) for _ in range(200)] for name in "ab"}
    rig.publish("a", "b")
    rig.fanout.run(160)
    served = {name: sum(bool(rig.read(connection)) for connection in crowd) for name, crowd in crowds.items()}
    assert min(served.values()) >= 60


def test_an_update_during_a_pass_reaches_those_who_were_visited_and_those_who_were_not(rig: Rig) -> None:
    crowd = [rig.subscribe("a") for _ in range(20)]
    rig.publish("a")
    rig.fanout.run(10)
    rig.publish("a")
    rig.run(10)
    assert [rig.read(connection) for connection in crowd] == [["1", "2"]] * 20
    assert sorted(rig.lines.encoded) == [[1], [1, 2], [2]]


def test_nothing_is_evicted_before_its_pass_is_through(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=2))
    crowd = [rig.subscribe("a") for _ in range(20)]
    rig.publish(*"aaaaa")
    rig.fanout.run(10)
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
    went_on: list[str] = []
    channel = rig.history.channel("a")
    channel.waiting = deque([lambda: went_on.append("it")])
    rig.fanout.run(10)
    assert went_on == []
    rig.run(10)
    assert went_on == ["it"]


def test_a_publisher_that_waited_for_a_pass_waits_for_the_next_one_where_the_channel_is_still_full(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(retention=Retention(count=2))
    for _ in range(20):
        rig.subscribe("a")
    rig.publish("a")
    rig.fanout.run(10)
    rig.publish(*"aaaa")  # behind the pass: it has to keep all of these for the next one
    limits, store = Limits(), MemoryStore(Retention())
    answering = Answering(rig.sockets, rig.wheel, limits, rig.metrics, (), lambda: None)
    publishing = Publishing(store, rig.history, rig.fanout, rig.wheel, answering, limits, rig.metrics)
    request = parse_head(b"POST /channels/a HTTP/1.1\r\nHost: test\r\n\r\n")
    publishing.submit(rig.connect(), request, ["a"], "publisher")
    assert rig.metrics.publish_waits == 1
    rig.fanout.run(10)
    assert len(rig.history.channel("a")) == 4
    assert rig.metrics.publish_waits == 2
    rig.run(10)
    assert len(rig.history.channel("a")) == 2
    assert rig.metrics.publish_waits == 2


def test_somebody_who_left_during_a_pass_is_not_visited(rig: Rig) -> None:
    crowd = [rig.subscribe("a") for _ in range(20)]
    rig.publish("a")
    rig.fanout.run(10)
    waiting = [connection for connection in crowd if connection.cursor == 0]
    for connection in waiting[1:]:
        rig.sockets.lose(connection, "closed")
    rig.run(10)
    assert rig.read(waiting[0]) == ["1"]
    assert not rig.fanout.busy


def test_a_peer_that_is_gone_costs_nobody_else_anything(rig: Rig) -> None:
    gone, stays = rig.subscribe("a"), rig.subscribe("a")
    rig._peers[gone].close()
    rig.publish("a")
    rig.run()
    assert gone.state is State.GONE
    assert rig.read(stays) == ["1"]


# Encoded once


def test_what_many_need_is_encoded_once(rig: Rig) -> None:
    for _ in range(500):
        rig.subscribe("a")
    rig.publish("a", "a")
    rig.run(100)
    assert rig.lines.encoded == [[1, 2]]
    assert rig.metrics.deliveries == Counter(websocket=1000)
    assert rig.metrics.bytes == Counter(websocket=500 * len("1\n2\n"))


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
    assert rig.history.channel("a").memo is None
    assert not rig.fanout._merged
    late = [rig.subscribe("a", cursor=0) for _ in range(2)]
    for connection in late:
        rig.fanout.catch_up(connection)
    assert [rig.read(connection) for connection in late] == [["1"]] * 2
    assert rig.lines.encoded.count([1]) == 2  # for the pass, and for these two
    rig.fanout.run(1)
    assert rig.history.channel("a").memo is None


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
        rig.fanout.run(visits)
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
    assert poll.state is State.HEAD
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
        rig.fanout.run(50)
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
            assert slow.rest is not None
            stood = slow.cursor
    assert slow.cursor == stood < 40
    assert slow.rest is not None
    assert len(slow.rest) <= 60_010
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
    assert rig.fanout.cursor_of(subscriber) == format_cursor(EPOCH, 2)
    rig.publish("a")
    assert rig.fanout.cursor_of(subscriber) == format_cursor(EPOCH, 0)
    rig.run()
    assert rig.fanout.cursor_of(subscriber) == format_cursor(EPOCH, 3)


def test_whoever_is_behind_stands_where_its_bytes_end(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=1)
    rig.publish(*"aba", data=b"x")
    subscriber = rig.subscribe("a", "b", cursor=0)
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["1x"]
    assert rig.fanout.cursor_of(subscriber) == format_cursor(EPOCH, 1)


def test_whoever_is_ahead_of_the_log_stays_there(rig: Rig) -> None:
    ahead = rig.subscribe("a", cursor=3)
    rig.publish("a", "a")
    rig.run()
    assert (ahead.cursor, rig.fanout.cursor_of(ahead)) == (3, format_cursor(EPOCH, 3))
    rig.publish("a", "a")
    rig.run()
    assert rig.read(ahead) == ["4"]


def test_messages_that_are_gone_without_loss_move_the_cursor_and_say_nothing(rig: Rig) -> None:
    rig.subscribe("a")
    rig.fanout.mark(rig.history.append(Message("a", b"", ttl_s=5.0, sequence=1)))
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
    subscriber = rig.subscribe("a", "b", cursor=UNKNOWN)
    assert rig.fanout.cursor_of(subscriber) == NOWHERE
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["reset a b None"]


def earliest(rig: Rig, *names: str) -> Connection:
    subscriber = rig.subscribe(*names)
    subscriber.forgiven = {channel: channel.floor for channel in subscriber.channels}
    subscriber.cursor = min(subscriber.forgiven.values())
    return subscriber


def test_whoever_asks_for_the_earliest_is_forgiven_what_was_gone_and_nobody_else_is(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=2))
    rig.publish("b", *"aaaa")
    forgiven, not_forgiven = earliest(rig, "a", "b"), rig.subscribe("a", cursor=1)
    for connection in (forgiven, not_forgiven):
        rig.fanout.catch_up(connection)
    assert rig.read(forgiven) == ["1", "4", "5"]
    assert rig.read(not_forgiven) == ["reset a None"]


def test_what_goes_while_it_is_being_sent_the_earliest_is_not_forgiven(make_rig: MakeRig) -> None:
    rig = make_rig(retention=Retention(count=2), send_bytes=1)
    rig.publish(*"bb", *"aaaa", data=b"x")
    subscriber = earliest(rig, "a", "b")
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["1x"]
    subscriber.rest = memoryview(b"unsent")  # it is slow, and nobody waits for it
    rig.publish(*"bb", data=b"x")
    rig.run()
    assert rig.history.channel("b").floor == 2
    subscriber.rest = None
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["reset a b None"]
