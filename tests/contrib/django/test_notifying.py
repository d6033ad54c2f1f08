from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import AsyncClient, Client, override_settings

from pushcompat.contrib.django import anotify, notify
from pushcompat.contrib.django.models import OutboxMessage
from pushcompat.contrib.django.sending import send
from pushcompat.contrib.django.testing import Message, outbox
from pushcompat.contrib.messages import JsonText

from ...harness import PATIENCE_S, Server
from ...stub import Stub, Talk
from .conftest import rolled_back, with_server, with_settings
from .shop.models import Plain


def test_messages_are_published_after_the_commit_and_folded() -> None:
    with transaction.atomic():
        notify("orders")
        notify("queue", 17, message_key="length")
        notify("orders")
        notify("chat", "one")
        notify("queue", 18, message_key="length")
        notify(["chat", "news"], "two", type="comment", ttl=5)
        assert not outbox
    assert outbox == [
        Message("orders"),
        Message("chat", "one"),
        Message("queue", 18, "length"),
        Message("chat", "two", None, "comment", 5),
        Message("news", "two", None, "comment", 5),
    ]


def test_without_a_transaction_a_message_is_published_at_once() -> None:
    notify("orders")
    assert outbox == [Message("orders")]
    Plain.objects.create(text="the connection is open now")
    notify("orders")
    assert outbox == [Message("orders"), Message("orders")]


def test_what_is_rolled_back_is_not_published() -> None:
    with rolled_back():
        notify("lost")
    with transaction.atomic():
        notify("first")
        with rolled_back():
            notify("lost")
        with transaction.atomic():
            notify("second")
        notify("third")
    assert [message.channel for message in outbox] == ["first", "second", "third"]


def test_one_transaction_is_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[list[str]] = []
    monkeypatch.setattr(
        "pushcompat.contrib.django.notifying.send", lambda given, mode: sent.append([m.channel for m in given])
    )
    with transaction.atomic():
        notify("a")
        with transaction.atomic():
            notify("b")
        notify("c")
    with transaction.atomic():
        notify("d")
    assert sent == [["a", "b", "c"], ["d"]]


def test_a_hook_of_somebody_else_that_fails_takes_no_message_with_it() -> None:
    @transaction.atomic
    def run() -> None:
        notify("before")
        transaction.on_commit(lambda: 1 // 0)
        notify("after")

    with pytest.raises(ZeroDivisionError):
        run()
    assert [message.channel for message in outbox] == ["before", "after"]
    with transaction.atomic():
        notify("next")
    assert [message.channel for message in outbox] == ["before", "after", "next"]


def test_a_failure_to_publish_takes_no_other_hook_with_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("pushcompat.contrib.django.notifying.send", broken)
    ran = []
    with transaction.atomic():
        notify("orders")
        transaction.on_commit(lambda: ran.append(True))
    assert ran == [True]
    assert "Error calling notify in on_commit()" in caplog.text


def test_only_what_a_test_captures_is_published() -> None:
    from django.test import TestCase

    with rolled_back():  # as a TestCase has it around a test
        notify("not-captured")
        with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
            notify("one")
            notify("two")
        assert (len(callbacks), outbox) == (2, [Message("one"), Message("two")])


def test_the_outbox_is_empty_at_the_begin_of_a_test() -> None:
    assert not outbox


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("no such name",), ValueError),
        (([],), ValueError),
        (("a", float("nan")), ValueError),
        (("a", object), TypeError),
        (("a", b"\xff"), UnicodeDecodeError),
    ],
)
def test_what_cannot_be_sent_is_an_error_at_once(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error), transaction.atomic():
        notify(*arguments)


def test_a_mode_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be one of later"):
        notify("a", mode="soon")


async def coroutine() -> str:
    return "never awaited"


