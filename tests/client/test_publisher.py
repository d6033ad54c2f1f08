from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pushcompat import (
    Published,
    PublishError,
    PublishRefused,
    PublishUnavailable,
    publish,
    publish_async,
    publish_batch,
    publish_batch_async,
)
from pushcompat.client import exchange, publisher
from pushcompat.client.credentials import find_key
from pushcompat.client.dial import BoundedSocket, Endpoint
from pushcompat.client.posts import JsonText, Update
from pushcompat.state import load_or_create_key

from ..harness import KEY, MS, PATIENCE_S, Server
from ..stub import INFORMATIONAL, Talk, answer, cut_short, informed, json_says, refuses, says, silent, stub

ANSWER: dict[str, Any] = {"id": "00000000-000000000000007", "channels": {"a": {"subscribers": 3}}}
fine = json_says(200, ANSWER)


def cut(talk: Talk) -> None:
    """The answer gets lost."""
    talk.request()


@pytest.fixture(autouse=True)
def _no_key_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PUSHCOMPAT_URL", "PUSHCOMPAT_PUBLISH_KEY", "PUSHCOMPAT_PUBLISH_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PUSHCOMPAT_STATE_DIR", str(tmp_path))


@pytest.fixture(autouse=True)
def _publishers_of_its_own() -> Iterator[None]:
    """A test that broke the circuit must not make the next one fail at once."""
    yield
    for kept in publisher._publishers.values():
        kept.close()
    publisher._publishers.clear()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between tries are noted instead of made; the time passes all the same."""
    made: list[float] = []

    class Time:
        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + sum(made)

    monkeypatch.setattr("pushcompat.client.attempts.time", Time)
    # Not time.sleep itself: threads of other tests that still wait for a server call it
    monkeypatch.setattr(publisher, "time", SimpleNamespace(monotonic=time.monotonic, sleep=made.append))
    return made


# What is sent


@pytest.mark.parametrize(
    ("data", "body", "content_type"),
    [
        (None, b"", "text/plain; charset=utf-8"),
        ("", b"", "text/plain; charset=utf-8"),
        ("grün", "grün".encode(), "text/plain; charset=utf-8"),
        (b"bytes", b"bytes", "text/plain; charset=utf-8"),
        ({"a": [1, "ü", None]}, '{"a":[1,"ü",null]}'.encode(), "application/json"),
        (False, b"false", "application/json"),
        (0, b"0", "application/json"),
        (JsonText('{"a": 1.10}'), b'{"a": 1.10}', "application/json"),
    ],
)
def test_text_goes_as_text_and_anything_else_as_json(data: object, body: bytes, content_type: str) -> None:
    with stub(fine) as server:
        assert publish("a", data, url=server.url, key="k") == Published(ANSWER["id"], {"a": 3})
    (talk,) = server.talks
    assert (talk.target, talk.body) == ("/channels/a", body)
    assert talk.headers["content-type"] == content_type
    assert talk.headers["authorization"] == "Bearer k"


def test_several_channels_go_in_one_request_with_key_type_and_ttl() -> None:
    with stub(fine) as server:
        publish(["a", "b:c@d~e"], "x", message_key="k.1", type="news", ttl=1.5, url=f"{server.url}/push/", key="k")
    assert server.talks[0].target == "/push/channels/a,b:c@d~e?key=k.1&type=news&ttl=1.5"


def test_a_batch_is_one_array() -> None:
    with stub(fine) as server:
        publish_batch(
            [
                {"channel": "a", "data": {"n": 1}, "message_key": "k", "ttl": 2},
                {"channel": "b", "data": b"text", "type": None},
                {"channel": "c"},
                {"channel": "d", "data": JsonText("1.10")},
            ],
            url=server.url,
            key="k",
        )
    (talk,) = server.talks
    assert talk.target == "/channels"
    assert talk.headers["content-type"] == "application/json"
    assert talk.body == (
        b'[{"channel":"a","data":{"n":1},"key":"k","ttl":2},{"channel":"b","data":"text"},'
        b'{"channel":"c"},{"channel":"d","data":1.10}]'
    )


@pytest.mark.parametrize("channel", ["", "a b", "a,b", "a/b", "ä", "a" * 129, [], ["a", ""], ["a", "b,c"]])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(channel: Any) -> None:
    with pytest.raises(ValueError, match="channel"):
        publish(channel, url="http://127.0.0.1:1")


@pytest.mark.parametrize("data", [float("nan"), b"\xff", "\ud800"])
def test_data_that_can_not_be_sent_is_refused_before_anything_is_sent(data: object) -> None:
    with pytest.raises(ValueError, match=r"JSON|codec"):
        publish("a", data, url="http://127.0.0.1:1")


# The key


def test_the_key_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUSHCOMPAT_PUBLISH_KEY_FILE", str(tmp_path / "k"))
    (tmp_path / "k").write_text("from-file\n")
    with stub(fine) as server:
        monkeypatch.setenv("PUSHCOMPAT_URL", server.url)
        publish("a")
        monkeypatch.setenv("PUSHCOMPAT_PUBLISH_KEY", "from-environment")
        publish("a")
    sent = [talk.headers["authorization"] for talk in server.talks]
    assert sent == ["Bearer from-file", "Bearer from-environment"]


def test_the_key_of_a_server_on_this_machine_is_found(tmp_path: Path) -> None:
    key, _ = load_or_create_key(tmp_path)
    with stub(fine) as server:
        publish("a", url=server.url)
    assert server.talks[0].headers["authorization"] == f"Bearer {key}"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8888", True),
        ("http://127.9.9.9", True),
        ("http://localhost", True),
        ("http://[::1]:8888/push", True),
        ("http+unix://%2Frun%2Fpush.sock/push", True),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://192.168.0.1", False),
        ("https://example.com", False),
    ],
)
def test_the_key_on_this_disk_is_only_for_a_server_on_this_machine(tmp_path: Path, url: str, local: bool) -> None:
    key, _ = load_or_create_key(tmp_path)
    assert find_key(Endpoint.parse(url)) == (key if local else None)


def test_without_a_key_the_refusal_says_where_one_was_looked_for(tmp_path: Path) -> None:
    with stub(refuses(401, "publishing needs the publish key")) as server, pytest.raises(PublishRefused) as refusal:
        publish("a", url=server.url)
    assert "authorization" not in server.talks[0].headers
    assert str(refusal.value).startswith("publishing needs the publish key (no publish key given, and cannot read")
    assert str(tmp_path) in str(refusal.value)


def test_a_key_file_that_may_not_be_read_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for an application under another user than the server's. (Root may read everything, but no directory.)"""
    monkeypatch.setenv("PUSHCOMPAT_PUBLISH_KEY_FILE", str(tmp_path))
    with stub(refuses(401, "publishing needs the publish key")) as server, pytest.raises(PublishRefused) as refusal:
        publish("a", url=server.url)
    assert f"cannot read the publish key in {tmp_path}: Is a directory" in str(refusal.value)
    assert "set PUSHCOMPAT_PUBLISH_KEY or PUSHCOMPAT_PUBLISH_KEY_FILE" in str(refusal.value)


