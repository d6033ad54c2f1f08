from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from pushcompat.access.patterns import Pattern
from pushcompat.access.policy import Policy
from pushcompat.access.rules import ANYONE, Rule, Rules
from pushcompat.hub.unproven import MOST
from pushcompat.limits import Limits, Retention
from pushcompat.store.memory import MemoryStore

from ..harness import PATIENCE_S
from ..inprocess import LocalHub, running_hub

HEAD = b"POST /channels/a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n"
OPEN = Policy(rules=Rules(default=Rule(Pattern("*"), ANYONE)))


async def begin(hub: LocalHub, count: int) -> list[socket.socket]:
    """Publishes whose bodies are incomplete, one after the other."""
    clients = []
    for number in range(count):
        clients.append(await hub.connect())
        clients[-1].send(HEAD + b"x")
        async with asyncio.timeout(PATIENCE_S):
            while len(hub._requests._unproven) < min(number + 1, MOST):
                await asyncio.sleep(0)
        await hub.until_idle()
    return clients


async def received(client: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), PATIENCE_S)


def test_the_oldest_incomplete_body_makes_room_for_one_more_and_others_are_not_affected() -> None:
    async def work() -> None:
        async with running_hub(MemoryStore(Retention()), Limits()) as hub:
            hub.access.reconfigure(OPEN)
            clients = await begin(hub, MOST + 1)
            assert (await received(clients[0])).startswith(b"HTTP/1.1 503 ")
            for client in clients[1:]:
                client.send(b"x" * 9)
                assert (await received(client)).startswith(b"HTTP/1.1 200 ")
            assert len(hub._requests._unproven) == 0
            for client in clients:
                client.close()

    asyncio.run(work())


def test_a_client_that_has_left_needs_no_room() -> None:
    async def work() -> None:
        async with running_hub(MemoryStore(Retention()), Limits()) as hub:
            hub.access.reconfigure(OPEN)
            for client in await begin(hub, 3):
                client.close()
            await hub.until_idle()
            assert len(hub._requests._unproven) == 0

    asyncio.run(work())


def test_a_client_that_resets_in_the_turn_in_which_its_room_is_needed_is_no_bug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its input was read in that turn, and is handled after its request was refused."""

    async def work() -> None:
        async with running_hub(MemoryStore(Retention()), Limits()) as hub:
            hub.access.reconfigure(OPEN)
            oldest, *others = await begin(hub, MOST)
            for client in (last := await hub.connect()), oldest:
                client.send(HEAD + b"x" if client is last else b"y")
            oldest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            oldest.close()
            await hub.until_idle()
            assert len(hub._requests._unproven) == MOST
            for client in (last, *others):
                client.close()

    asyncio.run(work())
    assert caplog.records == []
