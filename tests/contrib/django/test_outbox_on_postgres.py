"""The outbox on a database with row locks: several processes at once skip what another one has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction

from pushcompat import PublishUnavailable
from pushcompat.contrib import messages
from pushcompat.contrib.django import notify, outbox
from pushcompat.contrib.django.models import OutboxMessage

from ...harness import KEY, PATIENCE_S, Client, Server
from ...postgres import no_postgres, postgres
from ...stub import Stub, Talk
from .conftest import rolled_back, with_server, with_settings

pytestmark = no_postgres


@pytest.fixture(scope="module", autouse=True)
def _database() -> Iterator[None]:
    with postgres() as host:
        given = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres", "HOST": host}
        connections.settings["postgres"] = connections.configure_settings({"default": given})["default"]
        call_command("migrate", "pushcompat", database="postgres", verbosity=0)
        yield
        connections["postgres"].close()
        del connections.settings["postgres"], connections["postgres"]


@pytest.fixture(autouse=True)
def _empty_tables() -> Iterator[None]:
    yield
    OutboxMessage.objects.using("postgres").all().delete()


def store(*data: object) -> None:
    with transaction.atomic("postgres"):
        for item in data:
            notify("orders", item, mode="outbox", using="postgres")


def retained(client: Client) -> list[Any]:
    return [message["data"] for message in client.retained("orders")]


def test_several_processes_publish_each_message_once(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "BATCH_MESSAGES", 10)
    store(*range(90))
    with with_server(server):
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(retained(client)) == list(range(90))
    assert not OutboxMessage.objects.using("postgres").exists()


def run() -> None:
    try:
        call_command("push_outbox", once=True, database="postgres")
    finally:
        connections["postgres"].close()


def test_a_batch_that_another_process_publishes_is_skipped(server: Server) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(talk: Talk) -> None:
        talk.request()
        reached.set()
        assert go_on.wait(PATIENCE_S)

    def first() -> None:
        with pytest.raises(PublishUnavailable):
            outbox.deliver("postgres")
        connections["postgres"].close()

    store("held")
    stub = Stub(hold, hold)
    with with_settings(URL=stub.url, KEY=KEY, TEST_OUTBOX=False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "TIMEOUT_S", 1.0)
        thread = threading.Thread(target=first)
        thread.start()
        assert reached.wait(PATIENCE_S)
        store("free")
    with with_server(server):
        assert outbox.deliver("postgres") == 1
        assert outbox.deliver("postgres") is None
    go_on.set()
    thread.join()
    with with_server(server):
        assert outbox.deliver("postgres") == 1


def test_a_slow_transaction_with_an_earlier_id_is_published_when_it_commits(server: Server, client: Client) -> None:
    ready, commit = threading.Event(), threading.Event()

    def slow() -> None:
        with transaction.atomic("postgres"):
            notify("orders", "slow", mode="outbox", using="postgres")
            ready.set()
            assert commit.wait(PATIENCE_S)
        connections["postgres"].close()

    thread = threading.Thread(target=slow)
    thread.start()
    assert ready.wait(PATIENCE_S)
    store("fast")
    with with_server(server):
        assert outbox.deliver("postgres") == 1
        assert outbox.deliver("postgres") is None
        commit.set()
        thread.join()
        assert outbox.deliver("postgres") == 1
    assert retained(client) == ["fast", "slow"]


def test_what_is_rolled_back_is_not_stored() -> None:
    with transaction.atomic("postgres"):
        with rolled_back("postgres"):
            notify("orders", "lost", mode="outbox", using="postgres")
        notify("orders", "kept", mode="outbox", using="postgres")
    (message,) = OutboxMessage.objects.using("postgres")
    assert message.data == '"kept"'
