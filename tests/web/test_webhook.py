"""The webhook: how it is signed, what is sent again, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from pushcompat.changes import Change
from pushcompat.errors import ConfigError
from pushcompat.metrics import Metrics
from pushcompat.web import webhook as module
from pushcompat.web.webhook import Webhook, signature, signing_key

from ..harness import MS, PATIENCE_S
from ..receiver import SECRET, Receiver
from ..store.engines import free_port

OCCUPIED = Change("msg_1", "occupied", "chat", 2)


class Sending:
    def __init__(self, url: str) -> None:
        self.metrics = Metrics()
        self.told: list[str] = []
        self.webhook = Webhook(url, signing_key(SECRET), self.metrics)
        self.webhook.start(lambda change: self.told.append(change.id))

    async def until_told(self, *ids: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while sorted(self.told) != sorted(ids):
                await asyncio.sleep(0.001)


def play(scenario: Callable[[Sending, Receiver], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    async def played(receiver: Receiver) -> None:
        sending = Sending(receiver.url)
        try:
            await scenario(sending, receiver)
        finally:
            await sending.webhook.close()

    monkeypatch.setattr(module, "_BACKOFF_S", (0.01, 0.02))
    with Receiver() as receiver:
        asyncio.run(played(receiver))


def test_the_specifications_own_example_has_its_signature() -> None:
    body = b'{"test": 2432232314}'
    signed = signature(signing_key(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "secret", ["", "secret", "whsec_", "whsec_!!!", "whsec_MTIz", "WHSEC_" + SECRET[6:], "whsec_" + "A" * 100]
)
def test_a_secret_that_is_none_is_refused_with_how_to_make_one(secret: str) -> None:
    with pytest.raises(ConfigError, match="openssl rand -base64 32"):
        signing_key(secret)


def test_a_change_is_sent_once_with_all_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(sending: Sending, receiver: Receiver) -> None:
        sending.webhook.notify(OCCUPIED)
        await sending.until_told("msg_1")
        one = receiver.next()
        assert (one.id, one.kind, one.channel, one.subscribers) == ("msg_1", "occupied", "chat", 2)
        assert one.document["type"] == "channel.occupied"
        assert time.strptime(one.document["timestamp"], "%Y-%m-%dT%H:%M:%SZ")
        assert one.headers["content-type"] == "application/json"
        assert one.headers["user-agent"].startswith("pushcompat/")
        assert abs(int(one.headers["webhook-timestamp"]) - time.time()) < 60
        assert receiver.received.empty()
        assert (sending.metrics.webhooks, sending.metrics.webhook_failures) == (1, 0)

    play(scenario, monkeypatch)


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
def test_a_change_that_is_not_accepted_is_sent_again_with_the_same_id(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(sending: Sending, receiver: Receiver) -> None:
        receiver.statuses = [status] * 3
        sending.webhook.notify(OCCUPIED)
        await sending.until_told("msg_1")
        assert [(one.status, one.id) for one in (receiver.next() for _ in range(4))] == [
            *([(status, "msg_1")] * 3), (204, "msg_1"),
        ]  # fmt: skip
        assert (sending.metrics.webhooks, sending.metrics.webhook_failures) == (1, 3)

    play(scenario, monkeypatch)


def test_a_receiver_that_wants_no_more_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(sending: Sending, receiver: Receiver) -> None:
        receiver.statuses = [410]
        sending.webhook.notify(OCCUPIED)
        await sending.until_told("msg_1")
        assert receiver.next().status == 410
        assert receiver.received.empty()

    play(scenario, monkeypatch)


def test_a_receiver_that_is_not_there_yet_gets_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def played() -> None:
        port = free_port()
        sending = Sending(f"http://127.0.0.1:{port}/hooks")
        sending.webhook.notify(OCCUPIED)
        async with asyncio.timeout(PATIENCE_S):
            while sending.metrics.webhook_failures < 3:
                await asyncio.sleep(0.001)
        assert sending.told == []
        await sending.webhook.close()

    monkeypatch.setattr(module, "_BACKOFF_S", (0.01, 0.02))
    asyncio.run(played())


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0\1\2\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9999,
     b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 999\r\n\r\n"],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_failure_like_others(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}}")
        writer.write(answer)
        writer.close()

    async def played() -> None:
        async with await asyncio.start_server(answered, "127.0.0.1", 0) as server:
            sending = Sending(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            sending.webhook.notify(OCCUPIED)
            async with asyncio.timeout(PATIENCE_S):
                while sending.metrics.webhook_failures < 3:
                    await asyncio.sleep(0.001)
            assert sending.told == []
            assert not any(task.done() for task in sending.webhook._tasks)
            await sending.webhook.close()

    monkeypatch.setattr(module, "_BACKOFF_S", (0.01, 0.02))
    monkeypatch.setattr(module, "_TIMEOUT_S", 500 * MS)  # Tornado 6.5.2 waits for it after some of these
    asyncio.run(played())


def test_backoff_doubles_to_five_minutes_and_retry_after_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    async def played(receiver: Receiver) -> None:
        sending = Sending(receiver.url)
        receiver.statuses = [500] * 12
        monkeypatch.setattr(module.asyncio, "sleep", noted)
        sending.webhook.notify(OCCUPIED)
        async with asyncio.timeout(PATIENCE_S):
            while not sending.told:
                await sleep(0.001)
        assert all(0.5 * 2**n <= wait <= min(300, 2**n) or n > 8 for n, wait in enumerate(waits)), waits
        assert 150 <= waits[-1] <= 300
        waits.clear()
        receiver.statuses, receiver.answer_headers = [429, 503], {"Retry-After": "77"}
        sending.webhook.notify(Change("msg_2", "vacated", "chat", 0))
        async with asyncio.timeout(PATIENCE_S):
            while len(sending.told) < 2:
                await sleep(0.001)
        assert waits == [77.0, 77.0]
        monkeypatch.undo()
        await sending.webhook.close()

    with Receiver() as receiver:
        asyncio.run(played(receiver))


def test_changes_that_another_process_reports_are_no_longer_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(sending: Sending, receiver: Receiver) -> None:
        receiver.statuses = [500] * 1000
        for number in range(10):
            sending.webhook.notify(Change(f"msg_{number}", "occupied", f"c{number}", 1))
        async with asyncio.timeout(PATIENCE_S):
            while not sending.metrics.webhook_failures:
                await asyncio.sleep(0.001)
        sending.webhook.forget()
        receiver.statuses = []
        sending.webhook.notify(Change("msg_new", "occupied", "new", 1))
        await sending.until_told("msg_new")

    play(scenario, monkeypatch)
