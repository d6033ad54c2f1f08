"""The application is asked about subscribers: what it is sent, and what each of its answers means."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from ..harness import PATIENCE_S, Client, Server, running

JSON = (("Content-Type", "application/json"),)


class Reply(NamedTuple):
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Application:
    """Answers by the cookie, from ``replies``; ``held`` cookies are not answered before ``release``."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.at_once = self.most_at_once = 0
        self.release = threading.Event()
        self.release.set()
        self._lock = threading.Condition()
        application = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reply = application._asked(self.path, dict(self.headers.items()))
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                try:
                    self.wfile.write(reply.body)
                except OSError:
                    pass  # the server has had enough

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/authorize"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def _asked(self, path: str, fields: dict[str, str]) -> Reply:
        with self._lock:
            self.asked.append((path, fields))
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            self._lock.notify_all()
        self.release.wait(PATIENCE_S)
        with self._lock:
            self.at_once -= 1
        return self.replies.get(fields.get("Cookie", ""), Reply(401))

    def wait_until_asked(self, at_once: int) -> None:
        with self._lock:
            assert self._lock.wait_for(lambda: self.at_once >= at_once, PATIENCE_S)

    def stop(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)


@pytest.fixture
def application() -> Iterator[Application]:
    application = Application()
    yield application
    application.stop()


@pytest.fixture
def server(application: Application, tmp_path: Path) -> Iterator[Server]:
    yield from running(
        tmp_path / "state", "--authorize-url", f"{application.url}?key=1", "--authorize-timeout", "2s",
        "--authorize-concurrency", "3",
    )  # fmt: skip


def ask(client: Client, names: str = "a", query: str = "", **fields: str) -> tuple[int, dict[str, str], str]:
    """A poll that is not held: status, header fields, and the detail of a refusal."""
    client.request("GET", f"/channels/{names}?wait=0{query}", **fields)
    status, headers, body = client.response()
    return status, headers, json.loads(body).get("detail", "")


def test_the_application_gets_the_fields_that_sessions_depend_on_and_the_channels(
    application: Application, server: Server, client: Client
) -> None:
    application.replies["session=x; a=b"] = Reply(204)
    fields = {"Cookie": "session=x; a=b", "Authorization": "Basic eDp5", "User-Agent": "Firefox", "X-Other": "z"}
    assert ask(client, "orders:1,a~b@c", **fields)[0] == 200
    ((path, found),) = application.asked
    assert urlsplit(path).path == "/authorize"
    assert parse_qs(urlsplit(path).query) == {"key": ["1"], "channels": ["orders:1,a~b@c"]}
    assert found.items() >= {key: value for key, value in fields.items() if key != "X-Other"}.items()
    assert "X-Other" not in found


def test_the_parameter_token_is_sent_as_bearer(application: Application, server: Server, client: Client) -> None:
    assert ask(client, query="&token=abc.def")[0] == 401
    assert application.asked[0][1]["Authorization"] == "Bearer abc.def"
    assert "abc.def" not in "".join(server.log)


def test_a_cookie_that_is_not_ascii_arrives_byte_for_byte(
    application: Application, server: Server, client: Client
) -> None:
    ask(client, Cookie="name=Zoë")
    assert application.asked[0][1]["Cookie"].encode("latin-1").decode() == "name=Zoë"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200),
        Reply(204),
        Reply(200, b"ok"),
        Reply(200, b"{}"),
        Reply(201, b'{"sub": "ann", "channels": ["a"], "expires": 30}'),
        Reply(200, b' {"channels": ["x", "*"]}\n'),
        Reply(200, b'{"channels": ["a.{sub}", "{sub}"], "sub": "a"}'),
        Reply(200, b'{"channels": null, "expires": null}'),
        Reply(200, b'\xef\xbb\xbf{"channels": ["a"]}'),
        Reply(200, b"", JSON),
    ],
)
def test_a_clear_yes_admits(application: Application, server: Server, client: Client, reply: Reply) -> None:
    application.replies["c"] = reply
    assert ask(client, Cookie="c")[0] == 200


@pytest.mark.parametrize(
    ("reply", "status", "detail"),
    [
        (Reply(401), 401, "the application does not accept the session or token of the request"),
        (Reply(403, b"<html>"), 403, "the application does not allow this subscription"),
        (Reply(200, b'{"channels": []}'), 403, "the application does not allow channel a"),
        (Reply(200, b'{"channels": ["b", "a.*"]}'), 403, "the application does not allow channel a"),
        (Reply(200, b'{"channels": ["{sub}"]}'), 403, "the application does not allow channel a"),
        (Reply(200, b'\xef\xbb\xbf{"channels": []}'), 403, "the application does not allow channel a"),
    ],
)
def test_a_clear_no_refuses(
    application: Application, server: Server, client: Client, reply: Reply, status: int, detail: str
) -> None:
    application.replies["c"] = reply
    assert ask(client, Cookie="c")[::2] == (status, detail)


