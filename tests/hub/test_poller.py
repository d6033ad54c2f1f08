"""Both pollers, the one for Linux and the one for everywhere else, keep the same promises."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from pushcompat.hub.connection import Connection
from pushcompat.hub.poller import (
    HANGUP,
    READ,
    WRITE,
    EpollPoller,
    LoopPoller,
    Poller,
    SelectorPoller,
    make_poller,
)
from pushcompat.hub.selector import LoopSelector

from ..harness import PATIENCE_S

POLLERS = [SelectorPoller, *([EpollPoller] if hasattr(select, "epoll") else [])]


@pytest.fixture(params=POLLERS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller[Connection]]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Connection(ours, 0), theirs


def test_input_from_before_a_socket_is_watched_is_reported(
    poller: Poller[Connection], pair: tuple[Connection, socket.socket]
) -> None:
    connection, theirs = pair
    theirs.send(b"x")
    poller.watch(connection, READ)
    ((reported, events),) = poller.ready()
    assert reported is connection
    assert events & READ


def test_a_socket_that_is_watched_anew_is_reported_anew(
    poller: Poller[Connection], pair: tuple[Connection, socket.socket]
) -> None:
    connection, theirs = pair
    poller.watch(connection, READ)
    assert poller.ready() == []
    poller.watch(connection, WRITE)
    assert poller.ready()[0][1] & WRITE
    theirs.send(b"x")
    poller.watch(connection, READ)
    assert poller.ready()[0][1] & READ


def test_a_forgotten_socket_is_not_reported_and_can_be_watched_again(
    poller: Poller[Connection], pair: tuple[Connection, socket.socket]
) -> None:
    connection, theirs = pair
    poller.watch(connection, READ)
    poller.forget(connection)
    theirs.send(b"x")
    assert (poller.ready(), poller.watched()) == ([], [])
    poller.watch(connection, READ)
    assert poller.watched() == [connection]
    assert len(poller.ready()) == 1


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll is Linux's")
def test_an_end_that_came_with_the_last_bytes_is_told_with_them(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    poller: EpollPoller[Connection] = EpollPoller()
    theirs.send(b"x")
    theirs.shutdown(socket.SHUT_WR)
    poller.watch(connection, READ)
    assert poller.ready()[0][1] & HANGUP  # nothing else would be: an edge is told once
    assert poller.ready() == []
    poller.close()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="needs epoll")
def test_a_socket_that_is_reported_twice_before_it_is_read_is_ready_once(
    pair: tuple[Connection, socket.socket],
) -> None:
    """A turn that has others to read first leaves it for later; meanwhile its client may end."""
    connection, theirs = pair
    selector = LoopSelector()
    poller: LoopPoller[Connection] = LoopPoller(selector)
    poller.start(lambda: None)
    poller.watch(connection, READ)
    theirs.send(b"x")
    selector.select(0)
    theirs.shutdown(socket.SHUT_WR)
    selector.select(0)
    ((found, events),) = poller.ready()
    assert found is connection
    assert events & (READ | HANGUP) == READ | HANGUP
    poller.close()
    selector.close()


# With an event loop


def run(kind: str, scenario: Callable[[Poller[Any]], Awaitable[None]]) -> None:
    """With a poller of that kind on an event loop that suits it."""
    selector = LoopSelector() if kind == "loop" else None
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:

        async def with_poller() -> None:
            if kind == "selector":
                poller: Poller[Any] = SelectorPoller()
            else:
                poller = make_poller(selector)
                assert isinstance(poller, LoopPoller if kind == "loop" else EpollPoller)
            async with asyncio.timeout(PATIENCE_S):
                await scenario(poller)

        runner.run(with_poller())


KINDS = ["selector", *(["epoll", "loop"] if hasattr(select, "epoll") else [])]


@pytest.mark.parametrize("kind", KINDS)
def test_the_event_loop_calls_back_when_sockets_are_ready(kind: str, pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair

    async def scenario(poller: Poller[Any]) -> None:
        news = asyncio.Event()
        reported: list[Connection] = []

        def on_ready() -> None:
            reported.extend(watched for watched, _ in poller.ready())
            connection.socket.recv(100)
            news.set()

        poller.start(on_ready)
        poller.watch(connection, READ)
        assert len(poller) == 1
        for count in (1, 2, 3):
            theirs.send(b"x")
            await news.wait()
            news.clear()
            assert reported == [connection] * count
        poller.forget(connection)
        assert len(poller) == 0
        poller.close()

    run(kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_the_event_loops_own_sockets_and_timers_go_on_beside_the_pollers(
    kind: str, pair: tuple[Connection, socket.socket]
) -> None:
    connection, theirs = pair

    async def scenario(poller: Poller[Any]) -> None:
        loop = asyncio.get_running_loop()
        poller.start(poller.ready)
        poller.watch(connection, READ)
        ours, others = socket.socketpair()
        ours.setblocking(False)
        others.setblocking(False)
        with ours, others:
            for number in range(20):
                theirs.send(b"x")
                others.send(b"%d" % number)
                assert await loop.sock_recv(ours, 10) == b"%d" % number
            filled = loop.create_task(loop.sock_sendall(ours, b"x" * 5_000_000))
            received = 0
            while received < 5_000_000:
                received += len(await loop.sock_recv(others, 1 << 20))
            await filled
            before = loop.time()
            await asyncio.sleep(0.02)
            assert loop.time() - before >= 0.02
        poller.close()
        await asyncio.sleep(0)

    run(kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_poller_calls_nobody_back(kind: str, pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair

    async def scenario(poller: Poller[Any]) -> None:
        called: list[int] = []
        poller.start(lambda: called.append(1))
        poller.watch(connection, READ)
        poller.forget(connection)
        poller.close()
        theirs.send(b"x")
        await asyncio.sleep(0.001)
        assert called == []

    run(kind, scenario)
