from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from pushcompat import PublishUnavailable
from pushcompat.contrib import messages
from pushcompat.contrib.django import notify, outbox
from pushcompat.contrib.django.models import OutboxMessage
from pushcompat.contrib.django.testing import outbox as recorded
from pushcompat.contrib.messages import Message

from ...harness import KEY, Client, Server
from ...stub import Stub, Talk, answer, refuses, silent
from .conftest import rolled_back, with_server, with_settings


def store(*data: object, channel: str = "orders") -> None:
    with transaction.atomic():
        for item in data:
            notify(channel, item, mode="outbox")


def retained(client: Client, channel: str = "orders") -> list[Any]:
    return [message["data"] for message in client.retained(channel)]


def test_messages_are_stored_in_the_transaction_that_they_tell_of(server: Server, client: Client) -> None:
    with with_server(server, MODE="outbox"):
        with rolled_back():
            notify("orders", "lost")
        notify("orders", {"n": 1})
        notify("orders", "text", message_key="k", type="t", ttl=60)
        notify(["orders", "news"])
        assert OutboxMessage.objects.count() == 4
        call_command("push_outbox", once=True)
        assert OutboxMessage.objects.count() == 0
    first, second, third = client.retained("orders")
    assert (first["data"], second["data"], third["data"]) == ({"n": 1}, "text", "UPDATED")
    assert (second["key"], second["type"]) == ("k", "t")
    assert retained(client, "news") == ["UPDATED"]


def test_the_migrations_make_the_tables_that_the_models_need() -> None:
    call_command("makemigrations", "pushcompat", check=True, dry_run=True, verbosity=0)


def forwarding_and_cut(server: Server) -> Any:
    """Publishes what it is sent, and closes the connection without an answer."""

    def script(talk: Talk) -> None:
        talk.request()
        with server.connect() as onward:
            names = ("content-type", "idempotency-key", "authorization")
            onward.request("POST", talk.target, talk.body, **{name: talk.headers[name] for name in names})
            assert onward.response()[0] == 200

    return script


def forwarding(server: Server) -> Any:
    publish = forwarding_and_cut(server)

    def script(talk: Talk) -> None:
        publish(talk)
        talk.send(answer(200, b'{"id":"x","channels":{}}'))

    return script


def test_a_batch_whose_answer_was_lost_is_published_once_though_it_is_repeated_with_others(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(forwarding_and_cut(server))
    store(1, 2)
    with with_settings(URL=stub.url, KEY=KEY, TEST_OUTBOX=False):
        monkeypatch.setattr(outbox, "TIMEOUT_S", 0.1)
        with pytest.raises(PublishUnavailable):
            outbox.deliver()
    monkeypatch.undo()
    store(3)
    with with_server(server):
        assert [outbox.deliver(), outbox.deliver()] == [3, None]
    assert retained(client) == [1, 2, 3]


def test_a_message_that_was_published_alone_is_not_published_again_with_its_batch(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(refuses(403, "not this channel"), forwarding(server), silent)
    store(1, 2)
    with with_settings(URL=stub.url, KEY=KEY, TEST_OUTBOX=False):
        monkeypatch.setattr(outbox, "TIMEOUT_S", 0.1)
        with pytest.raises(PublishUnavailable):
            outbox.deliver()
    monkeypatch.undo()
    assert retained(client) == [1]
    with with_server(server):  # the channel is allowed now
        assert [outbox.deliver(), outbox.deliver()] == [2, None]
    assert retained(client) == [1, 2]


def test_a_command_that_ends_waits_for_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "TIMEOUT_S", 0.1)
    store(1)
    given = with_settings(URL="http://127.0.0.1:9", KEY=KEY, TEST_OUTBOX=False)
    with given, pytest.raises(CommandError, match="cannot reach"):
        call_command("push_outbox", once=True)
    assert OutboxMessage.objects.count() == 1


def test_a_message_that_is_refused_keeps_its_reason_and_holds_up_no_other(server: Server, client: Client) -> None:
    store("a", "x" * 70_000, "b")
    with with_server(server):
        call_command("push_outbox", once=True)
        call_command("push_outbox", once=True)
        assert retained(client) == ["a", "b"]
        (left,) = OutboxMessage.objects.all()
        OutboxMessage.objects.update(data='"shorter"')
        call_command("push_outbox", once=True, retry_refused=True)
    assert retained(client) == ["a", "b", "shorter"]
    assert "limit" in left.refused or "large" in left.refused or "most" in left.refused, left.refused


def test_a_key_that_the_server_does_not_know_refuses_no_message(server: Server, client: Client) -> None:
    store("a", "b")
    with with_settings(URL=server.url, KEY="k" * 32, TEST_OUTBOX=False), pytest.raises(CommandError, match="key"):
        call_command("push_outbox", once=True)
    with with_server(server):
        call_command("push_outbox", once=True)
    assert retained(client) == ["a", "b"]


def test_a_batch_is_smaller_than_the_server_s_limit(server: Server) -> None:
    store(*["x" * 50_000] * 30)
    with with_server(server):
        sizes = [size or 0 for size in iter(outbox.deliver, None)]
    assert (sum(sizes), max(sizes)) == (30, 19)


def test_several_processes_publish_each_message_once(server: Server, client: Client) -> None:
    store(*range(90))
    failures: list[Exception] = []

    def run() -> None:
        try:
            call_command("push_outbox", once=True)
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    with with_server(server), pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "BATCH_MESSAGES", 10)
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert sorted(retained(client)) == list(range(90))


def test_in_tests_the_outbox_is_published_to_the_tests_one() -> None:
    store({"n": 1}, None, channel="chat")
    call_command("push_outbox", once=True)
    assert recorded == [Message("chat", {"n": 1}), Message("chat")]


@pytest.fixture
def worker(server: Server) -> Iterator[threading.Event]:
    """The command in a thread, which ends with the fixture."""
    ended = threading.Event()

    class Ended(threading.Event):
        def is_set(self) -> bool:
            return ended.is_set()

    def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pushcompat.contrib.django.management.commands.push_outbox.threading.Event", Ended)
            call_command("push_outbox", interval=0.01)
        connections.close_all()

    with with_server(server):
        thread = threading.Thread(target=run)
        thread.start()
        yield ended
        ended.set()
        thread.join()


def test_the_command_publishes_what_is_stored_while_it_runs(worker: threading.Event, server: Server) -> None:
    with server.connect() as subscriber:
        assert subscriber.upgrade("/channels/orders") == 101
        store({"n": 1})
        assert json.loads(subscriber.frame()[1]) == {"n": 1}
