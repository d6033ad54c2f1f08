"""Subscriptions from inside the hub: who counts, where they start, and what they are told when the log is lost."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from pushcompat import logs
from pushcompat.hub import presence as module
from pushcompat.limits import Limits, Retention
from pushcompat.message import Message, format_cursor
from pushcompat.store.base import Retained

from ..harness import client_frame
from ..inprocess import running_hub
from ..parity.lossy import LossyStore
from ..parity.wires import WIRES, Event
from .rig import EPOCH, Lines, MakeRig, Rig
from .stage import LocalClient, Stage, play

KEEPING_FEW = Limits(retention=Retention(count=2))


Entry = tuple[str, dict[str, object]]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """The events that are logged: names, and fields."""
    entries: list[Entry] = []
    monkeypatch.setattr(logs, "_level", logging.DEBUG)
    monkeypatch.setattr(logs, "_write", lambda entry: entries.append((entry[2], entry[3])))
    return entries


# Who counts


def test_a_subscription_counts_until_its_connection_ends() -> None:
    async def scenario(stage: Stage) -> None:
        clients = [await stage.subscribed(wire, "a,b") for wire in ("websocket-json", "eventsource-text")]
        assert stage.hub.metrics.subscriptions == Counter(websocket=1, eventsource=1)
        assert (stage.count("a"), stage.count("b")) == (2, 2)
        for client in clients:
            client.socket.close()
        await stage.until(lambda: stage.hub.subscribers == 0)
        assert (stage.count("a"), stage.count("b")) == (0, 0)

    play(scenario)


def test_a_poller_counts_between_two_polls() -> None:
    async def scenario(stage: Stage) -> None:
        poller = await stage.client()
        await poller.subscribe("longpoll-json", "a")
        cursor = (await poller.event()).cursor or ""
        assert (stage.count("a"), len(stage.hub.history)) == (0, 0)  # it only asked for a cursor
        await poller.subscribe("longpoll-json", "a", cursor=cursor, wait="0")
        await poller.event()
        assert stage.count("a") == 1
        assert stage.hub.metrics.subscriptions == Counter(longpoll=1)

    play(scenario)


def test_a_poller_that_asks_for_other_channels_follows_those_alone() -> None:
    async def scenario(stage: Stage) -> None:
        poller = await stage.client()
        await poller.subscribe("longpoll-json", "a", cursor=stage.head, wait="0")
        await poller.event()
        await poller.subscribe("longpoll-json", "b,c", cursor=stage.head, wait="0")
        await poller.event()
        assert [stage.count(name) for name in "abc"] == [0, 1, 1]
        assert stage.hub.metrics.subscriptions == Counter(longpoll=1)

    play(scenario)


@pytest.mark.parametrize(("wire", "transport"), [("websocket-json", "websocket"), ("eventsource-json", "eventsource")])
def test_a_poller_that_goes_on_as_a_stream_is_counted_as_one(wire: str, transport: str) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        await client.subscribe("longpoll-json", "a", cursor=stage.head, wait="0")
        cursor = (await client.event()).cursor
        assert cursor is not None
        await client.subscribe(wire, "a", cursor=cursor)
        assert (await client.event()).kind == "open"
        assert +stage.hub.metrics.subscriptions == Counter({transport: 1})
        await stage.publish("a")
        assert (await client.event()).data == "a"
        client.socket.close()
        await stage.until(lambda: stage.hub.subscribers == 0)
        assert not any(stage.hub.metrics.subscriptions.values())

    play(scenario)


def test_channels_that_many_visit_once_are_forgotten() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        for number in range(3000):
            await client.subscribe("longpoll-json", f"c{number}", cursor=stage.head, wait="0")
            await client.event()
        assert len(stage.hub.history) == 1
        client.socket.close()
        await stage.until(lambda: stage.hub.subscribers == 0)

    play(scenario)


def test_channels_of_pollers_that_do_not_come_back_are_forgotten_after_a_while() -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(300):
            client = await stage.client()
            await asyncio.get_running_loop().sock_sendall(
                client.socket, b"GET /channels/c%d?cursor=%b&wait=0 HTTP/1.0\r\n\r\n" % (number, stage.head.encode())
            )
            while await asyncio.get_running_loop().sock_recv(client.socket, 1 << 16):
                pass
            client.socket.close()
        assert stage.count("c299") == 1
        stage.hub.timers.now += 11
        stage.hub._subscriptions.tick()
        assert (stage.count("c299"), len(stage.hub.history)) == (0, 0)

    play(scenario)


# How one ends


async def closes(stage: Stage, client: LocalClient) -> None:
    await stage.publish("a")
    await client.until("message")  # all is read: the kernel sends a FIN
    client.socket.close()


async def goes(stage: Stage, client: LocalClient) -> None:
    client.socket.close()


async def resets(stage: Stage, client: LocalClient) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.socket.close()


async def says_goodbye(stage: Stage, client: LocalClient) -> None:
    await send(client, client_frame(0x88, (1001).to_bytes(2, "big")))


async def breaks_the_protocol(stage: Stage, client: LocalClient) -> None:
    await send(client, client_frame(0x81, b"\xff"))


async def asks_for_other_channels(stage: Stage, client: LocalClient) -> None:
    await stage.publish("a")
    await client.until("ping")
    await client.subscribe("longpoll-json", "b", wait="20", client="tab")


async def stays_away(stage: Stage, client: LocalClient) -> None:
    await stage.publish("a")
    await client.until("ping")
    await stage.hub.let_pass(int(Limits().poll_grace_s))


async def asks_for_a_page(stage: Stage, client: LocalClient) -> None:
    await stage.publish("a")
    await client.until("ping")
    await send(client, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")


async def is_refused_as_a_websocket(stage: Stage, client: LocalClient) -> None:
    await stage.publish("a")
    await client.until("ping")
    await client.subscribe("websocket-json", "b,,c")


class Broken(Lines):
    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        raise ZeroDivisionError


async def meets_a_bug(stage: Stage, client: LocalClient) -> None:
    (connection,) = [c for c in stage.hub.sockets.connections() if c.channels]
    connection.encoding = Broken()
    await stage.publish("a")


async def send(client: LocalClient, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(client.socket, data)


@pytest.mark.parametrize(
    ("wire", "params", "act", "reason", "code"),
    [
        ("websocket-json", {}, closes, "client_closed", None),
        ("eventsource-json", {}, closes, "client_closed", None),
        ("longpoll-json", {"wait": "20"}, goes, "client_closed", None),
        ("websocket-json", {}, resets, "connection_reset", None),
        ("websocket-json", {}, says_goodbye, "client_closed", 1001),
        ("websocket-json", {}, breaks_the_protocol, "client_closed", 1007),
        ("longpoll-json", {"wait": "20"}, asks_for_other_channels, "channels_changed", None),
        ("longpoll-json", {"wait": "20"}, stays_away, "left", None),
        ("longpoll-json", {"wait": "20"}, asks_for_a_page, "left", None),
        ("longpoll-json", {"wait": "20"}, is_refused_as_a_websocket, "refused", None),
        ("websocket-json", {}, meets_a_bug, "internal_error", None),
    ],
)
def test_an_end_is_logged_and_counted_with_its_reason(
    logged: list[Entry],
    wire: str,
    params: dict[str, str],
    act: Callable[[Stage, LocalClient], Awaitable[None]],
    reason: str,
    code: int | None,
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        client = await stage.client()
        await stage.until(lambda: len(stage.hub.sockets) == 1)
        await stage.hub.let_pass(2)
        await client.subscribe(wire, "a,a2", client="tab", **params)
        await stage.hub.until_subscribed(client.socket)
        await stage.hub.let_pass(3)
        await act(stage, client)
        await stage.until(lambda: bool(stage.hub.metrics.unsubscribes))
        assert stage.hub.metrics.unsubscribes == {reason: 1}
        transport = wire.partition("-")[0]
        began, ended = [fields for name, fields in logged if name in ("subscribe", "unsubscribe")][:2]
        about = {"channels": ["a", "a2"], "transport": transport, "client": "tab", "address": "127.0.0.1"}
        assert {**began, "channels": list(began["channels"])} == about  # type: ignore[call-overload]
        seconds = 13 if act is stays_away else 3
        assert ended == {**about, "reason": reason, "code": code or ended["code"], "duration_s": seconds}
        assert code is None or ended["code"] == code

    play(scenario, hand_over=lambda sock, *_: sock.close())


def test_a_poller_that_is_not_kept_alive_leaves_with_its_answer_and_may_come_back(logged: list[Entry]) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        await send(client, b"GET /channels/a?wait=20 HTTP/1.0\r\n\r\n")
        await stage.hub.until_subscribed(client.socket)
        await stage.publish("a")
        assert stage.hub.metrics.unsubscribes == {"response_sent": 1}
        assert stage.count("a") == 1
        assert [fields["reason"] for name, fields in logged if name == "unsubscribe"] == ["response_sent"]

    play(scenario)


def test_a_poll_that_was_cut_off_does_not_count_any_more() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.subscribed("longpoll-json", "a", wait="20")
        client.socket.close()
        await stage.until(lambda: bool(stage.hub.metrics.unsubscribes))
        assert stage.count("a") == 0

    play(scenario)


def test_a_poller_that_comes_back_on_another_connection_is_counted_once() -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(3):
            client = await stage.client()
            poll = f"GET /channels/a?wait=0&cursor={stage.head} HTTP/1.0\r\n\r\n"
            await send(client, poll.encode())
            await stage.until(lambda number=number: stage.hub.metrics.unsubscribes.total() == number + 1)  # type: ignore[misc]
            assert stage.count("a") == 1

    play(scenario)


def test_the_number_of_remembered_pollers_without_a_connection_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(8):
            client = await stage.client()
            await send(client, f"GET /channels/c{number}?wait=0&cursor={stage.head} HTTP/1.0\r\n\r\n".encode())
            await stage.until(lambda number=number: stage.hub.metrics.unsubscribes.total() == number + 1)  # type: ignore[misc]
        assert [stage.count(f"c{number}") for number in range(8)] == [0, 0, 0, 1, 1, 1, 1, 1]
        assert len(stage.hub.history) == 5

    monkeypatch.setattr(module, "_MAX_ABSENT", 5)
    play(scenario)


@pytest.mark.parametrize("wire", WIRES)
def test_a_full_server_refuses_subscribers_and_says_when_to_try_again(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        first = await stage.subscribed("longpoll-json", "a", wait="20")
        second = await stage.client()
        await send(second, WIRES[wire]().request("a", {"cursor": stage.head}))
        data = await asyncio.get_running_loop().sock_recv(second.socket, 1 << 16)
        if wire.startswith("websocket"):
            assert (4100).to_bytes(2, "big") + b"the server has reached its maximum number of subscribers" in data
        else:
            assert data.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 5\r\n" in data
        assert stage.hub.subscribers == 1
        await stage.publish("a")
        await first.until("ping")
        await first.subscribe("longpoll-json", "a", cursor=stage.head)  # it has a place
        await stage.publish("a")
        assert (await first.event()).data == "a"

    play(scenario, Limits(max_connections=2))


# The log is lost


@pytest.mark.parametrize("wire", [name for name, wire in WIRES.items() if wire.says_cursor])
@pytest.mark.parametrize("names", ["a", "a,b"])
@pytest.mark.parametrize("start", ["now", "earliest", "cursor"])
def test_when_the_log_becomes_another_one_everyone_is_told(wire: str, names: str, start: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.publish("b", *"aaa")
        cursor = await stage.publish("a")
        params = {"now": {"wait": "20"}, "earliest": {"cursor": "earliest"}, "cursor": {"cursor": cursor}}[start]
        client = await stage.subscribed(wire, names, **params)
        if start == "earliest" and wire == "longpoll-json":
            await client.until("ping")
            await client.subscribe(wire, names, cursor=cursor)
            await stage.until(lambda: any(c.expires_at < 1 << 59 for c in stage.hub.sockets.connections()))
        stage.store.fail_over(3)
        reset = await client.until("reset")
        assert reset.channels == tuple(names.split(","))
        assert reset.cursor == format_cursor(stage.store.epoch, stage.store.last)
        await stage.publish("a")
        if wire == "longpoll-json":
            await client.subscribe(wire, names, cursor=reset.cursor)
        assert (await client.until("message")).data == "a"

    play(scenario, KEEPING_FEW)


def test_a_subscription_from_the_earliest_is_reset_when_the_log_becomes_another_one() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.subscribed("websocket-json", "a,b", cursor="earliest")
        await stage.publish("a")
        assert (await client.until("message")).data == "a"
        stage.store.fail_over(1)
        assert (await client.event()).channels == ("a", "b")

    play(scenario)


def test_when_the_log_becomes_another_one_during_a_pass_everyone_is_told_too() -> None:
    async def scenario(stage: Stage) -> None:
        crowd = [await stage.subscribed("websocket-json", "a") for _ in range(20)]
        channel = stage.hub.history.channel("a")
        await stage.store.publish(*(Message("a", b"x") for _ in range(5)))
        await stage.until(lambda: channel.to_visit is not None and channel.dirty)
        stage.store.fail_over(4)
        for client in crowd:
            assert (await client.until("reset")).channels == ("a",)

    play(scenario, Limits(max_visits=4))


def test_a_subscriber_that_missed_trimmed_messages_gets_a_reset() -> None:
    async def scenario(stage: Stage) -> None:
        cursor = await stage.publish("a", "b")
        clients = {wire: await stage.subscribed(wire, "a,b", cursor=cursor) for wire in WIRES}
        stage.store.trim_before_read(5)
        for wire, client in clients.items():
            if wire == "websocket-text":
                assert (await client.until("message")).data == "UPDATED"
                continue
            reset = await client.until("reset")
            assert (reset.channels, reset.cursor) == (("a", "b"), format_cursor(stage.store.epoch, 7))
        again = await stage.subscribed("eventsource-json", "a,b", cursor=cursor)
        assert (await again.until("reset")).channels == ("a", "b")

    play(scenario)


def test_when_nothing_was_lost_nobody_is_told() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.publish("quiet")
        cursor = await stage.publish(*["busy"] * 5)
        clients = [await stage.subscribed("websocket-json", names, cursor=cursor) for names in ("quiet", "quiet,busy")]
        stage.store.lose_position()
        await stage.until(lambda: stage.store.is_told)
        await stage.publish("quiet")
        for client in clients:
            assert (await client.event()).kind == "open"
            assert (await client.event()).data == "quiet"

    play(scenario, KEEPING_FEW)


def test_a_subscriber_of_a_quiet_channel_is_not_told_of_a_global_floor_that_rose_since_its_last_message() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.subscribed("websocket-json", "quiet")
        await stage.publish(*["busy"] * 5)
        stage.store._floor = 3  # floors of many channels were merged
        stage.store.lose_position()
        await stage.until(lambda: stage.store.is_told)
        await stage.publish("quiet")
        assert (await client.event()).kind == "open"
        assert (await client.event()).data == "quiet"

    play(scenario, KEEPING_FEW)


def test_a_start_does_not_bring_back_what_was_over_before() -> None:
    async def scenario() -> None:
        store = LossyStore(Retention())
        await store.publish(Message("a", b"1"), Message("a", b"2", ttl_s=60.0), Message("b", b"3", ttl_s=60.0))
        store.grow_older(61)
        async with running_hub(store, Limits()) as hub:
            stage = Stage(hub, store)
            client = await stage.client()
            await client.subscribe("longpoll-json", "a,b")
            assert (await client.event()).cursor == format_cursor(store.epoch, 3)
            await stage.publish("b")
            await client.subscribe("longpoll-json", "a,b", cursor="earliest")
            assert [(await client.event()).data for _ in "1b"] == ["1", "b"]
            assert (await client.event()).cursor == format_cursor(store.epoch, 4)
            stage.close()

    asyncio.run(scenario())


def test_a_log_that_becomes_another_one_while_it_is_loaded_is_called_what_it_is() -> None:
    class Hasty(LossyStore):
        async def retained(self) -> Retained:
            self.fail_over(1)
            return await super().retained()

    async def scenario() -> None:
        store = Hasty(Retention())
        earlier = store.epoch
        await store.publish(Message("a", b"1"), Message("a", b"2"))
        async with running_hub(store, Limits()) as hub:
            stage = Stage(hub, store)
            client = await stage.subscribed("longpoll-json", "a", cursor=format_cursor(earlier, 1))
            assert await client.event() == Event("reset", format_cursor(store.epoch, 1), channels=("a",))
            stage.close()

    asyncio.run(scenario())


def test_a_start_brings_back_what_the_store_has_and_resets_no_quiet_channel() -> None:
    async def scenario() -> None:
        store = LossyStore(KEEPING_FEW.retention)
        await store.publish(Message("quiet", b"1"), Message("quiet", b"2"))
        await store.publish(*(Message("busy", b"x") for _ in range(50)))
        async with running_hub(store, KEEPING_FEW) as hub:
            stage = Stage(hub, store)
            client = await stage.subscribed("longpoll-json", "quiet", cursor=format_cursor(store.epoch, 1))
            assert (await client.event()).data == "2"
            assert (await client.event()).cursor == format_cursor(store.epoch, 52)
            await client.subscribe("longpoll-json", "quiet,busy", cursor="earliest")
            assert [(await client.event()).data for _ in range(4)] == ["1", "2", "x", "x"]
            stage.close()

    asyncio.run(scenario())


def test_client_ids_are_truncated() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.subscribed("websocket-json", "a", client="x" * 5000)
        (connection,) = [c for c in stage.hub.sockets.connections() if c.channels]
        assert connection.client == "x" * 64

    play(scenario)


# The cursor that a subscription is given


def test_the_cursor_of_a_subscriber_is_the_head_of_the_log_or_before_its_backlog(rig: Rig) -> None:
    subscriber = rig.subscribe("a", "c")
    rig.publish("b", "b")
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 2)
    rig.publish("b", "c", "a")
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 3)
    rig.run()
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 5)


def test_the_cursor_of_a_subscriber_with_a_backlog_is_where_its_bytes_end(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=1)
    rig.publish(*"aba", data=b"x")
    subscriber = rig.subscribe("a", "b", cursor=0)
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["1x"]
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 1)


def test_a_cursor_ahead_of_the_log_stays_there(rig: Rig) -> None:
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
