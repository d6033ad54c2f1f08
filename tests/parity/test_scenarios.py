"""One list of scenarios for every transport and format. What differs between them stands in ``wires``, not here."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from ..harness import CERTIFICATE, PATIENCE_S, Server, running, sequence
from .subscriber import Scene
from .wires import WIRES

EPOCHLESS = "00000000-000000000000000"
BIG = 60 * 1024  # the largest message
ALL = list(WIRES)


def scene_on(server: Server) -> Iterator[Scene]:
    scene = Scene(server)
    yield scene
    scene.close()


@pytest.fixture(scope="module")
def encrypted_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("encrypted"), "--tls-cert", str(CERTIFICATE))


@pytest.fixture(params=["shared_server", "encrypted_server"], ids=["plain", "TLS"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    yield from scene_on(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("small"), "--history", "5", "--refetch-rate", "10")


@pytest.fixture
def small(small_server: Server) -> Iterator[Scene]:
    """Keeps five messages a channel, and spreads refetches: ten a second."""
    yield from scene_on(small_server)


@pytest.fixture(scope="module")
def lively_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("lively"), "--heartbeat", "1", "--poll-window", "1")


@pytest.fixture
def lively(lively_server: Server) -> Iterator[Scene]:
    """Says something at least once a second."""
    yield from scene_on(lively_server)


@pytest.fixture
def own(server: Server) -> Iterator[Scene]:
    """A server of the test's own."""
    yield from scene_on(server)


@pytest.fixture(scope="module")
def cursor_of_another_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """From before a restart."""
    for server in running(tmp_path_factory.mktemp("earlier")):
        cursor: str = server.publish("any", "before the restart")["id"]
    return cursor


