"""Subscribe requests that wait: for the signature of their token, or for the application."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from pushcompat.access.patterns import Pattern
from pushcompat.access.policy import Policy
from pushcompat.access.questions import Answer, OnAnswer, Outcome, Question, Questions
from pushcompat.access.revocations import Target
from pushcompat.access.rules import Rule, Rules, Subscribe
from pushcompat.errors import Forbidden, Unauthorized, Unavailable
from pushcompat.hub import admission as module
from pushcompat.hub.connection import Connection, State
from pushcompat.limits import Limits

from ..access.test_subscribers import Claims
from ..harness import KEY, PATIENCE_S, client_frame
from ..machine import interpreted_only
from .stage import LocalClient, Stage, play

WIRES = ["websocket-json", "eventsource-json", "longpoll-json"]
RULES = Rules(
    (Rule(Pattern("t.*"), subscribe=Subscribe.TOKEN), Rule(Pattern("app.*"), subscribe=Subscribe.ASK)),
)
POLL = b"GET /channels/%b HTTP/1.1\r\nHost: test\r\n\r\n"
PUBLISH = b"POST /channels/a HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"


class Tokens:
    """Tokens that begin with ``good`` are valid. Verifying takes ``cost_s`` by the clock of the admission."""

    def __init__(self) -> None:
        self.cost_s = 0.0
        self.time_s = 100.0
        self.verified: list[str] = []
        self.on_verify: Callable[[], None] = lambda: None

    def verify(self, token: bytes, now: float) -> Claims:
        self.time_s += self.cost_s
        self.verified.append(token.decode())
        self.on_verify()
        if not token.startswith(b"good"):
            raise Unauthorized("wrong")
        return Claims(channels=(Pattern("*"),), until=now + 1000)

    def trusts(self, claims: object) -> bool:
        return True

    def clock(self) -> float:
        return self.time_s


class Application:
    def __init__(self) -> None:
        self.asked: list[tuple[Question, OnAnswer]] = []

    def ask(self, question: Question, on_answer: OnAnswer) -> None:
        self.asked.append((question, on_answer))

    def answer(self, outcome: Outcome) -> None:
        question, on_answer = self.asked.pop(0)
        on_answer(question, outcome)


class Desk:
    """A hub that admits by token and by asking."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.hub = stage.hub
        self.admission = stage.hub._admission
        self.tokens = Tokens()
        self.application = Application()
        subscribers = stage.hub.access.subscribers
        subscribers.configure(RULES, self.tokens)
        subscribers._questions = Questions(self.application, 4, 60, 60)
        self.admission._clock = self.tokens.clock
        self.admission._saved_at = self.tokens.time_s

    async def asked(self, count: int = 1) -> None:
        await self.stage.until(lambda: len(self.application.asked) == count)

    async def sent(self, data: bytes) -> socket.socket:
        sock = (await self.stage.client()).socket
        await asyncio.get_running_loop().sock_sendall(sock, data)
        return sock


def admitting(stage: Stage) -> list[Connection]:
    return [connection for connection in stage.hub.sockets.connections() if connection.state is State.ADMITTING]


async def received(sock: socket.socket, until: bytes = b"\r\n\r\n") -> bytes:
    data = b""
    while until not in data:
        data += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 16), PATIENCE_S)
    return data


