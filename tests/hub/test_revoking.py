"""What a revocation ends: streams, held polls, and clients between two polls; of whom it names, and of nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from pushcompat.access.patterns import Pattern
from pushcompat.access.policy import Policy
from pushcompat.access.revocations import Target
from pushcompat.access.rules import Rule, Rules, Subscribe
from pushcompat.errors import Unauthorized
from pushcompat.hub.connection import State
from pushcompat.message import Message

from ..harness import KEY
from ..parity.wires import CLOSED
from . import stage as stages
from .stage import LocalClient, Stage


class Claims(NamedTuple):
    sub: str
    jti: str
    channels: tuple[Pattern, ...]
    until: float
    issued_at: float | None


class Verifier:
    """Tokens are ``sub.jti``, or ``sub.jti.seconds`` with the age of the token."""

    def verify(self, token: bytes, now: float) -> Claims:
        sub, _, rest = token.decode().partition(".")
        jti, _, age = rest.partition(".")
        if not jti:
            raise Unauthorized("not a token of this test")
        return Claims(sub, jti, (Pattern("*"),), now + 3600, now - float(age) if age else None)

    def trusts(self, claims: object) -> bool:
        return True


RULES = Rules((Rule(Pattern("open"), subscribe=Subscribe.OPEN),), Rule(Pattern("*"), subscribe=Subscribe.TOKEN))


def play(scenario: Callable[[Stage], Awaitable[None]]) -> None:
    async def with_tokens(stage: Stage) -> None:
        await stage.hub.reconfigure(Policy([KEY.encode()], rules=RULES, tokens=Verifier()))
        await scenario(stage)

    stages.play(with_tokens)


async def ends(client: LocalClient, wire: str = "eventsource-json") -> None:
    """Reads ``expired`` and the end that the transport has for it."""
    await client.until("expired")
    if wire.startswith("websocket"):
        closed = await client.event()
        assert (closed.kind, closed.data) == ("closed", 4401)
    else:
        assert await client.ended() == CLOSED


async def revoke(stage: Stage, expires_s: float = 3600.0, **target: str) -> None:
    await stage.hub.publish([stage.hub.access.revocations.message(Target(**target), expires_s)])


async def status(client: LocalClient, request: str) -> int:
    """Of the answer to a request on this connection."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client.socket, request.encode())
    head = await loop.sock_recv(client.socket, 1 << 16)
    return int(head.split()[1])


def poll(names: str, token: str, **params: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in {"token": token, **params}.items())
    return f"GET /channels/{names}?{query} HTTP/1.1\r\nHost: h\r\n\r\n"


async def refused(stage: Stage, names: str, token: str) -> bool:
    return await status(await stage.client(), poll(names, token)) == 401