def test_a_refused_key_points_to_the_parameter_of_the_messages_key() -> None:
    refusing = refuses(401, "invalid publish key")
    with stub(refusing) as server, pytest.raises(PublishRefused, match="to set the message's key use message_key="):
        publish("orders", "18 waiting", key="queue", url=server.url)


def test_a_refused_key_of_the_environment_points_to_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHCOMPAT_PUBLISH_KEY", "k")
    hint = r"is not the key \(look at PUSHCOMPAT_PUBLISH_KEY or PUSHCOMPAT_PUBLISH_KEY_FILE\)$"
    with stub(refuses(401, "this is not the key")) as server, pytest.raises(PublishRefused, match=hint):
        publish("orders", "18 waiting", url=server.url)


def test_a_key_that_can_not_be_sent_is_not_shown() -> None:
    with pytest.raises(ValueError, match="has spaces") as refusal:
        publish("a", key="s3cret\r\nX: y", url="http://127.0.0.1:1")
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_refused_because_it_would_take_the_key_elsewhere(status: int) -> None:
    with stub(fine) as other:
        redirect = json_says(status, {}, Location=f"{other.url}/channels/a")
        with stub(redirect) as server, pytest.raises(PublishRefused, match=f"redirects to {other.url}") as refusal:
            publish("a", url=server.url, key="k")
        assert refusal.value.status == status
        assert other.talks == []


