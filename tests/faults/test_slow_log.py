"""A log that takes its time: what stands behind a publish waits for it, and nobody else does."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing

import pytest

from pushcompat.limits import Limits

from ..harness import KEY, PATIENCE_S
from ..hub.slow_store import SlowStore
from ..inprocess import LocalHub, running_hub

Scenario = Callable[[SlowStore, LocalHub, ExitStack], Coroutine[None, None, None]]

POLL = b"GET /channels/chat?cursor=earliest&wait=0 HTTP/1.1\r\nHost: h\r\n\r\n"


def publish(body: bytes) -> bytes:
    return b"POST /channels/chat HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (
        KEY.encode(), len(body), body,
    )  # fmt: skip


def run(scenario: Scenario) -> None:
    async def play() -> None:
        store = SlowStore()
        with ExitStack() as stack:
            async with running_hub(store, Limits()) as hub, asyncio.timeout(PATIENCE_S):
                await scenario(store, hub, stack)

    asyncio.run(play())


async def connect(hub: LocalHub, stack: ExitStack) -> socket.socket:
    return stack.enter_context(closing(await hub.connect()))


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def answers(sock: socket.socket, count: int) -> list[bytes]:
    """The bodies of so many answers, and nothing beyond them."""
    received = b""
    bodies: list[bytes] = []
    while len(bodies) < count:
        head, found, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if found and length and len(rest) >= int(length[1]):
            assert head.startswith(b"HTTP/1.1 200 "), head
            bodies.append(rest[: int(length[1])])
            received = rest[int(length[1]) :]
            continue
        data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
        assert data, received
        received += data
    assert received == b""
    return bodies


def nothing_came(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return False


async def group(store: SlowStore) -> None:
    """Waits until the log is given something to store."""
    while not store.groups:
        await asyncio.sleep(0)


def test_a_poll_behind_a_publish_is_answered_after_it_and_has_its_message() -> None:
    async def scenario(store: SlowStore, hub: LocalHub, stack: ExitStack) -> None:
        sock = await connect(hub, stack)
        await send(sock, publish(b"first") + POLL)
        await group(store)
        await hub.until_idle()
        assert nothing_came(sock)
        store.store()
        published, polled = await answers(sock, 2)
        assert b'"id"' in published
        assert b'"first"' in polled

    run(scenario)


def test_publishes_of_one_connection_are_stored_one_after_the_other() -> None:
    async def scenario(store: SlowStore, hub: LocalHub, stack: ExitStack) -> None:
        sock = await connect(hub, stack)
        await send(sock, b"".join(publish(b"%d" % number) for number in range(3)))
        for number in range(3):
            await group(store)
            await hub.until_idle()
            assert [len(publishes) for publishes, _ in store.groups] == [1]
            assert nothing_came(sock)
            store.store()
            await answers(sock, 1)
            assert hub.history.head == number + 1

    run(scenario)


def test_a_publish_that_is_not_stored_yet_delays_no_other_client() -> None:
    async def scenario(store: SlowStore, hub: LocalHub, stack: ExitStack) -> None:
        publisher, poller = await connect(hub, stack), await connect(hub, stack)
        await send(publisher, publish(b"x"))
        await group(store)
        await send(poller, POLL * 3)
        assert all(b'"messages":[]' in body for body in await answers(poller, 3))
        assert nothing_came(publisher)
        store.store()
        await answers(publisher, 1)

    run(scenario)


@pytest.mark.parametrize("behind", [b"", POLL], ids=["a publish", "a publish and a poll"])
def test_a_client_that_closed_its_side_gets_every_answer(behind: bytes) -> None:
    async def scenario(store: SlowStore, hub: LocalHub, stack: ExitStack) -> None:
        sock = await connect(hub, stack)
        await send(sock, publish(b"x") + behind)
        sock.shutdown(socket.SHUT_WR)
        await group(store)
        await hub.until_idle()
        assert nothing_came(sock)
        store.store()
        await answers(sock, 2 if behind else 1)
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
        assert len(hub.sockets) == 0

    run(scenario)


def test_a_publisher_that_vanished_before_its_answer_has_published_all_the_same() -> None:
    async def scenario(store: SlowStore, hub: LocalHub, stack: ExitStack) -> None:
        gone, other = await connect(hub, stack), await connect(hub, stack)
        await send(gone, publish(b"of one who is gone"))
        await group(store)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        await hub.until_idle()
        store.store()
        await hub.until_quiet(1)
        await send(other, POLL)
        assert b"of one who is gone" in (await answers(other, 1))[0]
        assert len(hub.sockets) == 1

    run(scenario)


def test_behind_a_publish_that_has_not_been_given_to_the_log_yet_requests_wait_too() -> None:
    async def scenario(store: SlowStore, hub: LocalHub, stack: ExitStack) -> None:
        one, other = await connect(hub, stack), await connect(hub, stack)
        await send(one, publish(b"1"))
        await group(store)
        await send(other, publish(b"2") + POLL + publish(b"3") + POLL)
        await hub.until_idle()
        assert len(store.groups) == 1
        assert nothing_came(other)
        for number in (1, 2, 3):
            await group(store)
            store.store()
            await hub.until_quiet(number)
        await answers(one, 1)
        _, second, _, third = await answers(other, 4)
        assert (second.count(b'"data"'), third.count(b'"data"')) == (2, 3)

    run(scenario)


# A log that does not answer, or is not read


WAIT_S = 20  # the default


async def refusal(sock: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"}"):
        data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
        assert data, received
        received += data
    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in received
    return received


def test_a_publisher_is_told_after_a_while_that_the_log_has_not_answered() -> None:
    async def scenario(store: SlowStore, hub: LocalHub, stack: ExitStack) -> None:
        sock = await connect(hub, stack)
        await hub.stop_clock()
        await send(sock, publish(b"late"))
        await group(store)
        await hub.let_pass(WAIT_S - 2)
        assert nothing_came(sock)
        await hub.let_pass(3)
        assert b"same Idempotency-Key" in await refusal(sock)
        await send(sock, POLL)  # the connection goes on, and the late answer is nobody's
        assert b'"messages":[]' in (await answers(sock, 1))[0]
        store.store()
        await hub.until_idle()
        assert nothing_came(sock)
        await send(sock, POLL)
        assert b'"late"' in (await answers(sock, 1))[0]
        assert hub.metrics.publishes == 1

    run(scenario)


def test_a_publish_not_passed_to_the_log_in_time_is_not_stored() -> None:
    async def scenario(store: SlowStore, hub: LocalHub, stack: ExitStack) -> None:
        one, other = await connect(hub, stack), await connect(hub, stack)
        await hub.stop_clock()
        await send(one, publish(b"first"))
        await group(store)
        await send(other, publish(b"second"))
        await hub.until_idle()
        await hub.let_pass(WAIT_S + 1)
        assert b"not known" in await refusal(one)
        assert b"nothing was published" in await refusal(other)
        store.store()
        await hub.until_idle()
        assert store.groups == []
        await send(other, POLL)
        polled = (await answers(other, 1))[0]
        assert b'"first"' in polled
        assert b'"second"' not in polled

    run(scenario)


def test_a_stored_publish_is_answered_though_this_process_cannot_read_the_log() -> None:
    class Unread(SlowStore):
        def store(self) -> None:
            followers, self._followers = self._followers, []
            super().store()
            self._followers = followers

    async def scenario() -> None:
        store = Unread()
        with ExitStack() as stack:
            async with running_hub(store, Limits()) as hub, asyncio.timeout(PATIENCE_S):
                await hub.until_idle()
                await hub.stop_clock()
                sock = await connect(hub, stack)
                await send(sock, publish(b"x"))
                await group(store)
                store.store()
                await hub.until_idle()
                assert nothing_came(sock), "who is answered, and asks, would not find it here"
                await hub.let_pass(WAIT_S + 1)
                assert b'-000000000000001"' in (await answers(sock, 1))[0]
                assert hub.metrics.publishes == 1

    asyncio.run(scenario())