@pytest.mark.parametrize("wire", ["websocket-json", "eventsource-json"])
def test_a_stream_ends_with_expired_in_the_turn_of_the_revocation(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        ann = await stage.subscribed(wire, "a", token="ann.1")
        bob = await stage.subscribed(wire, "a", token="bob.2")
        await revoke(stage, sub="ann")
        await stage.publish("a")
        await ends(ann, wire)
        await bob.until("message")
        assert stage.count("a") == 1
        assert stage.hub.metrics.unsubscribes == Counter({"expired": 1})

    play(scenario)


@pytest.mark.parametrize(
    ("target", "ended"),
    [
        ({"sub": "ann"}, ["ann.1 a", "ann.2 b"]),
        ({"jti": "2"}, ["ann.2 b"]),
        ({"channel": "a"}, ["ann.1 a", "bob.3 a", "bob.4 a,b"]),
        ({"sub": "bob", "channel": "b"}, ["bob.4 a,b"]),
        ({"sub": "bob", "jti": "1"}, []),
        ({"sub": "ann", "jti": "1", "channel": "a"}, ["ann.1 a"]),
    ],
)
def test_a_revocation_ends_what_it_names_and_nothing_else(target: dict[str, str], ended: list[str]) -> None:
    everyone = ["ann.1 a", "ann.2 b", "bob.3 a", "bob.4 a,b"]

    async def scenario(stage: Stage) -> None:
        clients = {}
        for who in everyone:
            token, names = who.split()
            clients[who] = await stage.subscribed("eventsource-json", names, token=token)
        await revoke(stage, **target)
        await stage.hub.until_idle()
        streams = [c for c in stage.hub.sockets.connections() if c.state is State.STREAMING]
        assert len(streams) == len(everyone) - len(ended)
        for who in ended:
            await ends(clients[who], "eventsource-json")
        for who in everyone:
            token, names = who.split()
            assert await refused(stage, names, token) == (who in ended)

    play(scenario)


def test_a_held_poll_is_answered_and_the_next_one_refused() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        await client.subscribe("longpoll-json", "a", token="ann.1", wait="20")
        await stage.hub.until_subscribed(client.socket)
        await revoke(stage, sub="ann")
        assert (await client.event()).kind == "ping"
        assert stage.count("a") == 0
        assert await status(client, poll("a", "ann.1")) == 401

    play(scenario)


def test_a_client_between_two_polls_is_no_subscriber_any_more_and_its_repeat_is_refused() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        request = poll("a", "ann.1", cursor=stage.head)
        await stage.publish("a")
        assert await status(client, request) == 200
        assert stage.count("a") == 1
        (connection,) = stage.hub.sockets.connections()
        assert connection.poll_template is not None
        await revoke(stage, sub="ann")
        assert stage.count("a") == 0
        assert await status(client, request) == 401

    play(scenario)


def test_a_poller_that_publishes_between_two_polls_is_refused_its_next_poll() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        request = poll("a", "ann.1", cursor=stage.head)
        await stage.publish("a")
        assert await status(client, request) == 200
        head = f"POST /channels/b HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client.socket, head.encode())
        (connection,) = stage.hub.sockets.connections()
        await stage.until(lambda: connection.state is State.READING_BODY)
        await revoke(stage, sub="ann")
        assert stage.count("a") == 0
        assert await status(client, "x") == 200
        assert await status(client, request) == 401

    play(scenario)


@pytest.mark.parametrize("client_id", ["", "tab"])
def test_pollers_without_a_connection_are_no_subscribers_any_more(client_id: str) -> None:
    async def scenario(stage: Stage) -> None:
        clients = {who: await stage.client() for who in ("ann", "bob")}
        start = stage.head
        await stage.publish("a")
        for who, client in clients.items():
            more = {"client": f"{client_id}{who}"} if client_id else {}
            assert await status(client, poll("a", f"{who}.1", cursor=start, **more)) == 200
        for client in clients.values():
            client.socket.close()
        await stage.until(lambda: not list(stage.hub.sockets.connections()))
        assert stage.count("a") == 2
        await revoke(stage, sub="ann")
        assert stage.count("a") == 1
        await stage.hub.stop_clock()
        await stage.hub.let_pass(12)
        assert stage.count("a") == 0

    play(scenario)


def test_a_token_that_was_issued_later_is_not_ended_and_one_that_does_not_say_is() -> None:
    async def scenario(stage: Stage) -> None:
        await revoke(stage, sub="ann")
        later = await stage.subscribed("eventsource-json", "a", token="ann.1.-5")
        assert await refused(stage, "a", "ann.2.1")
        assert await refused(stage, "a", "ann.3")
        await revoke(stage, sub="bob")
        await stage.publish("a")
        await later.until("message")

    play(scenario)


def test_a_revoked_channel_is_closed_to_those_without_a_token_too() -> None:
    async def scenario(stage: Stage) -> None:
        anonymous = await stage.subscribed("eventsource-json", "open")
        other = await stage.subscribed("eventsource-json", "a", token="ann.1")
        await revoke(stage, channel="open")
        await ends(anonymous, "eventsource-json")
        client = await stage.client()
        assert await status(client, "GET /channels/open HTTP/1.1\r\nHost: h\r\n\r\n") == 401
        await stage.publish("a")
        await other.until("message")

    play(scenario)


def test_a_subscriber_that_reads_nothing_is_cut_off() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.subscribed("eventsource-json", "a", token="ann.1")
        (connection,) = stage.hub.sockets.connections()
        while connection.unsent is None:
            await stage.hub.publish([Message("a", b"x" * 50_000, key="k")])
        await revoke(stage, sub="ann")
        assert connection.state is State.CLOSED

    play(scenario)


def test_a_revocation_by_another_process_ends_connections_here() -> None:
    async def scenario(stage: Stage) -> None:
        ann = await stage.subscribed("eventsource-json", "a", token="ann.1")
        await stage.store.publish(stage.hub.access.revocations.message(Target("ann"), 3600.0))
        await ends(ann, "eventsource-json")

    play(scenario)


def test_a_revocation_that_is_found_when_the_log_is_read_again_ends_what_it_names() -> None:
    async def scenario(stage: Stage) -> None:
        ann = await stage.subscribed("eventsource-json", "a", token="ann.1")
        bob = await stage.subscribed("eventsource-json", "a", token="bob.1")
        retained = await stage.store.retained()
        message = stage.hub.access.revocations.message(Target("ann"), 3600.0)
        message.sequence, message.time_ms = retained.head + 1, 4_000_000_000_000

        async def found() -> object:
            return retained._replace(messages=[*retained.messages, message], head=message.sequence)

        stage.store.retained = found  # type: ignore[method-assign, assignment]
        await stage.hub._start_over()
        await ends(ann, "eventsource-json")
        assert stage.count("a") == 1
        assert bob.socket.fileno() >= 0

    play(scenario)


def test_many_connections_are_looked_at_in_several_turns_and_none_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushcompat.hub.revoking._TURN_S", 0.0)
    monkeypatch.setattr("pushcompat.hub.revoking._AT_ONCE", 1)

    async def scenario(stage: Stage) -> None:
        clients = [await stage.subscribed("eventsource-json", "a", token=f"{n % 3}.{n}") for n in range(12)]
        await revoke(stage, sub="0")
        await revoke(stage, sub="1")
        for n, client in enumerate(clients):
            if n % 3 < 2:
                await ends(client, "eventsource-json")
        assert stage.count("a") == 4

    play(scenario)