# Tries


RETRYABLE = (408, 425, 426, 429, 500, 502, 503, 504, 521)


@pytest.mark.parametrize(
    "failure",
    [
        cut,
        says(b"garbage\r\n\r\n"),
        *map(refuses, RETRYABLE),
        *cut_short(200, json.dumps(ANSWER).encode()),
        *cut_short(401, b'{"detail":"no"}'),
    ],
)
def test_temporary_failures_are_retried_with_the_same_idempotency_key(
    failure: Callable[[Talk], None], pauses: list[float]
) -> None:
    with stub(failure, failure, fine) as server:
        assert publish("a", "x", url=server.url, key="k").id == ANSWER["id"]
    keys = {talk.headers["idempotency-key"] for talk in server.talks}
    assert len(server.talks) == 3
    assert len(keys) == 1
    assert len(keys.pop()) >= 32
    assert [0.05 <= pause <= most for pause, most in zip(pauses, (0.1, 0.2), strict=True)] == [True] * 2


@pytest.mark.parametrize("failure", cut_short(200, json.dumps(ANSWER).encode()))
def test_a_response_that_stays_incomplete_leaves_open_whether_it_was_published(
    failure: Callable[[Talk], None], pauses: list[float]
) -> None:
    with stub(failure) as server, pytest.raises(PublishUnavailable) as raised:
        publish("a", "x", url=server.url, key="k")
    assert {talk.headers["idempotency-key"] for talk in server.talks} == {raised.value.idempotency_key}
    assert len(server.talks) > 2


def test_informational_responses_are_skipped() -> None:
    with stub(informed(informed(fine))) as server:
        assert publish("a", "x", url=server.url, key="k").id == ANSWER["id"]
    with stub(informed(refuses(404, "not here"))) as server, pytest.raises(PublishRefused, match="not here"):
        publish("a", "x", url=server.url, key="k")


@pytest.mark.parametrize("informational", INFORMATIONAL.split(b"HTTP/1.1 ")[1:])
def test_informational_responses_without_end_are_a_failure(informational: bytes) -> None:
    endless = informed(fine, (b"HTTP/1.1 " + informational) * 1000)
    with stub(endless) as server, pytest.raises(PublishUnavailable, match="informational responses"):
        publish("a", "x", url=server.url, key="k")


def test_each_call_has_a_key_of_its_own_unless_it_is_given_one() -> None:
    with stub(fine) as server:
        publish("a", url=server.url)
        publish("a", url=server.url)
        publish("a", url=server.url, idempotency_key="mine")
    keys = [talk.headers["idempotency-key"] for talk in server.talks]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 415, 422])
def test_requests_that_the_server_refuses_are_not_retried(status: int, pauses: list[float]) -> None:
    with (
        stub(refuses(status, "change this")) as server,
        pytest.raises(PublishRefused, match=r"^change this$") as refusal,
    ):
        publish("a", "x", url=server.url, key="k")
    assert refusal.value.status == status
    assert len(server.talks) == 1


@pytest.mark.parametrize("status", RETRYABLE)
def test_a_failure_that_may_pass_is_not_a_refusal(status: int, pauses: list[float]) -> None:
    with stub(refuses(status, "oops")) as server, pytest.raises(PublishUnavailable, match="oops") as failure:
        publish("a", "x", url=server.url, key="k", idempotency_key="i")
    assert (failure.value.status, failure.value.idempotency_key) == (status, "i")
    assert len(server.talks) > 3