@pytest.mark.parametrize("wire", WIRES)
def test_a_subscriber_is_admitted_once_its_token_is_verified(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        client = await stage.subscribed(wire, "t.1", token="good", cursor="earliest")
        await stage.publish("t.1")
        assert (await client.until("message")).channel == "t.1"
        assert desk.tokens.verified == ["good"]
        assert stage.hub.metrics.verifications == 1
        assert len(desk.admission) == 0

    play(scenario)


@pytest.mark.parametrize("wire", WIRES)
def test_a_subscriber_is_admitted_once_the_application_has_answered(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        client = await stage.client()
        await client.subscribe(wire, "app.1", cursor="earliest")
        await desk.asked()
        assert (len(desk.admission), stage.hub.gauges()["admitting"]) == (1, 1)
        assert len(admitting(stage)) == 1
        desk.application.answer(Answer())
        await stage.hub.until_subscribed(client.socket)
        await stage.publish("app.1")
        assert (await client.until("message")).channel == "app.1"
        assert len(desk.admission) == 0

    play(scenario)


def test_who_is_revoked_while_the_application_is_asked_is_asked_about_again() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        client = await stage.client()
        await client.subscribe("eventsource-json", "app.1")
        await desk.asked()
        await stage.hub.publish([stage.hub.access.revocations.message(Target("ann"), 60.0)])
        desk.application.answer(Answer(sub="ann"))
        assert len(desk.application.asked) == 1
        assert len(admitting(stage)) == 1
        desk.application.answer(Unauthorized("logged out"))
        assert b"401" in await received(client.socket)

    play(scenario)


@pytest.mark.parametrize(
    ("outcome", "status"), [(Unauthorized("no"), b"401"), (Forbidden("no"), b"403"), (Unavailable("no"), b"503")]
)
def test_a_refusal_of_the_application_is_the_clients(outcome: Outcome, status: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        sock = await desk.sent(POLL % b"app.1")
        await desk.asked()
        desk.application.answer(outcome)
        answer = await received(sock)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (b"Retry-After: " in answer) == (status == b"503")
        assert b"Connection: keep-alive" in answer
        assert [c.state for c in stage.hub.sockets.connections()] == [State.READING_HEAD]

    play(scenario)


def test_polls_do_not_flood_the_application() -> None:
    """A poll on the same connection is compared; one on another is decided by the answer that is kept."""

    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        first = await stage.client()
        await first.subscribe("longpoll-json", "app.1", cursor=stage.head)
        await desk.asked()
        desk.application.answer(Answer())
        await stage.hub.until_subscribed(first.socket)
        for number in range(20):
            await stage.publish("app.1")
            client = first if number % 2 else await stage.client()
            if number:
                await client.subscribe("longpoll-json", "app.1", cursor=stage.head, wait="0.1")
            assert (await (client if number else first).event()).kind in ("message", "ping")
            while first._events:
                first._events.popleft()
        assert desk.application.asked == []

    play(scenario)


# While it waits


def test_requests_behind_one_that_waits_are_answered_after_it_in_order() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        publish = PUBLISH + b"Content-Length: 1\r\n\r\nx"
        sock = await desk.sent(POLL % b"app.1" + publish)
        await desk.asked()
        await asyncio.get_running_loop().sock_sendall(sock, publish)
        await stage.hub.until_idle()
        assert len(admitting(stage)) == 1
        desk.application.answer(Answer())
        answers = await received(sock, b"000000000000002")
        assert answers.count(b"HTTP/1.1 200 OK") == 3
        assert answers.index(b'"messages":[]') < answers.index(b'"channels"')

    play(scenario)


def test_a_client_that_sends_too_much_while_it_waits_is_read_again_after_it() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        sock = await desk.sent(POLL % b"app.1")
        await desk.asked()
        flood = (POLL % b"b") * 1000
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(sock, flood))
        await stage.until(lambda: len(stage.hub.sockets._paused) == 1)
        (connection,) = admitting(stage)
        assert len(connection.pending_input) < 3 * 16 * 1024
        desk.application.answer(Answer())
        answered = 0
        while answered < 1001:
            answered += (await received(sock, b"HTTP/1.1 200 OK")).count(b"HTTP/1.1 200 OK")
        await sending

    play(scenario)


def test_a_ping_that_came_with_the_handshake_is_answered_when_it_is_admitted() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        handshake = (
            b"GET /channels/app.1 HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        sock = await desk.sent(handshake + client_frame(0x89, b"early"))
        await desk.asked()
        await asyncio.get_running_loop().sock_sendall(sock, client_frame(0x89, b"later"))
        await stage.hub.until_idle()
        desk.application.answer(Answer())
        assert b"\r\n\r\n\x8a\x05later" in await received(sock, b"later")

    play(scenario)


def test_a_websocket_that_sends_too_much_while_it_waits_is_read_again_after_it() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        client = await stage.client()
        await client.subscribe("websocket-json", "app.1")
        await desk.asked()
        send = asyncio.get_running_loop().sock_sendall
        sending = asyncio.create_task(send(client.socket, client_frame(0x81, b"x" * 100) * 500))
        await stage.until(lambda: len(stage.hub.sockets._paused) == 1)
        desk.application.answer(Answer())
        await client.until("open")
        await sending
        await send(client.socket, client_frame(0x89, b"still here"))
        assert b"still here" in await received(client.socket, b"still here")

    play(scenario, Limits(stream_input_bytes=1 << 20))


@pytest.mark.parametrize("channel", [b"app.1", b"t.1?token=good"])
def test_a_client_that_leaves_while_it_waits_is_forgotten(channel: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        desk.admission._saved_s = -1e9  # no time to verify anything
        sock = await desk.sent(POLL % channel)
        await stage.until(lambda: len(desk.admission) == 1)
        sock.close()
        await stage.until(lambda: len(stage.hub.sockets) == 0)
        assert len(desk.admission) == 0
        assert (desk.admission._queue, desk.admission._later, desk.admission._bytes) == ({}, {}, 0)
        if desk.application.asked:
            desk.application.answer(Answer())
        await stage.hub.until_idle()
        assert stage.hub.subscribers == 0

    play(scenario)


@pytest.mark.parametrize("channel", [b"app.1", b"t.1?token=good"])
def test_who_waits_for_too_long_is_told_to_come_again(channel: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        desk = Desk(stage)
        desk.admission._saved_s = -1e9
        sock = await desk.sent(POLL % channel)
        await stage.until(lambda: len(desk.admission) == 1)
        await stage.hub.let_pass(4)
        assert len(desk.admission) == 1
        await stage.hub.let_pass(10)
        answer = await received(sock)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 5\r\n" in answer
        assert (b"the application has not answered" in answer) == channel.startswith(b"app")
        assert stage.hub.metrics.refused["unavailable", "503"] == 1
        if desk.application.asked:
            desk.application.answer(Answer())
        assert [c.state for c in stage.hub.sockets.connections()] == [State.READING_HEAD]

    play(scenario)


def test_a_websocket_that_waits_for_too_long_is_closed_with_4100() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        Desk(stage)
        client = await stage.client()
        await client.subscribe("websocket-json", "app.1")
        await stage.until(lambda: len(admitting(stage)) == 1)
        await stage.hub.let_pass(20)
        assert (await client.event()).data == 4100

    play(scenario)


# The budget


async def wait_for_tokens(desk: Desk, tokens: list[str]) -> list[LocalClient]:
    """One client after the other, none of which is served."""
    saved, desk.admission._saved_s = desk.admission._saved_s, -1e9
    clients = []
    for token in tokens:
        clients.append(await desk.stage.client())
        await clients[-1].subscribe("longpoll-json", "t.1", token=token, wait="0.1")
        await desk.stage.until(lambda: len(desk.admission) == len(clients))
    alarm, desk.admission._alarm = desk.admission._alarm, None
    if alarm is not None:
        alarm.cancel()
    desk.admission._saved_s = saved
    return clients


def test_a_turn_verifies_for_two_milliseconds_and_no_longer() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        desk.tokens.cost_s = 0.0005
        await wait_for_tokens(desk, [f"good-{number}" for number in range(10)])
        for done in (4, 8, 10):
            desk.admission.run()
            assert len(desk.tokens.verified) == done
        assert not desk.admission.ready
        assert stage.hub.metrics.verification_seconds == pytest.approx(0.005)

    play(scenario)


def test_verifying_takes_a_quarter_of_the_time_at_most() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        desk.tokens.cost_s = 0.0005
        await wait_for_tokens(desk, [f"good-{number}" for number in range(400)])
        began, turns = desk.tokens.time_s, 0
        while desk.admission._queue:
            turns += 1
            if desk.admission.ready:
                desk.admission.run()
            else:
                desk.tokens.time_s += 0.001
                desk.admission._wake()
        took = desk.tokens.time_s - began
        verifying = 400 * 0.0005
        assert took > (verifying - 0.055) / 0.25 * 0.95, "no more than what was saved, and a quarter of the time"
        assert took < (verifying - 0.045) / 0.25 * 1.1, "and no less"

    play(scenario)


def test_what_waits_for_time_is_verified_when_there_is_some() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        desk.tokens.cost_s = 0.2  # far more than what is saved
        clients = [await stage.client() for _ in range(3)]
        for number, client in enumerate(clients):
            await client.subscribe("longpoll-json", "t.1", token=f"good-{number}", wait="0.1")
        desk.tokens.on_verify = lambda: None
        ticking = asyncio.create_task(_tick(desk))
        for client in clients:
            assert (await client.event()).kind == "ping"
        ticking.cancel()

    play(scenario)


async def _tick(desk: Desk) -> None:
    while True:
        desk.tokens.time_s += 0.1
        await asyncio.sleep(0)


def test_addresses_that_have_just_sent_a_wrong_token_are_behind_those_that_have_not() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        await wait_for_tokens(desk, ["bad-1", "bad-2", "good-3", "good-4"])
        for connection, address in zip(list(desk.admission._queue), ("x", "x", "x", "y"), strict=True):
            connection.peer = type(connection.peer)(None, {}, address, proxied=False, limited=False)
        desk.admission.run()
        assert desk.tokens.verified == ["bad-1", "good-4", "bad-2", "good-3"]

    play(scenario)


def test_a_suspect_that_comes_again_is_behind_the_others_at_once() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        await wait_for_tokens(desk, ["bad"])
        desk.admission.run()
        await wait_for_tokens(desk, ["good"])
        assert (len(desk.admission._queue), len(desk.admission._later)) == (0, 1)

    play(scenario)


def test_the_suspicion_ends_after_a_while() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        desk = Desk(stage)
        (client,) = await wait_for_tokens(desk, ["bad"])
        (connection,) = desk.admission._queue
        desk.admission.run()
        assert desk.admission._is_suspect(connection)
        await stage.hub.let_pass(10)
        assert not desk.admission._is_suspect(connection)
        client.socket.close()

    play(scenario)


def test_what_is_remembered_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SUSPECTED", 3)

    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        (client,) = await wait_for_tokens(desk, ["bad"])
        (connection,) = desk.admission._queue
        for number in range(9):
            connection.peer = type(connection.peer)(None, {}, str(number), proxied=False, limited=False)
            desk.admission._suspect(connection)
        assert list(desk.admission._suspects) == ["6", "7", "8"]
        client.socket.close()

    play(scenario)


def test_when_too_many_wait_the_next_is_refused_at_once() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        desk.admission._most_bytes = 12_500  # three heads, and 4 KiB for each
        await wait_for_tokens(desk, ["good-1", "good-2", "good-3"])
        desk.admission._saved_s = -1e9
        answer = await received(await desk.sent(POLL % b"t.1?token=good-4"))
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 5\r\n" in answer
        assert len(desk.admission) == 3
        assert (await received(await desk.sent(POLL % b"app.1"))).startswith(b"HTTP/1.1 503")
        assert desk.application.asked == []
        assert stage.hub.metrics.limited["verification"] == 2

    play(scenario)


def test_when_too_many_suspects_wait_the_next_of_them_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LATER", 3)

    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        clients = await wait_for_tokens(desk, [f"bad-{number}" for number in range(6)])
        desk.tokens.on_verify = lambda: setattr(desk.admission, "_saved_s", -1e9)  # one, and then there is no time
        desk.admission.run()
        assert desk.tokens.verified == ["bad-0"]
        desk.tokens.on_verify = lambda: None
        desk.admission._alarm = None
        desk.admission._saved_s = 1.0
        for _ in range(10):
            desk.admission.run()
        stage.hub._context.schedule_turn()
        answers = [await received(client.socket) for client in clients]
        assert [answer[9:12] for answer in answers] == [b"401"] * 4 + [b"503"] * 2

    play(scenario)


def test_when_too_many_questions_wait_the_next_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushcompat.access.questions._MOST_WAITING", 1)

    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        for number in range(5):
            await desk.sent((POLL % b"app.1").replace(b"test", b"test\r\nCookie: %d" % number))
        await desk.stage.until(lambda: len(desk.admission) == 5)
        answer = await received(await desk.sent(POLL % b"app.1"))
        assert answer.startswith(b"HTTP/1.1 503")
        assert stage.hub.metrics.limited["questions"] == 1
        assert len(desk.admission) == 5

    play(scenario)


def test_those_that_were_known_before_do_not_wait_behind_those_that_were_not() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        await stage.subscribed("websocket-json", "t.1", token="good")
        await wait_for_tokens_beside(desk, ["good-2", "bad"])
        desk.admission._saved_s = -1e9
        again = await stage.subscribed("websocket-json", "t.2", token="good")
        await again.until("open")
        anonymous = await stage.subscribed("websocket-json", "open")
        await anonymous.until("open")
        assert desk.tokens.verified == ["good"]

    play(scenario)


async def wait_for_tokens_beside(desk: Desk, tokens: list[str]) -> None:
    desk.admission._saved_s = -1e9
    for token in tokens:
        await desk.sent(POLL % b"t.1?token=%b" % token.encode())
    await desk.stage.until(lambda: len(desk.admission) == len(tokens))


def test_a_bug_costs_the_connection_that_it_happened_to_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)

        def fail() -> None:
            if desk.tokens.verified[-1] == "good-2":
                raise ZeroDivisionError

        desk.tokens.on_verify = fail
        clients = await wait_for_tokens(desk, ["good-1", "good-2", "good-3"])
        stage.hub._context.schedule_turn()
        for client in (clients[0], clients[2]):
            assert (await client.event()).kind == "ping"
        assert await asyncio.get_running_loop().sock_recv(clients[1].socket, 100) == b""
        assert [record.levelname for record in caplog.records] == ["ERROR"]

    play(scenario)


def test_a_server_can_stop_while_subscribers_wait() -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        await wait_for_tokens_beside(desk, ["good-1", "good-2"])
        await desk.sent(POLL % b"app.1")
        await desk.asked()
        await stage.hub.drain()

    play(scenario, Limits(drain_s=0.1))


@pytest.mark.parametrize("outcome", [Answer(), Forbidden("no"), Unavailable("no")])
def test_the_cors_lines_are_those_of_each_page_that_waits(outcome: Outcome) -> None:
    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        pages = [b"https://one.example", b"https://two.example"]
        await stage.hub.reconfigure(Policy([KEY.encode()], [page.decode() for page in pages], False, RULES))
        waiting = {
            page: await desk.sent((POLL % b"app.1").replace(b"test", b"test\r\nOrigin: " + page)) for page in pages
        }
        await desk.asked(2)
        for _ in pages:
            desk.application.answer(outcome)
        for page, sock in waiting.items():
            assert b"Access-Control-Allow-Origin: %b\r\n" % page in await received(sock)

    play(scenario)


@interpreted_only
@interpreted_only
def test_refusals_of_a_full_queue_take_no_longer_of_a_turn_than_verifying_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LATER", 20)

    async def scenario(stage: Stage) -> None:
        desk = Desk(stage)
        admission = desk.admission
        admission._alarm = asyncio.get_running_loop().call_later(PATIENCE_S, lambda: None)  # nothing is verified yet
        for _ in range(12):
            await desk.sent(POLL % b"t.1?token=wrong")
        await stage.until(lambda: len(admission) == 12)
        for connection in admitting(stage):
            admission._suspect(connection)
        monkeypatch.setattr(module, "_MOST_LATER", 0)
        refuse = admission._refuse

        def slowly(*refusal: Any) -> None:
            desk.tokens.time_s += module._TURN_S / 4
            refuse(*refusal)

        monkeypatch.setattr(admission, "_refuse", slowly)
        admission._alarm.cancel()
        admission._alarm = None
        for left in (8, 4, 0):
            admission.run()
            assert len(admission) == left

    play(scenario)