@pytest.mark.parametrize("call", [lambda given: notify(given), lambda given: notify("a", given)])
def test_a_coroutine_is_refused_and_not_warned_of(call: Callable[[Coroutine[Any, Any, str]], None]) -> None:
    with pytest.raises(TypeError, match="not a coroutine"):
        call(coroutine())


def test_data_is_encoded_as_django_does_and_at_once() -> None:
    changing = {"at": datetime.date(2026, 11, 28), "price": Decimal("4.50"), "id": uuid.UUID(int=1)}
    with transaction.atomic():
        notify("orders", changing)
        changing.clear()
    assert outbox[0].data == {"at": "2026-11-28", "price": "4.50", "id": "00000000-0000-0000-0000-000000000001"}


def test_a_view_publishes_when_its_transaction_is_committed() -> None:
    with override_settings(DEBUG=True):
        assert Client().post("/add").status_code == 200
        assert Client(raise_request_exception=False).post("/fail").status_code == 500
    assert Plain.objects.count() == 1
    assert outbox == [Message("chat", {"text": "new"})]


def test_an_asynchronous_view_notifies() -> None:
    async def asks(path: str) -> int:
        response = await AsyncClient().post(path)
        status: int = response.status_code
        return status

    assert asyncio.run(asks("/add-async")) == 200
    assert outbox == [Message("chat", "from a coroutine")]
    assert asyncio.run(asks("/add-async-safely")) == 200
    assert OutboxMessage.objects.count() == 1


def test_a_coroutine_cannot_store_a_message_without_await() -> None:
    async def run() -> None:
        notify("chat", mode="outbox")

    with pytest.raises(RuntimeError, match="await anotify"):
        asyncio.run(run())


def test_anotify_publishes() -> None:
    asyncio.run(anotify("chat", "hello"))
    assert outbox == [Message("chat", "hello")]


def test_a_database_that_the_request_does_not_use_is_not_connected_to() -> None:
    connection.close()
    notify("orders")
    assert connection.connection is None
    assert outbox == [Message("orders")]


def test_a_transaction_with_more_messages_than_a_batch_loses_none(server: Server) -> None:
    with with_server(server, MODE="now"), server.connect() as client:
        with transaction.atomic():
            for number in range(1001):
                notify("chat", number)
        assert client.retained("chat")[-1]["data"] == 1000


@pytest.mark.parametrize("mode", ["later", "now", "request"])
def test_messages_reach_subscribers_in_each_mode(mode: str, server: Server) -> None:
    with with_server(server, MODE=mode), server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        assert Client().post("/add").status_code == 200
        assert subscriber.frame() == (0x81, b'{"text":"new"}')


def never_answers(talk: Talk) -> None:
    talk.wait_for_end()


@pytest.mark.parametrize("mode", ["later", "now", "request"])
def test_without_a_push_server_a_view_answers_all_the_same(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub(never_answers)
    given = {"KEY": "k" * 32, "MODE": mode, "TIMEOUT": 0.2, "TEST_OUTBOX": False}
    with caplog.at_level(logging.ERROR):
        for url in (stub.url, "http://127.0.0.1:9"):
            with with_settings(URL=url, **given):
                assert Client().post("/add").content == b"saved"
    assert Plain.objects.count() == 2
    assert ("1 messages were not published" in caplog.text) == (mode == "now")


def test_later_does_not_wait_for_a_frozen_server() -> None:
    stub = Stub(never_answers)
    with with_settings(URL=stub.url, KEY="k" * 32, TIMEOUT=PATIENCE_S, TEST_OUTBOX=False, MODE="later"):
        assert Client().post("/add").content == b"saved"  # while the stub still holds its request
        assert all(not talk.socket._closed for talk in stub.talks)  # type: ignore[attr-defined]


def test_json_text_is_decoded_for_the_test() -> None:
    send([Message("a", JsonText('{"n":1}')), Message("b", "1")], "later")
    assert outbox == [Message("a", {"n": 1}), Message("b", "1")]
