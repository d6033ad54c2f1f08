"""docs/applications.md: its settings are those that there are, and its recipe for PostgreSQL runs as it is there."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pushcompat import Publisher, PublishUnavailable
from pushcompat.contrib.options import MODES, NAMES

from ..harness import KEY, PATIENCE_S, Client, Server
from ..postgres import no_postgres, postgres
from ..stub import Stub, Talk
from ..test_examples import environment

DOCS = Path(__file__).parent.parent.parent / "docs" / "applications.md"


def test_every_setting_is_documented() -> None:
    table = DOCS.read_text().partition("| setting | meaning |")[2].partition("\n\n")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {name for cell in first_cells for name in re.findall("`([A-Z_]+)`", cell)} == set(NAMES)
    assert all(f"`{mode}`" in table for mode in MODES)


def code(name: str) -> str:
    found = re.search(rf"```\w+\n(?:--|#) {re.escape(name)}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with postgres() as folder:
        with connect(folder) as database:
            database.execute("create table orders (id serial primary key, text text)")
            database.execute(code("outbox.sql"))
        yield folder


def connect(host: str) -> psycopg.Connection[Any]:
    return psycopg.connect(host=host, user="postgres", autocommit=True)


@pytest.fixture
def database(host: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(host) as connection:
        connection.execute("truncate orders, push_outbox")
        yield connection


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("recipe") / "sender.py"
    path.write_text(code("sender.py"))
    spec = importlib.util.spec_from_file_location("sender", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def insert(database: psycopg.Connection[Any], *data: str) -> None:
    for item in data:
        database.execute("insert into push_outbox (channel, data) values ('orders', %s)", [f'"{item}"'])


def retained(client: Client) -> list[Any]:
    return [message["data"] for message in client.retained("orders")]


@no_postgres
def test_a_running_sender_publishes_what_a_transaction_has_changed(
    host: str, database: psycopg.Connection[Any], sender: Any, server: Server, tmp_path: Path
) -> None:
    given = {**environment(server.url, tmp_path), "PGHOST": host, "PGUSER": "postgres"}
    path = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    process = subprocess.Popen([sys.executable, sender.__file__], env={**given, "PYTHONPATH": path})
    try:
        with server.connect() as subscriber:
            assert subscriber.upgrade("/channels/orders") == 101
            with pytest.raises(ZeroDivisionError):
                roll_back(database)
            for _ in range(2):
                database.execute("insert into orders (text) values ('a'), ('b')")
                assert subscriber.frame() == (0x81, b"UPDATED")
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def roll_back(database: psycopg.Connection[Any]) -> None:
    with database.transaction():
        database.execute("insert into orders (text) values ('lost')")
        raise ZeroDivisionError


@no_postgres
def test_a_batch_whose_answer_was_lost_is_published_once_though_it_is_repeated_with_others(
    database: psycopg.Connection[Any], sender: Any, server: Server, client: Client
) -> None:
    def publish_and_cut(talk: Talk) -> None:
        talk.request()
        with server.connect() as onward:
            fields = {name: talk.headers[name] for name in ("content-type", "idempotency-key", "authorization")}
            onward.request("POST", talk.target, talk.body, **fields)
            assert onward.response()[0] == 200

    insert(database, "a", "b")
    publisher = Publisher(Stub(publish_and_cut).url, KEY, breaker=0)
    publisher.publish_batch = lambda updates, **given: Publisher.publish_batch(  # type: ignore[method-assign]
        publisher, updates, **{**given, "timeout": 0.1}
    )
    with pytest.raises(PublishUnavailable):
        sender.send(database, publisher)
    insert(database, "c")
    publisher = Publisher(server.url, KEY)
    assert [sender.send(database, publisher) for _ in range(2)] == [True, False]
    assert retained(client) == ["a", "b", "c"]


@no_postgres
def test_several_senders_publish_each_message_once(
    host: str,
    database: psycopg.Connection[Any],
    sender: Any,
    server: Server,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "TAKE", sender.TAKE.replace("limit 1000", "limit 10"))
    insert(database, *map(str, range(90)))

    def run() -> None:
        with connect(host) as connection:
            while sender.send(connection, Publisher(server.url, KEY)):
                pass

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, retained(client))) == list(range(90))


@no_postgres
def test_a_slow_transaction_with_an_earlier_id_loses_nothing(
    host: str, database: psycopg.Connection[Any], sender: Any, server: Server, client: Client
) -> None:
    publisher = Publisher(server.url, KEY)
    with connect(host) as slow, slow.transaction():
        insert(slow, "slow")
        insert(database, "fast")
        assert [sender.send(database, publisher) for _ in range(2)] == [True, False]
    assert sender.send(database, publisher)
    assert retained(client) == ["fast", "slow"]