@pytest.fixture(params=ALL)
def wire(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def here(request: pytest.FixtureRequest) -> str:
    """A channel of the test's own."""
    return re.sub(r"[^a-z]+", "-", request.node.name)[-80:]


def ahead(cursor: str, count: int) -> str:
    epoch, _, digits = cursor.partition("-")
    return f"{epoch}-{int(digits) + count:015d}"


def numbered(*numbers: int) -> list[str]:
    return [f"message {number}" for number in numbers]


# Starting


def test_a_connected_subscriber_gets_each_message_and_nothing_older(scene: Scene, wire: str, here: str) -> None:
    scene.publish(here, "older")
    subscriber = scene.opened(wire, here)
    for text in numbered(1, 2, 3):
        scene.publish(here, text)
        assert subscriber.read(1) == [text]


def test_a_subscription_begins_where_it_says_it_does(scene: Scene, wire: str, here: str) -> None:
    cursor = scene.publish(here, "older")
    subscriber = scene.subscriber(wire, here)
    assert subscriber.open().cursor in (cursor, None)
    subscriber.cut()
    scene.publish(here, "missed")
    subscriber.open(subscriber.cursor or cursor)
    assert subscriber.read(1) == ["missed"]


def test_earliest_is_all_that_is_retained(small: Scene, wire: str, here: str) -> None:
    small.publish(here, *numbered(*range(8)))
    subscriber = small.opened(wire, here, "earliest")
    assert subscriber.read(5) == numbered(3, 4, 5, 6, 7)
    small.publish(here, "live")
    assert subscriber.read(1) == ["live"]


def test_earliest_of_several_channels_is_all_of_each_in_the_order_of_the_log(
    small: Scene, wire: str, here: str
) -> None:
    busy, quiet = f"{here}-busy", f"{here}-quiet"
    small.publish(quiet, "first")
    small.publish(busy, *numbered(*range(8)))
    small.publish(quiet, "last")
    subscriber = small.opened(wire, f"{busy},{quiet}", "earliest")
    assert subscriber.read(7) == ["first", *numbered(3, 4, 5, 6, 7), "last"]


def test_the_last_messages_of_all_channels_are_those_that_were_published_last(
    small: Scene, wire: str, here: str
) -> None:
    busy, quiet = f"{here}-busy", f"{here}-quiet"
    small.publish(quiet, "first", "second")
    small.publish(busy, *numbered(*range(8)))
    small.publish(quiet, "last")
    for count, expected in (
        ("3", [*numbered(6, 7), "last"]),
        ("7", ["second", *numbered(3, 4, 5, 6, 7), "last"]),
        ("99", ["first", "second", *numbered(3, 4, 5, 6, 7), "last"]),
    ):
        subscriber = small.opened(wire, f"{busy},{quiet}", "earliest", last=count)
        assert subscriber.read(len(expected)) == expected


def test_none_of_the_last_messages_is_a_subscription_from_now(small: Scene, wire: str, here: str) -> None:
    cursor = small.publish(here, "older")
    subscriber = small.opened(wire, here, "earliest", last="0")
    assert subscriber.cursor in (cursor, "earliest")
    small.publish(here, "live")
    assert subscriber.read(1) == ["live"]


def test_the_number_of_last_messages_means_nothing_to_whoever_resumes(small: Scene, wire: str, here: str) -> None:
    cursor = small.publish(here, "read")
    small.publish(here, *numbered(1, 2, 3))
    assert small.opened(wire, here, cursor, last="1").read(3) == numbered(1, 2, 3)


# Resuming


def test_a_disconnected_subscriber_gets_what_it_missed_and_nothing_twice(scene: Scene, wire: str, here: str) -> None:
    subscriber = scene.opened(wire, here, scene.publish(here, "before"))
    scene.publish(here, "1")
    assert subscriber.read(1) == ["1"]
    subscriber.cut()
    scene.publish(here, "2", "3")
    subscriber.resume()
    scene.publish(here, "4")
    assert subscriber.read(3) == ["2", "3", "4"]


@pytest.mark.parametrize("newer_in_the_header", [True, False])
def test_the_newer_position_of_header_and_parameter_is_used(
    scene: Scene, wire: str, here: str, newer_in_the_header: bool
) -> None:
    first = scene.publish(here, "1")
    second = scene.publish(here, "2")
    scene.publish(here, "3")
    header, parameter = (second, first) if newer_in_the_header else (first, second)
    subscriber = scene.subscriber(wire, here)
    subscriber.open(second, headers=(f"Last-Event-ID: {header}",), params={"cursor": parameter})
    assert subscriber.read(1) == ["3"]


def test_the_polyfills_parameter_is_a_cursor_too(scene: Scene, wire: str, here: str) -> None:
    first = scene.publish(here, "1")
    scene.publish(here, "2", "3")
    subscriber = scene.subscriber(wire, here)
    subscriber.open(first, params={"lastEventId": first})
    assert subscriber.read(2) == ["2", "3"]


def test_a_cursor_ahead_of_the_log_is_from_a_tail_that_was_lost_and_gets_a_reset(
    scene: Scene, wire: str, here: str
) -> None:
    before = scene.publish(here, "before")
    subscriber = scene.subscriber(wire, here)
    subscriber.open(ahead(before, 900))
    reset = subscriber.event()
    while reset.kind == "ping":
        reset = subscriber.event()
    assert (reset.kind, reset.cursor) == ("reset", before) or reset.data == "UPDATED"
    scene.publish(here, "new")
    assert subscriber.read(1) == ["new"]


# Several channels


def test_names_may_be_escaped_and_repeated(scene: Scene, wire: str, here: str) -> None:
    one, other = f"{here}-1", f"{here}@2"
    names = f"{one},{other.replace('@', '%40')},{one}%2C{other}"
    subscriber = scene.opened(wire, names, scene.publish(one, "before"))
    scene.publish(one, "1")
    scene.publish(other, "2")
    assert [(m.data, m.channel in (name, None)) for m, name in [(subscriber.message(), n) for n in (one, other)]] == [
        ("1", True),
        ("2", True),
    ]


def test_channels_are_merged_in_the_order_of_the_log(scene: Scene, wire: str, here: str) -> None:
    names = [f"{here}-{letter}" for letter in "abc"]
    cursor = scene.publish(names[0], "before")
    live = scene.opened(wire, ",".join(names), cursor)
    said = numbered(*range(12))
    for number, text in enumerate(said):
        scene.publish(names[number * number % 3], text)
    late = scene.opened(wire, ",".join(reversed(names)), cursor)
    assert live.read(12) == late.read(12) == said


def test_a_and_a_with_b_at_the_same_cursor_see_nothing_of_each_other(scene: Scene, wire: str, here: str) -> None:
    a, b = f"{here}-a", f"{here}-b"
    cursor = scene.publish(a, "before")
    live = [scene.opened(wire, names, cursor) for names in (a, f"{a},{b}", b, f"{b},{a}")]
    for channel, text in ((a, "1"), (b, "2"), (a, "3"), (b, "4")):
        scene.publish(channel, text)
    late = [scene.opened(wire, names, cursor) for names in (a, f"{a},{b}", b, f"{b},{a}")]
    scene.publish(f"{a},{b}", "end")
    for alone_a, both, alone_b, both_too in (live, late):
        assert alone_a.read(3) == ["1", "3", "end"]
        assert alone_b.read(3) == ["2", "4", "end"]
        assert both.read(6) == both_too.read(6) == ["1", "2", "3", "4", "end", "end"]


# History that is gone


def test_a_cursor_below_the_floor_gets_a_reset_that_names_the_channels(small: Scene, wire: str, here: str) -> None:
    fallen, quiet = f"{here}-fallen", f"{here}-quiet"
    small.publish(quiet, "seen")
    cursor = small.publish(fallen, "seen")
    last = small.publish(fallen, *numbered(*range(6)))
    subscriber = small.opened(wire, f"{quiet},{fallen}", cursor)
    reset = subscriber.until_reset()
    if reset.kind == "reset":
        assert (reset.channels, reset.cursor, reset.spread) == ((fallen,), last, 100)
    small.publish(fallen, "new")
    assert subscriber.read(1) == ["new"]


def test_a_cursor_at_the_floor_has_lost_nothing(small: Scene, wire: str, here: str) -> None:
    cursor = small.publish(here, "seen")
    small.publish(here, *numbered(*range(5)))
    assert small.opened(wire, here, cursor).read(5) == numbered(*range(5))


def test_a_reset_names_a_channel_with_a_backlog_too_and_nothing_older_is_sent(
    small: Scene, wire: str, here: str
) -> None:
    fallen, behind = f"{here}-fallen", f"{here}-behind"
    cursor = small.publish(fallen, "seen")
    small.publish(fallen, *numbered(*range(3)))
    small.publish(behind, *numbered(10, 11, 12))
    last = small.publish(fallen, *numbered(*range(20, 25)))
    subscriber = small.opened(wire, f"{fallen},{behind}", cursor)
    reset = subscriber.until_reset()
    if reset.kind == "reset":
        assert (reset.channels, reset.cursor) == ((fallen, behind), last)
    small.publish(behind, "new")
    assert subscriber.read(1) == ["new"]


@pytest.mark.parametrize(
    "cursor",
    [
        EPOCHLESS,
        "nonsense",
        "aaaaaaaa-00000000000001x",
        "aaaaaaaa-00000000000001\u0661",  # a digit, but of another alphabet
        "aaaaaaaa000000000000001",
        "-",
        "LATEST",
        "x" * 2000,
        "\x00\r\n",
    ],
)
def test_a_cursor_that_can_not_be_read_is_a_reset_of_all_channels(
    scene: Scene, wire: str, here: str, cursor: str
) -> None:
    one, other = f"{here}-1", f"{here}-2"
    scene.publish(one, "older")
    subscriber = scene.opened(wire, f"{one},{other}", cursor)
    assert subscriber.until_reset().channels in ((one, other), ())
    scene.publish(other, "new")
    assert subscriber.read(1) == ["new"]


def test_after_a_restart_without_history_everyone_is_told_to_refetch_and_goes_on(
    scene: Scene, wire: str, here: str, cursor_of_another_log: str
) -> None:
    scene.publish(here, "older")
    subscriber = scene.subscriber(wire, here)
    opened = subscriber.open(cursor_of_another_log)
    if opened.cursor != cursor_of_another_log:  # a stream; cut before the reset came, it is still owed
        subscriber.open(opened.cursor or cursor_of_another_log)
    assert subscriber.until_reset().channels in ((here,), ())
    scene.publish(here, "new")
    assert subscriber.read(1) == ["new"]
    subscriber.cut()
    scene.publish(here, "newer")
    subscriber.resume()
    assert subscriber.read(1) == ["newer"]


# What does not count as loss


def test_an_absent_subscriber_gets_one_of_many_signals_and_all_other_messages(
    small: Scene, wire: str, here: str
) -> None:
    cursor = small.publish(here, "before")
    small.publish(here, *numbered(1, 2, 3))
    for _ in range(20):
        small.publish(here, "")
    small.publish(here, "after")
    subscriber = small.opened(wire, here, cursor)
    assert subscriber.read(5) == [*numbered(1, 2, 3), "UPDATED", "after"]


def test_equal_keys_on_two_channels_do_not_replace_each_other(scene: Scene, wire: str, here: str) -> None:
    one, other = f"{here}-1", f"{here}-2"
    cursor = scene.publish(one, "before")
    for text in numbered(1, 2):
        scene.publish(one, f"one: {text}", params="?key=same")
        scene.publish(other, f"other: {text}", params="?key=same")
    subscriber = scene.opened(wire, f"{one},{other}", cursor)
    assert subscriber.read(2) == ["one: message 2", "other: message 2"]


def test_a_message_past_its_ttl_is_not_sent_and_nobody_is_reset_for_it(lively: Scene, here: str) -> None:
    cursor = lively.publish(here, "before")
    retained = lively.server.metric("pushcompat_retained_messages")
    lively.publish(here, "short-lived", params="?ttl=0.5")
    live = lively.opened("websocket-json", here, cursor)
    assert live.read(1) == ["short-lived"]
    lively.server.wait_for_metric("pushcompat_retained_messages", retained, retained)
    lively.publish(here, "lasting")
    for wire in ALL:
        assert lively.opened(wire, here, cursor).read(1) == ["lasting"]


# Payloads

AWKWARD = [
    "",
    " led by a space",
    "two\nlines",
    "two\r\nlines",
    "two\rlines",
    "\n",
    "\r\n\r\n",
    "\n\nevent: control\ndata: {}\n\n",
    "x\r\revent: control\rid: 1\rdata: {}\r\r",
    "data: x",
    ": comment",
    "retry: 1",
    '{"control":"reset","cursor":"x","channels":["a"]}',
    '{"control":"rotate","cursor":"x","retry":0}',
    "control",
    'quotes " and \\ and \x00 and \x1b and \x7f',
    "ü € 😀 \u2028 \u2029 \u0085 \ufeff e\u0301 \U0010ffff",
]


def test_payloads_come_as_they_were_published_whatever_is_in_them(scene: Scene, wire: str, here: str) -> None:
    subscriber = scene.opened(wire, here, scene.publish(here, "before"))
    for text in AWKWARD:
        scene.publish(here, text)
        expected = text or "UPDATED"
        if wire == "eventsource-text":  # there all of CR, LF and CRLF end a line, and a client puts LF between lines
            expected = re.sub("\r\n|\r", "\n", expected)
        assert subscriber.message().data == expected


@pytest.mark.parametrize("kind", ["message", "open", "error", "reset", "UPDATED", "a.b_c:d~e@f-1"])
def test_a_type_is_the_publishers_word_and_no_transport_takes_it_for_its_own(
    scene: Scene, wire: str, here: str, kind: str
) -> None:
    subscriber = scene.opened(wire, here, scene.publish(here, "before"))
    scene.publish(here, "said", params=f"?type={kind}")
    message = subscriber.message()
    assert (message.data, message.type) == ("said", None if wire == "websocket-text" else kind)


def test_the_largest_messages_and_a_backlog_of_many_sends_come_whole(scene: Scene, wire: str, here: str) -> None:
    texts = [f"{number:02}".ljust(BIG, "x") for number in range(20)]
    cursor = scene.publish(here, "before")
    live = scene.opened(wire, here, cursor)
    for text in texts:
        scene.publish(here, text)
    late = scene.opened(wire, here, cursor)
    assert live.read(20) == texts
    assert late.read(20) == texts


# Cuts and switches

BACKLOG = [f"{number:02}".ljust(50_000, "y") for number in range(12)]


@pytest.mark.parametrize("taken", [0, 1, 5, 6])
def test_a_cut_at_any_point_of_a_backlog_of_several_sends_loses_and_repeats_nothing(
    scene: Scene, wire: str, here: str, taken: int
) -> None:
    cursor = scene.publish(here, "before")
    scene.publish(here, *BACKLOG)
    subscriber = scene.subscriber(wire, here)
    assert subscriber.open(cursor).cursor in (cursor, None)
    assert subscriber.read(taken) == BACKLOG[:taken]
    subscriber.resume()
    scene.publish(here, "live")
    assert subscriber.read(len(BACKLOG) - taken + 1) == [*BACKLOG[taken:], "live"]


@pytest.mark.parametrize("other", ALL)
def test_a_client_that_switches_between_open_and_backlog_gets_all_messages(
    scene: Scene, wire: str, other: str, here: str
) -> None:
    subscriber = scene.subscriber(wire, here)
    subscriber.open(scene.publish(here, "before"))
    scene.publish(here, *BACKLOG)
    subscriber.resume(other)
    scene.publish(here, "live")
    assert subscriber.read(len(BACKLOG) + 1) == [*BACKLOG, "live"]


@pytest.mark.parametrize("order", [order for order in permutations(ALL) if order[0] == ALL[0]][::4], ids=" ".join)
def test_one_cursor_goes_through_all_transports(scene: Scene, here: str, order: tuple[str, ...]) -> None:
    subscriber = scene.opened(order[0], here, scene.publish(here, "before"))
    got: list[str] = []
    said: list[str] = []
    for number, wire in enumerate(order * 2):
        texts = [f"{number}.{part}" for part in range(3)]
        said += texts
        scene.publish(here, *texts)
        got += subscriber.read(1 + number % 3)
        subscriber.resume(wire)
    got += subscriber.read(len(said) - len(got))
    assert got == said


# Time


def test_a_heartbeat_says_where_a_quiet_subscription_stands(lively: Scene, wire: str, here: str) -> None:
    """The cursor is the head of the log, so subscribers of quiet channels keep a recent cursor."""
    subscriber = lively.opened(wire, here, lively.publish(here, "before"))
    elsewhere = lively.publish(f"{here}-elsewhere", "not for it")
    ping = subscriber.event()
    while ping.kind != "ping" or (ping.cursor is not None and sequence(ping.cursor) < sequence(elsewhere)):
        ping = subscriber.event()
    assert ping.cursor in (elsewhere, None)
    lively.publish(here, "next")
    subscriber.resume()
    assert subscriber.read(1) == ["next"]


def test_under_a_request_cap_everyone_comes_back_in_time_and_misses_nothing(tmp_path: Path) -> None:
    for server in running(tmp_path / "state", "--request-cap", "6.5"):
        for scene in scene_on(server):
            cursor = scene.publish("capped", "before")
            subscribers = {wire: scene.subscriber(wire, "capped") for wire in ALL}
            for wire, subscriber in subscribers.items():
                opened = subscriber.open(cursor)
                if WIRES[wire].says_open:
                    assert opened.lifetime in (3, 4, 5)
            for wire, subscriber in subscribers.items():
                if subscriber.is_poll:
                    assert (subscriber.event().kind, subscriber.cursor) == ("ping", cursor)
                    continue
                if WIRES[wire].says_cursor:
                    rotate = subscriber.next()
                    assert (rotate.kind, rotate.cursor) == ("rotate", cursor)
                    assert rotate.retry is not None
                    assert 0 < rotate.retry < 1000
                assert subscriber.until_closed().data in (1012, None)
            scene.publish("capped", "meanwhile")
            for subscriber in subscribers.values():
                subscriber.resume()
                assert subscriber.read(1) == ["meanwhile"]


def test_a_stopping_server_tells_everyone_when_and_where_to_go_on(own: Scene) -> None:
    cursor = own.publish("any", "before")
    subscribers = {wire: own.opened(wire, "any", cursor) for wire in ALL}
    own.server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
    own.server.process.send_signal(signal.SIGTERM)
    own.server.wait_for_log("stopping")
    newcomer = own.opened(
        "eventsource-json", "any", cursor
    )  # a WebSocket that does not say goodbye holds the door open
    for wire, subscriber in {**subscribers, "eventsource-new": newcomer}.items():
        if wire != "websocket-text":
            rotate = subscriber.next()
            assert (rotate.kind, rotate.cursor) == ("rotate", cursor)
            assert rotate.retry is not None
            assert 2000 <= rotate.retry <= 5000
        if not subscriber.is_poll:
            assert subscriber.until_closed().data in (1012, None)
    assert own.server.process.wait(PATIENCE_S) == 0
