"""The hub as a whole: the log that it follows, connections that come back from Tornado, and how it stops."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from contextlib import closing
from email.utils import parsedate_to_datetime

import pytest

from pushcompat.access.policy import Policy
from pushcompat.hub import hub as module
from pushcompat.hub.connection import State
from pushcompat.hub.peers import UNLIMITED
from pushcompat.limits import Limits, Retention
from pushcompat.message import Message, format_cursor, new_epoch
from pushcompat.metrics import FAMILIES, OF_THE_PROCESS
from pushcompat.store.base import Health, Lost, News, Publish, Retained
from pushcompat.store.memory import MemoryStore
from pushcompat.wire import http

from ..harness import KEY, PATIENCE_S
from ..inprocess import running_hub
from .slow_store import SlowStore
from .stage import Stage, play


def publish(channel: bytes, body: bytes) -> bytes:
    return b"POST /channels/%b HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (
        channel, KEY.encode(), len(body), body,
    )  # fmt: skip


async def response(sock: socket.socket) -> bytes:
    """What comes next; of a JSON document all of it."""
    received = b""
    while not received.endswith(b"}\n"):
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 16), PATIENCE_S)
        assert data, received
        received += data
    return received


async def to_end(sock: socket.socket) -> bytes:
    received = b""
    while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
        received += data
    return received


# The log


def test_the_byte_budget_holds_after_each_publish() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.publish("a")
        for number in range(10):
            await stage.store.publish(Message("a", b"x" * 60_000))  # read at once: no second passes
            assert stage.hub.history.bytes <= 70_000
            assert stage.hub.history.head == number + 2

    play(scenario, Limits(retention=Retention(bytes=70_000)))


def test_a_log_that_is_lost_at_once_again_is_loaded_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    class Losing(MemoryStore):
        follows = 0

        async def follow(self, after: int, epoch: str, news: News) -> None:
            self.follows += 1
            if self.follows <= 9:
                raise Lost
            await super().follow(after, epoch, news)

    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if not 0 <= seconds <= 0.02:  # a turn, or one of the test's
            pauses.append(seconds)
        await sleep(0)

    async def scenario() -> None:
        store = Losing(Retention())
        async with running_hub(store, Limits()) as hub:
            await hub.stop_clock()
            pauses.clear()
            async with asyncio.timeout(PATIENCE_S):
                while store.follows < 10:
                    await sleep(0)
        assert pauses == sorted(pauses)
        assert (pauses[-1], max(pauses)) == (2.0, 2.0)

    monkeypatch.setattr(module.asyncio, "sleep", noted)
    asyncio.run(scenario())


def test_what_was_loaded_keeps_its_epoch_if_the_log_starts_another_one_meanwhile() -> None:
    """Otherwise the hub would follow the new epoch without its messages."""

    class Renewed(MemoryStore):
        renewals = 0

        async def retained(self) -> Retained:
            found = await super().retained()
            if self.renewals < 2:  # during the first load, and during the one that follows from it
                self.renewals += 1
                self._head = 0
                self._log.clear()
                self.epoch = new_epoch()
                self.append([Publish([Message("a", b"%d" % self.renewals)])], lambda outcomes: None)
            return found

    async def scenario() -> None:
        store = Renewed(Retention())
        async with running_hub(store, Limits()) as hub:
            async with asyncio.timeout(PATIENCE_S):
                while not store._followers:
                    await asyncio.sleep(0.01)
            (message,) = hub.history.channel("a").after(0)
            assert (hub.history.epoch, message.data) == (store.epoch, b"2")

    asyncio.run(scenario())


def test_a_task_that_ends_by_itself_fails_the_hub(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        async def follow(self, after: int, epoch: str, news: News) -> None:
            raise ZeroDivisionError

    async def scenario() -> None:
        with pytest.raises(AssertionError):
            async with running_hub(Broken(Retention()), Limits()) as hub:
                await asyncio.wait_for(hub.failed.wait(), PATIENCE_S)

    asyncio.run(scenario())
    assert "BUG: background task ended unexpectedly" in caplog.text


def test_the_gauges_have_the_current_values() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.publish("a", "b", "b")
        await stage.subscribed("websocket-json", "c")
        gauges = stage.hub.gauges()
        assert gauges == {
            "subscribers": 1,
            "presence_processes": 1,
            "connections": 1,
            "max_connections": 7,
            "max_connections_per_address": 3,
            "addresses": 1,
            "channels": 3,
            "retained_messages": 3,
            "retained_bytes": stage.hub.history.bytes,
            "unsent_bytes": 0,
            "admitting": 0,
            "log_last_sequence": 3,
            "idempotency_keys": 0,
            "idempotency_window_seconds": 300.0,
            "log_writable": 1.0,
            "draining": 0,
        }
        of_processes = {"workers", "workers_silent", "workers_replaced", "build_info"}
        of_processes |= {name for name in FAMILIES if name.startswith(OF_THE_PROCESS)}
        assert gauges.keys() == {name for name in FAMILIES if not hasattr(stage.hub.metrics, name)} - of_processes

    play(scenario, Limits(max_connections=7))


# What rests on a verdict


def test_a_revoked_key_ends_publishes_that_are_compared_too() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        send = asyncio.get_running_loop().sock_sendall
        for _ in range(3):
            await send(client.socket, publish(b"a", b"x"))
            assert b"HTTP/1.1 200 OK" in await response(client.socket)
        await stage.hub.reconfigure(Policy([b"another-publish-key"]))
        await send(client.socket, publish(b"a", b"x"))
        assert b"HTTP/1.1 401 " in await asyncio.get_running_loop().sock_recv(client.socket, 1 << 16)
        assert stage.hub.history.count == 3

    play(scenario)


def test_a_server_that_others_can_reach_answers_no_preflight_of_pages_that_were_not_named() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        await asyncio.get_running_loop().sock_sendall(
            client.socket, b"OPTIONS /channels/a HTTP/1.1\r\nHost: h\r\nOrigin: http://localhost:5173\r\n\r\n"
        )
        answer = await asyncio.get_running_loop().sock_recv(client.socket, 1 << 16)
        assert answer.startswith(b"HTTP/1.1 204 ")
        assert b"access-control" not in answer.lower()

    play(scenario)


# Connections that Tornado had


@pytest.mark.parametrize("split", [0, 20, None])
def test_a_request_behind_a_page_is_answered_in_the_next_turn(split: int | None) -> None:
    """Not when the clock starts a turn, which is up to a second later."""
    request = publish(b"a", b"hello")

    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        ours, client = socket.socketpair()
        client.setblocking(False)
        ours.setblocking(False)
        with closing(client):
            stage.hub.take_back(ours, UNLIMITED, request[:split], admin=True)
            if split is not None:
                await asyncio.get_running_loop().sock_sendall(client, request[split:])
            assert b"HTTP/1.1 200 OK" in await response(client)

    play(scenario)


def test_a_poller_that_asks_for_a_page_between_two_polls_still_counts() -> None:
    given: list[socket.socket] = []

    async def scenario() -> None:
        store = MemoryStore(Retention())
        async with running_hub(store, Limits(), lambda sock, *_: given.append(sock)) as hub:
            sock = await hub.connect()
            with closing(sock):
                cursor = format_cursor(store.epoch, 0).encode()
                send = asyncio.get_running_loop().sock_sendall
                await send(sock, b"GET /channels/a?wait=0&cursor=%b HTTP/1.1\r\nHost: h\r\n\r\n" % cursor)
                await response(sock)
                await send(sock, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                async with asyncio.timeout(PATIENCE_S):
                    while not given:
                        await asyncio.sleep(0)
                assert hub.history.subscribers(hub.history.find("a")) == 1
                given[0].close()

    asyncio.run(scenario())


# A log that takes its time


@pytest.mark.parametrize("count", [1, 3])
def test_a_publisher_that_closed_its_side_gets_its_answers_and_then_nothing_is_left_of_it(count: int) -> None:
    async def scenario() -> None:
        store = SlowStore()
        async with running_hub(store, Limits()) as hub:
            sock = await hub.connect()
            with closing(sock):
                await asyncio.get_running_loop().sock_sendall(sock, publish(b"a", b"x") * count)
                sock.shutdown(socket.SHUT_WR)
                received = b""
                for _ in range(count):
                    async with asyncio.timeout(PATIENCE_S):
                        while not store.groups:
                            await asyncio.sleep(0)
                    await hub.until_idle()
                    store.store()
                    received += await response(sock)
                assert received.count(b"HTTP/1.1 200 OK") == count
                assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), PATIENCE_S) == b""
                assert len(hub.sockets) == 0

    asyncio.run(scenario())


def test_a_request_behind_a_publish_that_waits_for_its_turn_at_the_log_is_answered_after_it() -> None:
    """Also where it comes in a read of its own, while the log stores the group before."""

    async def scenario() -> None:
        store = SlowStore()
        async with running_hub(store, Limits()) as hub:
            one, other = await hub.connect(), await hub.connect()
            with closing(one), closing(other):
                send = asyncio.get_running_loop().sock_sendall
                await send(one, publish(b"a", b"1"))
                async with asyncio.timeout(PATIENCE_S):
                    while not store.groups:
                        await asyncio.sleep(0)
                await send(other, publish(b"a", b"2"))
                async with asyncio.timeout(PATIENCE_S):
                    while not hub._publishing.queue:
                        await asyncio.sleep(0)
                await send(other, b"GET /channels/a HTTP/1.1\r\nHost: h\r\n\r\n")
                async with asyncio.timeout(PATIENCE_S):
                    while not any(connection.pending_input for connection in hub.sockets.connections()):
                        await asyncio.sleep(0)
                for _ in range(2):
                    async with asyncio.timeout(PATIENCE_S):
                        while not store.groups:
                            await asyncio.sleep(0)
                    store.store()
                received = b""
                while received.count(b"}\n") < 2:
                    received += await response(other)
                assert received.index(b'{"id":') < received.index(b'{"cursor":')

    asyncio.run(scenario())


def test_a_hub_is_not_ready_while_its_log_has_a_problem_or_it_drains() -> None:
    async def scenario() -> None:
        store = SlowStore()
        async with running_hub(store, Limits(drain_s=0.0)) as hub:
            assert hub.not_ready is None
            store.health = lambda: Health("the disk is full")  # type: ignore[method-assign]
            assert hub.not_ready == "the disk is full"
            await hub.drain()
            assert hub.not_ready == "draining"

    asyncio.run(scenario())


# How it stops


def test_a_stopping_hub_waits_for_publishes_that_the_log_has_not_stored_yet() -> None:
    async def scenario() -> None:
        store = SlowStore()
        async with running_hub(store, Limits()) as hub:
            one, other = await hub.connect(), await hub.connect()
            with closing(one), closing(other):
                send = asyncio.get_running_loop().sock_sendall
                await send(one, publish(b"a", b"1"))
                async with asyncio.timeout(PATIENCE_S):
                    while not store.groups:
                        await asyncio.sleep(0)
                await send(other, publish(b"a", b"2"))
                async with asyncio.timeout(PATIENCE_S):
                    while not hub._publishing.queue:
                        await asyncio.sleep(0)
                draining = asyncio.ensure_future(hub.drain())
                await asyncio.sleep(0)
                assert not draining.done()
                store.store()
                assert b"HTTP/1.1 200 OK" in await response(one)
                assert not draining.done()
                async with asyncio.timeout(PATIENCE_S):
                    while not store.groups:
                        await asyncio.sleep(0)
                store.store()
                assert b"HTTP/1.1 200 OK" in await response(other)
                await draining
                assert not hub._publishing.busy

    asyncio.run(scenario())


def test_a_stopping_hub_answers_publishers_though_its_log_stores_nothing() -> None:
    async def scenario() -> None:
        store = SlowStore()
        async with running_hub(store, Limits(drain_s=0.05)) as hub:
            stored, queued = await hub.connect(), await hub.connect()
            with closing(stored), closing(queued):
                send = asyncio.get_running_loop().sock_sendall
                async with asyncio.timeout(PATIENCE_S):
                    await send(stored, publish(b"a", b"1"))
                    while not store.groups:
                        await asyncio.sleep(0)
                    await send(queued, publish(b"a", b"2"))
                    while not hub._publishing.queue:
                        await asyncio.sleep(0)
                    await hub.drain()
                    unknown, refused = await to_end(stored), await to_end(queued)
                assert not hub._publishing.busy
                assert b"it is not known whether this publish was stored" in unknown
                assert b"nothing was published" in refused
                for answer in (unknown, refused):
                    assert answer.startswith(b"HTTP/1.1 503 ")
                    assert b"\r\nConnection: close\r\n" in answer
                assert not hub._publishing.queue

    asyncio.run(scenario())


def test_a_stopping_hub_ends_every_subscription_and_says_why() -> None:
    async def scenario(stage: Stage) -> None:
        for wire in ("websocket-json", "eventsource-json"):
            await stage.subscribed(wire, "a")
        poller = await stage.subscribed("longpoll-json", "a", wait="20")
        await stage.hub.drain()
        assert (await poller.event()).kind == "rotate"
        assert stage.hub.metrics.unsubscribes["shutdown"] == 2
        states = {c.state for c in stage.hub.sockets.connections()}
        assert not states & {State.STREAMING, State.POLLING}

    play(scenario, Limits(drain_s=0.05))


def test_closing_ends_what_is_left() -> None:
    async def scenario() -> None:
        async with running_hub(MemoryStore(Retention()), Limits()) as hub:
            sock = await hub.connect()
            await asyncio.get_running_loop().sock_sendall(sock, b"GET /channels/a?wait=20 HTTP/1.1\r\nHost: h\r\n\r\n")
            await hub.until_subscribed(sock)
        with closing(sock):
            assert hub.metrics.unsubscribes == {"server_closed": 1}
            assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""

    asyncio.run(scenario())


def test_the_first_answer_of_a_server_has_its_date() -> None:
    http.set_date(0.0)

    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        client = await stage.client()
        await asyncio.get_running_loop().sock_sendall(client.socket, publish(b"a", b"x"))
        head = (await response(client.socket)).decode()
        date = parsedate_to_datetime(re.findall("^Date: (.*)\r$", head, re.MULTILINE)[0])
        assert abs(time.time() - date.timestamp()) < 5

    play(scenario)


def test_publishes_are_counted_and_answered() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.subscribed("websocket-json", "a")
        client = await stage.client()
        await asyncio.get_running_loop().sock_sendall(client.socket, publish(b"a", b"x"))
        answer = json.loads((await response(client.socket)).partition(b"\r\n\r\n")[2])
        assert answer == {"id": format_cursor(stage.store.epoch, 1), "channels": {"a": {"subscribers": 1}}}
        assert (stage.hub.metrics.publishes, stage.hub.metrics.messages) == (1, 1)

    play(scenario)
