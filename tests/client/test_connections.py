"""Kept connections, the circuit breaker, and what survives a fork or a pool of processes."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import wraps
from typing import Any

import pytest

from pushcompat import AsyncPublisher, Publisher, PublishError, PublishRefused, PublishUnavailable
from pushcompat.client.breaker import Breaker
from pushcompat.client.dial import BoundedSocket, Endpoint
from pushcompat.client.pool import Pool

from ..harness import CERTIFICATE, KEY, MS, PATIENCE_S, Server
from ..stub import Talk, answer, refuses, server_tls, silent, stub

BODY = b'{"id":"00000000-000000000000007","channels":{"a":{"subscribers":3}}}'
FINE = answer(200, BODY)


def coroutine(test: Callable[..., Any]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def serves(*responses: bytes, then: Callable[[Talk], None] | None = None) -> Callable[[Talk], None]:
    """A connection for as many requests as there are responses; it notes their idempotency keys."""

    def script(talk: Talk) -> None:
        for response in responses:
            talk.request()
            talk.keys = [*getattr(talk, "keys", []), talk.headers["idempotency-key"]]  # type: ignore[attr-defined]
            talk.send(response)
        if then is not None:
            then(talk)

    return script


def keys(talk: Talk) -> list[str]:
    found: list[str] = getattr(talk, "keys", [])
    return found


def hold(talk: Talk) -> None:
    talk.wait_for_end()


@pytest.fixture
def publisher() -> Iterator[Callable[..., Publisher]]:
    made: list[Publisher] = []

    def make(url: str, **options: Any) -> Publisher:
        made.append(Publisher(url, "k", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., Publisher]


TLS = [pytest.param(False, id="plain"), pytest.param(True, id="TLS")]


def trusting(tls: bool) -> dict[str, Any]:
    return {"ssl_context": ssl.create_default_context(cafile=str(CERTIFICATE))} if tls else {}


@pytest.mark.parametrize("tls", TLS)
def test_publishes_share_a_connection(tls: bool, publisher: Make) -> None:
    with stub(serves(*[FINE] * 3, then=hold), tls=server_tls() if tls else None) as server:
        push = publisher(server.url, **trusting(tls))
        for _ in range(3):
            assert push("a", "x").channels == {"a": 3}
        push.close()
    assert [len(keys(talk)) for talk in server.talks] == [3]
    assert len(set(keys(server.talks[0]))) == 3


def test_head_and_body_are_one_send(publisher: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    sendall = socket.socket.sendall

    def note(sock: socket.socket, data: bytes, *more: Any) -> None:
        if data.startswith(b"POST"):
            sent.append(data)
        sendall(sock, data, *more)

    class Noting(socket.socket):
        sendall = note  # type: ignore[assignment]

    monkeypatch.setattr("pushcompat.client.dial.socket.socket", Noting)
    with stub(serves(FINE, then=hold)) as server:
        push = publisher(server.url)
        push("a", "the body")
        push.close()
    assert [data.partition(b"\r\n\r\n")[2] for data in sent] == [b"the body"]


def test_a_connection_that_ended_while_it_was_kept_is_not_used(publisher: Make) -> None:
    with stub(serves(FINE), serves(FINE, then=hold)) as server:
        push = publisher(server.url)
        push("a")
        until_ended(push)
        push("a")
        push.close()
    assert [len(keys(talk)) for talk in server.talks] == [1, 1]


def until_ended(push: Publisher) -> None:
    """Waits for the server's FIN on the kept connection."""
    ((sock, _),) = push._pool._kept()
    sock.sock.settimeout(PATIENCE_S)
    assert sock.sock.recv(1, socket.MSG_PEEK) == b""


def test_a_kept_connection_that_dies_under_a_publish_costs_one_repeat_with_the_same_key(publisher: Make) -> None:
    def reads_and_leaves(talk: Talk) -> None:
        talk.request()
        talk.keys = [*getattr(talk, "keys", []), talk.headers["idempotency-key"]]  # type: ignore[attr-defined]

    with stub(serves(FINE, then=reads_and_leaves), serves(FINE, then=hold)) as server:
        push = publisher(server.url)
        push("a")
        push("a")
        push.close()
    first, second = map(keys, server.talks)
    assert (len(first), second) == (2, [first[1]])


def test_an_answer_that_ends_its_connection_is_believed(publisher: Make) -> None:
    for last in (answer(200, BODY, Connection="close"), b"HTTP/1.0 200 OK\r\n\r\n" + BODY, FINE + b"more"):
        with stub(serves(last), serves(FINE, then=hold)) as server:
            push = publisher(server.url)
            push("a")
            push("a")
            push.close()
        assert [len(keys(talk)) for talk in server.talks] == [1, 1]