@pytest.mark.parametrize(
    ("retry_after", "least"),
    [("3", 3.0), (lambda: formatdate(time.time() + 5, usegmt=True), 3.5), ("soon", 0.0), ("-1", 0)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int, retry_after: Any, least: float, pauses: list[float]) -> None:
    text = retry_after if isinstance(retry_after, str) else retry_after()
    with stub(refuses(status, Retry_After=text), fine) as server:
        publish("a", url=server.url, key="k", timeout=10)
    assert least <= pauses[0] <= least + 2


@pytest.mark.parametrize("text", ["60", "9" * 20, "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_beyond_the_time_out_ends_the_call_at_once(text: str, pauses: list[float]) -> None:
    with stub(refuses(429, "busy", Retry_After=text)) as server, pytest.raises(PublishUnavailable, match="busy"):
        publish("a", url=server.url, key="k")
    assert pauses == []


def test_tries_go_on_until_the_time_is_over(pauses: list[float]) -> None:
    with stub(refuses(503, "restarting")) as server, pytest.raises(PublishUnavailable, match="restarting") as failure:
        publish("a", url=server.url, key="k", timeout=10)
    assert 9 < sum(pauses) < 10
    assert len(server.talks) == len(pauses) + 1
    assert failure.value.idempotency_key == server.talks[0].headers["idempotency-key"]


def test_an_unreachable_server_is_named() -> None:
    with stub(fine) as gone:
        pass
    with pytest.raises(PublishUnavailable, match=rf"cannot reach {gone.url}: Connection refused; is the server"):
        publish("a", url=gone.url, timeout=200 * MS)


def test_silence_ends_with_the_time_out() -> None:
    with stub(silent) as server, pytest.raises(PublishUnavailable, match=r"timed out waiting for .* may have been"):
        publish("a", url=server.url, timeout=100 * MS)
    assert len(server.talks) == 1


def test_a_server_that_says_a_byte_now_and_then_can_not_hold_the_caller() -> None:
    def trickle(talk: Talk) -> None:
        talk.request()
        for byte in answer(200, b"x" * 100_000):
            talk.send(bytes([byte]))
            select.select([talk.socket], [], [], 10 * MS)  # until the client is gone, or it is time for another

    began = time.monotonic()
    with stub(trickle) as server, pytest.raises(PublishUnavailable, match="timed out"):
        publish("a", url=server.url, timeout=200 * MS)
    assert time.monotonic() - began < PATIENCE_S / 2


def cut_in_the_middle(talk: Talk) -> None:
    talk.request()
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{")


@pytest.mark.parametrize(
    ("script", "said", "look_at"),
    [
        (silent, "timed out waiting for URL, which was reached; it may have been published", "timeout"),
        (cut, "URL was reached, and closed the connection without an answer; it may have been published", "its log"),
        (cut_in_the_middle, "the connection to URL was lost in the middle of the response; it may have", "its log"),
        (says(b"SSH-2.0-OpenSSH\r\n"), "URL did not answer in HTTP (SSH-2.0-OpenSSH)", "PUSHCOMPAT_URL"),
        (says(answer(502, b"<html>")), "URL answered 502 Bad Gateway", "its log"),
        (says(answer(404, b"<html>")), "URL answered 404 Not Found", "PUSHCOMPAT_URL"),
        (says(answer(200, b"<html>")), "URL did not answer like a push server", "PUSHCOMPAT_URL"),
        (says(answer(301, b"", Location="https://a/")), "URL redirects to https://a/", "PUSHCOMPAT_URL"),
        (refuses(401, "the key is wrong"), "the key is wrong", "PUSHCOMPAT_PUBLISH_KEY"),
    ],
)
def test_a_failure_says_what_happened_and_where_to_look(
    script: Callable[[Talk], None], said: str, look_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSHCOMPAT_PUBLISH_KEY", "k")
    with stub(script) as server, pytest.raises(PublishError) as failed:
        publish("a", url=server.url, timeout=200 * MS)
    assert str(failed.value).startswith(said.replace("URL", server.url))
    assert look_at in str(failed.value).removeprefix(server.url)


def test_a_server_that_speaks_no_tls_is_told_from_one_that_is_away() -> None:
    def speaks_plainly(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        talk.wait_for_end()

    with stub(speaks_plainly) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(PublishUnavailable, match=rf"no TLS with {url}: .*PUSHCOMPAT_URL"):
            publish("a", url=url, key="k", timeout=200 * MS)


NOT_OURS = [
    b'{"ok":true}',
    b"[]",
    b"<html>",
    b"\xff",
    b"[" * 200_000,
    b'{"id":null,"channels":{}}',
    b'{"id":7,"channels":{}}',
    b'{"id":"","channels":[]}',
    b'{"id":"x","channels":{"a":{"subscribers":1e999}}}',
    b'{"id":"x","channels":{"a":{"subscribers":NaN}}}',
    b'{"id":"x","channels":{"a":{"subscribers":"3"}}}',
    b'{"id":"x","channels":{"a":{"subscribers":true}}}',
    b'{"id":"x","channels":{"a":{"subscribers":%b}}}' % (b"9" * 5000),
]


@pytest.mark.parametrize("body", NOT_OURS, ids=range(len(NOT_OURS)))
def test_another_server_at_that_url_is_told_from_ours(body: bytes) -> None:
    with (
        stub(says(answer(200, body))) as server,
        pytest.raises(PublishRefused, match="did not answer like a push server; is the URL right"),
    ):
        publish("a", url=server.url, key="k")


@pytest.mark.parametrize("body", NOT_OURS, ids=range(len(NOT_OURS)))
def test_an_error_of_another_server_is_named_by_its_status(body: bytes) -> None:
    with stub(says(answer(404, body))) as server, pytest.raises(PublishRefused, match="answered 404 Not Found"):
        publish("a", url=server.url, key="k")


@pytest.mark.parametrize("timeout", [1e300, float("inf")])
def test_a_call_may_take_for_ever(timeout: float) -> None:
    with stub(fine) as server:
        assert publish("a", url=server.url, key="k", timeout=timeout).id == ANSWER["id"]


def test_a_refusal_in_the_middle_of_the_body_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    sendall = BoundedSocket.sendall

    def break_off(sock: BoundedSocket, data: bytes) -> None:
        sendall(sock, data)
        raise BrokenPipeError

    monkeypatch.setattr(BoundedSocket, "sendall", break_off)
    with stub(refuses(413, "too large")) as server, pytest.raises(PublishError, match="too large"):
        publish("a", "x", url=server.url, key="k")


def test_a_certificate_of_nobody_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    def fail(*_: object) -> None:
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise error

    monkeypatch.setattr("pushcompat.client.pool.dial", fail)
    with pytest.raises(PublishRefused, match=r"certificate verification failed for .*: self-signed"):
        publish("a", url="https://127.0.0.1", key="k")
    assert pauses == []


# For coroutines


def test_the_asynchronous_twin_does_the_same_and_lets_others_run() -> None:
    async def both() -> tuple[Published, bool]:
        others = asyncio.Event()
        asyncio.get_running_loop().call_soon(others.set)
        published = await publish_async("a", "x", url=server.url, key="k")
        return published, others.is_set()

    with stub(refuses(503), fine) as server:
        published, others_ran = asyncio.run(both())
    assert published == Published(ANSWER["id"], {"a": 3})
    assert others_ran
    assert len({talk.headers["idempotency-key"] for talk in server.talks}) == 1


def test_the_asynchronous_twin_can_be_cancelled_between_tries() -> None:
    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                publish_batch_async([{"channel": "a"}], url=server.url, key="k", timeout=10), 300 * MS
            )

    with stub(refuses(503, Retry_After="5")) as server:
        asyncio.run(give_up())
    assert len(server.talks) == 1


# The package


def test_an_application_that_publishes_imports_the_standard_library_only() -> None:
    code = "import sys; from pushcompat import publish; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    names = {name for name in done.stdout.split() if not name.startswith("_")}
    assert names - sys.stdlib_module_names <= {"pushcompat"} | names_of_site_hooks()


def names_of_site_hooks() -> set[str]:
    """What this Python loads by itself, for editable installs and the like."""
    code = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return set(done.stdout.split())


# The real server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("state"), "--drain-timeout", "0")
    yield server
    assert server.stop() == 0
    assert server.complaints() == []


def kept(served: Server, channel: str) -> list[Any]:
    with served.connect() as client:
        client.request("GET", f"/channels/{channel}?cursor=earliest&transport=longpoll")
        return [message["data"] for message in json.loads(client.response()[2])["messages"]]


def test_the_server_takes_what_is_published(served: Server) -> None:
    first = publish(["r1", "r2"], {"a": 1}, url=served.url, key=KEY, message_key="k", type="t", ttl=60)
    assert first.channels == {"r1": 0, "r2": 0}
    second = asyncio.run(publish_async("r1", "x", url=served.url, key=KEY))
    assert second.id > first.id
    assert kept(served, "r1") == [{"a": 1}, "x"]


def test_the_server_takes_a_batch_or_nothing_of_it(served: Server) -> None:
    publish_batch(
        [{"channel": "b1", "data": 1}, {"channel": "b2", "data": "x"}, {"channel": "b2"}], url=served.url, key=KEY
    )
    assert kept(served, "b1") == [1]
    assert kept(served, "b2") == ["x", "UPDATED"]
    with pytest.raises(PublishRefused, match="message 1 of the batch"):
        publish_batch([{"channel": "b1", "data": 2}, {"channel": "b1", "ttl": -1}], url=served.url, key=KEY)
    assert kept(served, "b1") == [1]


def test_items_of_a_batch_that_are_sent_again_with_others_are_delivered_once(served: Server) -> None:
    rows: list[Update] = [{"channel": "b-ids", "data": n, "id": f"row-{n}"} for n in range(4)]
    assert publish_batch(rows[1:3], url=served.url, key=KEY).repeated == ()
    published = publish_batch(rows, url=served.url, key=KEY)
    assert published.repeated == (1, 2)
    assert kept(served, "b-ids") == [1, 2, 0, 3]
    with pytest.raises(PublishRefused, match="message 1 of the batch: its id was used for another message") as refused:
        publish_batch([{"channel": "b-ids"}, {"channel": "b-ids", "id": "row-0"}], url=served.url, key=KEY)
    assert refused.value.status == 422


def test_a_publish_whose_answer_got_lost_is_delivered_once(
    served: Server, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    lost: list[bytes] = []

    def lose_first(*arguments: Any) -> Any:
        answered = exchange.exchange(*arguments)
        if lost:
            return answered
        lost.append(answered[0].body)
        raise ConnectionResetError("the answer got lost")

    monkeypatch.setattr("pushcompat.client.publisher.exchange", lose_first)
    published = publish("once", "x", url=served.url, key=KEY)
    assert published.id == json.loads(lost[0])["id"]
    assert kept(served, "once") == ["x"]


def test_a_wrong_key_is_refused_with_what_the_server_says(served: Server) -> None:
    with pytest.raises(PublishRefused, match="invalid publish key"):
        publish("a", url=served.url, key="wrong")


@pytest.mark.parametrize("call", [publish, lambda *given, **named: asyncio.run(publish_async(*given, **named))])
def test_a_server_on_a_unix_socket_is_reached(call: Callable[..., object], tmp_path: Path) -> None:
    def serve_once() -> None:
        sock, _ = listener.accept()
        sock.settimeout(PATIENCE_S)
        talk = Talk(sock)
        with sock, talk.file:
            fine(talk)
        targets.append(talk.target)

    targets: list[str] = []
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    thread = threading.Thread(target=serve_once)
    thread.start()
    with listener:
        call("a", url=f"http+unix://{str(path).replace('/', '%2F')}/push", key="k")
        thread.join(PATIENCE_S)
    assert targets == ["/push/channels/a"]