@pytest.mark.parametrize(
    ("reply", "logged"),
    [
        (Reply(302, b"", (("Location", "/login"),)), "302: answer 401 or 403 instead of a redirect"),
        (Reply(304), "304"),
        (Reply(404), "HTTP 404"),
        (Reply(429), "HTTP 429"),
        (Reply(500), "HTTP 500"),
        (Reply(200, b"<!doctype html>"), "HTML page"),
        (Reply(200, b"\xef\xbb\xbf<!doctype html>"), "HTML page"),
        (Reply(200, b"false", JSON), "Expected"),
        (Reply(200, b"null", (("Content-Type", "application/problem+json; charset=utf-8"),)), "Expected"),
        (Reply(200, '{"channels": []}'.encode("utf-16")), "utf-8"),
        (Reply(200, gzip.compress(b'{"channels": []}')), "utf-8"),
        (Reply(200, b'{"allowed": false}'), "unknown field"),
        (Reply(200, b'{"channels": ["a"'), "truncated"),
        (Reply(200, b'["a"]'), "Expected"),
        (Reply(200, b'{"channels": "a"}'), "Expected"),
        (Reply(200, b'{"channels": ["a b"]}'), "characters of channel names"),
        (Reply(200, b'{"channels": [""]}'), "matches no channel"),
        (Reply(200, b'{"sub": 42}'), "Expected"),
        (Reply(200, b'{"expires": 0}'), "Expected"),
        (Reply(200, b'{"expires": NaN}'), "JSON"),
        (Reply(200, b"{" + b" " * 100_000 + b"}"), "Connection closed"),
    ],
)
def test_anything_else_is_no_answer_and_the_log_says_why(
    application: Application, server: Server, client: Client, reply: Reply, logged: str
) -> None:
    application.replies["c"] = reply
    for _ in range(2):
        status, headers, detail = ask(client, Cookie="c")
        assert (status, headers["retry-after"]) == (503, "5")
        assert detail == "the application cannot decide about subscribers now; try again later"
    assert logged in server.wait_for_log("authorize_failed")
    assert len(application.asked) == 2, "an error is not kept"
    application.replies["c"] = Reply(200)
    assert ask(client, Cookie="c")[0] == 200
    server.wait_for_log("authorize_works")
    assert len([line for line in server.log if "authorize_failed" in line]) == 1
    assert server.metric("pushcompat_question_failures_total") == 2
    assert server.metric("pushcompat_questions_total") == 1


def test_an_answer_that_does_not_come_in_time_is_none(application: Application, server: Server, client: Client) -> None:
    application.release.clear()
    assert ask(client, Cookie="c")[0] == 503
    assert "Timeout" in server.wait_for_log("authorize_failed")


def test_while_the_application_is_down_those_whom_it_has_allowed_go_on(
    application: Application, server: Server, client: Client
) -> None:
    application.replies["c"] = Reply(200)
    with server.connect() as follower:
        assert follower.upgrade("/channels/a", Cookie="c") == 101
        application.stop()
        assert ask(client, Cookie="other")[0] == 503
        assert "refused" in server.wait_for_log("authorize_failed")
        for _ in range(3):
            with server.connect() as again:
                assert ask(again, Cookie="c")[0] == 200
        server.publish("a", "hello")
        assert follower.frame() == (0x81, b"hello")


def test_polls_do_not_flood_the_application(application: Application, server: Server, client: Client) -> None:
    application.replies["c"] = Reply(200)
    cursor = server.publish("a")["id"]
    for _ in range(50):
        assert ask(client, query=f"&cursor={cursor}", Cookie="c")[0] == 200
        with server.connect() as another:
            assert ask(another, query=f"&cursor={cursor}", Cookie="c")[0] == 200
    for _ in range(20):
        assert ask(client, Cookie="wrong")[0] == 401
    assert len(application.asked) == 2


def test_equal_requests_are_one_question_and_others_wait_for_their_turn(
    application: Application, server: Server
) -> None:
    application.release.clear()
    application.replies.update({f"{number}": Reply(200) for number in range(9)})
    clients = [server.connect() for _ in range(90)]
    try:
        for number, client in enumerate(clients):
            client.request("GET", "/channels/a?wait=0", Cookie=f"{number % 9}")
        server.wait_for_metric("pushcompat_admitting", 90)
        application.wait_until_asked(3)
        application.release.set()
        assert all(client.response()[0] == 200 for client in clients)
    finally:
        for client in clients:
            client.close()
    assert len(application.asked) == 9
    assert application.most_at_once == 3


def test_a_stream_ends_when_the_answer_does_and_the_application_is_asked_again(
    application: Application, server: Server
) -> None:
    application.replies["c"] = Reply(200, b'{"expires": 2}')
    for _ in range(2):
        with server.connect() as client:
            assert client.upgrade("/channels/a?format=json", Cookie="c") == 101
            while b'"expired"' not in client.frame()[1]:
                pass
            assert client.frame() == (0x88, b"\x11\x31expired")
    assert len(application.asked) == 2


def test_a_client_that_leaves_while_the_application_is_asked_costs_nothing(
    application: Application, server: Server, client: Client
) -> None:
    application.release.clear()
    application.replies["c"] = Reply(200)
    for _ in range(5):
        with server.connect() as one:
            one.request("GET", "/channels/a", Cookie="c")
            server.wait_for_metric("pushcompat_admitting", 1)
            one.socket.shutdown(socket.SHUT_RDWR)
        server.wait_for_metric("pushcompat_admitting", 0, 0)
    application.release.set()
    assert ask(client, Cookie="c")[0] == 200
    assert len(application.asked) == 1