def test_an_idle_connection_is_dropped_before_networks_forget_it(
    publisher: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("pushcompat.client.pool._now", lambda: now[0])
    with stub(serves(FINE, FINE, then=hold), serves(FINE, then=hold)) as server:
        push = publisher(server.url)
        push("a")
        now[0] += 50
        push("a")
        now[0] += 56
        push("a")
        push.close()
    assert [len(keys(talk)) for talk in server.talks] == [2, 1]


def test_threads_do_not_share_a_connection_at_the_same_time(server: Server, publisher: Make) -> None:
    push = Publisher(server.url, KEY)
    with ThreadPoolExecutor(20) as pool:
        published = list(pool.map(lambda n: push("crowd", {"n": n}).id, range(400)))
    assert len(set(published)) == 400
    assert len(push._pool._kept()) <= 8
    push.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # since Python 3.12, if there are threads
def test_a_forked_process_opens_connections_of_its_own(publisher: Make) -> None:
    with stub(serves(FINE, FINE, then=hold), serves(FINE)) as server:
        push = publisher(server.url)
        push("a")
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = 0 if push("a").channels == {"a": 3} else 1
            finally:
                os._exit(code)
        # The child connects while the stub serves this connection, so it is answered after it
        push("a")
        push.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [len(keys(talk)) for talk in server.talks] == [2, 1]


def test_no_thread_of_a_forked_process_uses_a_connection_of_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    with stub(hold, hold, hold) as server:
        pool = Pool(Endpoint.parse(server.url))
        sockets = [pool.take(lambda: PATIENCE_S)[0] for _ in range(2)]
        taken: list[tuple[BoundedSocket, bool]] = []
        for sock in sockets:
            pool.keep(sock)
        child = os.getpid() + 1
        monkeypatch.setattr(os, "getpid", lambda: child)
        # Another thread takes one while the first still closes the parent's
        close = sockets[1].close
        sockets[1].close = lambda: (close(), taken.append(pool.take(lambda: PATIENCE_S)))
        taken.append(pool.take(lambda: PATIENCE_S))
        assert [is_kept for _, is_kept in taken] == [False, False]
        for sock, _ in taken:
            sock.close()


def test_a_connection_that_has_failed_takes_the_idle_ones_with_it(publisher: Make) -> None:
    """A network that has forgotten one connection has forgotten them all."""
    ours, theirs = socket.socketpair()
    with stub(serves(FINE, then=silent)) as server:
        push = publisher(server.url)
        push("a", timeout=PATIENCE_S)
        push._pool._kept().appendleft((BoundedSocket(ours, lambda: PATIENCE_S), time.monotonic()))
        with pytest.raises(PublishUnavailable, match="timed out"):
            push("a", timeout=100 * MS)
    assert theirs.recv(1) == b""
    theirs.close()


# The circuit breaker


def test_after_a_failure_calls_fail_at_once_and_then_one_is_let_through() -> None:
    now = [0.0]
    breaker = Breaker(5, lambda: now[0])
    assert breaker.allows()
    breaker.failed()
    now[0] = 4.9
    assert not breaker.allows()
    now[0] = 5.0
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert breaker.allows()


def test_a_breaker_of_0_seconds_never_opens() -> None:
    breaker = Breaker(0)
    breaker.failed()
    assert breaker.allows()


def test_a_frozen_server_holds_one_call_and_none_after_it(publisher: Make) -> None:
    with stub(silent) as server:
        push = publisher(server.url, timeout=100 * MS)
        for fast in (False, True, True):
            with pytest.raises(PublishUnavailable) as failed:
                push("a")
            assert failed.value.fast is fast
            assert failed.value.idempotency_key
    assert len(server.talks) == 1


def test_a_server_that_is_back_is_used_again(publisher: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    with stub(silent, serves(*[FINE] * 2, then=hold)) as server:
        push = publisher(server.url, timeout=100 * MS)
        push._core._breaker._clock = lambda: now[0]
        with pytest.raises(PublishUnavailable):
            push("a")
        now[0] = 5.0
        push("a", timeout=PATIENCE_S)
        push("a", timeout=PATIENCE_S)
        push.close()


def test_what_the_server_refuses_does_not_open_the_breaker(publisher: Make) -> None:
    with stub(refuses(403, "no"), serves(FINE, then=hold)) as server:
        push = publisher(server.url)
        with pytest.raises(PublishRefused):
            push("a")
        push("a")
        push.close()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_cannot_take_it_now_delays_one_call_and_none_after_it(status: int, publisher: Make) -> None:
    with stub(refuses(status, "busy", Retry_After="60")) as server:
        push = publisher(server.url)
        for fast in (False, True):
            with pytest.raises(PublishUnavailable) as failed:
                push("a")
            assert failed.value.fast is fast
    assert len(server.talks) == 1


# Exceptions


@pytest.mark.parametrize(
    "error",
    [PublishError("no", 400), PublishRefused("no"), PublishUnavailable("away", 503, "k1", fast=True)],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_survive_a_pool_of_processes(error: PublishError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    again = type(error)(*json.loads(json.dumps(error.args)))  # as a result of Celery's
    assert (str(again), vars(again)) == (str(error), vars(error))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        with pytest.raises(type(error), match=str(error)):
            pool.submit(_raise, error).result(PATIENCE_S)
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def _raise(error: Exception) -> None:
    raise error


# For coroutines


@pytest.mark.parametrize("tls", TLS)
@coroutine
async def test_an_asynchronous_publisher_keeps_its_connection_and_repeats_on_a_new_one(tls: bool) -> None:
    with stub(serves(FINE, FINE), serves(FINE, then=hold), tls=server_tls() if tls else None) as server:
        async with AsyncPublisher(server.url, "k", **trusting(tls)) as push:
            for _ in range(3):
                assert (await push("a", "x")).channels == {"a": 3}
    assert [len(keys(talk)) for talk in server.talks] == [2, 1]


@coroutine
async def test_an_asynchronous_publisher_fails_at_once_after_a_failure() -> None:
    with stub(silent) as server:
        async with AsyncPublisher(server.url, "k", timeout=100 * MS) as push:
            for fast in (False, True):
                with pytest.raises(PublishUnavailable) as failed:
                    await push("a")
                assert failed.value.fast is fast
    assert len(server.talks) == 1


@coroutine
async def test_a_batch_of_a_coroutine_is_one_publish_and_none_after_an_exception(server: Server) -> None:
    async with AsyncPublisher(server.url, KEY) as push:
        async with push.batch() as b:
            b("a", 1)
            b(["a", "b"])
        assert b.published.channels == {"a": 0, "b": 0}  # type: ignore[attr-defined]
        with pytest.raises(ZeroDivisionError):
            async with push.batch() as b:
                b("a", 1 / 0)
        async with push.batch():
            pass
    with server.connect() as client:
        assert [message["data"] for message in client.retained("a")] == [1, "UPDATED"]


@coroutine
async def test_a_call_that_is_cancelled_closes_its_connection_and_leaves_no_thread() -> None:
    threads = threading.active_count()
    left = threading.Event()

    def waits(talk: Talk) -> None:
        talk.request()
        talk.wait_for_end()
        left.set()

    with stub(waits) as server:
        threads = threading.active_count()
        async with AsyncPublisher(server.url, "k", timeout=PATIENCE_S) as push:
            call = asyncio.ensure_future(push("a"))
            while not server.talks or not server.talks[0].target:
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert await asyncio.to_thread(left.wait, PATIENCE_S)
    assert threading.active_count() <= threads + 1  # that of to_thread


@coroutine
async def test_a_publisher_that_is_closed_leaves_nothing_open() -> None:
    with stub(serves(FINE, then=hold)) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        push = AsyncPublisher(server.url, "k")
        await push("a")
        await push.close()
        del push
        gc.collect()


@pytest.mark.parametrize("status", [401, 503])
@coroutine
async def test_unusual_responses_are_read_in_any_pieces(status: int) -> None:
    body = b'{"detail":"no, ' + b"x" * 5000 + b'"}'
    chunked = b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\nRetry-After: 60\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        status, len(body), body,
    )  # fmt: skip

    def script(talk: Talk) -> None:
        talk.request()
        for at in range(0, len(chunked), 700):
            talk.send(chunked[at : at + 700])
        talk.wait_for_end()

    with stub(script) as server:
        async with AsyncPublisher(server.url, "k", timeout=PATIENCE_S) as push:
            with pytest.raises(PublishError, match="no, x") as failed:
                await push("a")
    assert failed.value.status == status


def test_an_exit_function_can_publish_from_a_coroutine(server: Server) -> None:
    """No thread can look up the name of the host any more."""
    url = server.url.replace("127.0.0.1", "localhost")
    program = f"""
import asyncio, atexit
from pushcompat import publish_async
atexit.register(lambda: print(asyncio.run(publish_async("exit", url="{url}", key="{KEY}")).channels))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.stdout, done.stderr) == ("{'exit': 0}\n", "")


@coroutine
async def test_the_server_takes_what_an_asynchronous_publisher_sends(server: Server) -> None:
    async with AsyncPublisher(server.url, KEY) as push:
        assert (await push.publish_batch([{"channel": "a", "data": 1}, {"channel": "b"}])).channels == {"a": 0, "b": 0}
