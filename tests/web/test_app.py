"""The pages: the application by itself under pytest-tornado, then what only a server process can show."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tornado.web import Application

from pushcompat.assets import STATIC
from pushcompat.web.app import Views, make_application

from ..harness import KEY, PATIENCE_S, Client, Server, running
from .conftest import Fetch, exposed, problem


@pytest.fixture
def draining() -> list[bool]:
    """The last item says whether the server is."""
    return [False]


@pytest.fixture
def prefix() -> str:
    return ""


@pytest.fixture
def app(draining: list[bool], prefix: str) -> Application:
    return make_application(Views("1.2.3", prefix, exposed, lambda: "draining" if draining[-1] else None))


@pytest.mark.gen_test
async def test_the_landing_page_says_what_runs_here(fetch: Fetch) -> None:
    response = await fetch("/")
    assert (response.code, response.headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert b"1.2.3" in response.body
    assert b"/metrics" in response.body


@pytest.mark.gen_test
async def test_health_is_one_word(fetch: Fetch, draining: list[bool]) -> None:
    for path, code, body in [
        ("/healthz", 200, b"ok\n"),
        ("/readyz", 200, b"ready\n"),
        ("/healthz", 200, b"ok\n"),
        ("/readyz", 503, b"draining\n"),
    ]:
        draining.append(code == 503)
        response = await fetch(path)
        assert (response.code, response.body, response.headers["Cache-Control"]) == (
            code,
            body,
            "no-store, no-transform",
        )
        assert response.headers["Content-Type"].startswith("text/plain")


@pytest.mark.gen_test
async def test_metrics_are_the_servers(fetch: Fetch) -> None:
    response = await fetch("/metrics")
    assert (response.code, response.body) == (200, b"a 1.0\n")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics"])
@pytest.mark.gen_test
async def test_every_page_answers_head(fetch: Fetch, path: str) -> None:
    response = await fetch(path, method="HEAD")
    assert (response.code, int(response.headers["Content-Length"]) > 0, response.body) == (200, True, b"")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("pushcompat.js", "text/javascript; charset=utf-8"),
        ("pushcompat.mjs", "text/javascript; charset=utf-8"),
        ("pushcompat.d.ts", "text/plain; charset=utf-8"),
        ("pushcompat.d.mts", "text/plain; charset=utf-8"),
        ("chat.css", "text/css; charset=utf-8"),
        ("favicon.svg", "image/svg+xml"),
    ],
)
@pytest.mark.gen_test
async def test_a_static_file_has_the_same_type_on_every_machine(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, name: str, content_type: str
) -> None:
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: ("text/vnd.something.else", None))
    response = await fetch(f"/static/{name}")
    assert (response.code, response.headers["Content-Type"]) == (200, content_type)
    again = await fetch(f"/static/{name}", headers={"If-None-Match": response.headers["Etag"]})
    assert again.code == 304


@pytest.mark.parametrize("name", ["pushcompat.mjs", *(path.name for path in STATIC.iterdir() if path.is_file())])
@pytest.mark.gen_test
async def test_of_the_static_files_only_the_client_is_for_pages_of_other_origins(fetch: Fetch, name: str) -> None:
    response = await fetch(f"/static/{name}", headers={"Origin": "https://app.example"})
    shared = name.startswith("pushcompat.")
    assert response.headers["Cross-Origin-Resource-Policy"] == ("cross-origin" if shared else "same-origin")
    assert response.headers.get("Access-Control-Allow-Origin") == ("*" if shared else None)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/", None),
        ("HEAD", "/", None),
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/metrics", None),
        ("GET", "/nothing", None),
        ("GET", "/static/pushcompat.js", None),
        ("GET", "/static/nothing", None),
        ("POST", "/", None),
        ("POST", "/", b"x"),
        ("POST", "/nothing", b"x"),
    ],
)
@pytest.mark.gen_test
async def test_every_response_forbids_scripts_frames_and_sniffing(
    fetch: Fetch, method: str, path: str, body: bytes | None
) -> None:
    fields = (await fetch(path, method=method, body=body)).headers
    rules = dict(rule.split(" ", 1) for rule in fields["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "script-src" not in rules
    assert "unsafe" not in fields["Content-Security-Policy"]
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert fields["Referrer-Policy"] == "same-origin"
    assert fields["Cross-Origin-Resource-Policy"] in ("same-origin", "cross-origin")


@pytest.mark.parametrize("path", ["/nothing", "/static/nothing.js", "/static/%2e%2e/setup.cfg"])
@pytest.mark.gen_test
async def test_a_missing_page_is_a_problem_document(fetch: Fetch, path: str) -> None:
    response = await fetch(path)
    status, detail = problem(response)
    assert status in (403, 404)
    assert detail
    assert response.headers["Server"] == "pushcompat"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/static/pushcompat.js"])
@pytest.mark.gen_test
async def test_pages_can_only_be_read(fetch: Fetch, method: str, path: str) -> None:
    for body in (None, b"hello"):
        response = await fetch(path, method=method, body=body)
        assert problem(response) == (405, "method not allowed; see the Allow header")
        assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 413), ("GET", "/static/pushcompat.js", 413), ("GET", "/nothing", 404), ("POST", "/nothing", 404)],
)
@pytest.mark.gen_test
async def test_no_page_takes_a_body(fetch: Fetch, method: str, path: str, status: int) -> None:
    response = await fetch(path, method=method, body=b"x")
    assert problem(response)[0] == status
    assert (await fetch(path, method=method, body=b"")).code != 413  # a length of 0 is no body


@pytest.mark.parametrize("prefix", ["/push"])
@pytest.mark.gen_test
async def test_the_prefix_alone_leads_to_the_landing_page(fetch: Fetch, prefix: str) -> None:
    response = await fetch(prefix)
    assert (response.code, response.headers["Location"]) == (301, f"{prefix}/")
    assert (await fetch(f"{prefix}/")).code == 200
    assert (await fetch("/")).code == 404
    response = await fetch(prefix, method="POST", body=b"x")
    assert problem(response)[0] == 405


# In a server process


@pytest.mark.gen_test
async def test_refusals_of_pages_fill_no_log(fetch: Fetch, caplog: pytest.LogCaptureFixture) -> None:
    assert (await fetch("/static/..%2fsetup.py")).code == 403
    assert (await fetch("/static/a", method="POST", body=b"x")).code == 405
    assert caplog.records == []


@pytest.mark.gen_test
async def test_a_bug_in_a_page_is_logged_without_its_url(
    fetch: Fetch, caplog: pytest.LogCaptureFixture, draining: list[bool]
) -> None:
    draining.clear()
    assert (await fetch("/readyz?token=secret")).code == 500
    assert "BUG: unhandled exception in a page" in caplog.text
    assert "secret" not in caplog.text


def test_a_page_shows_a_hostile_host_harmlessly(shared_client: Client) -> None:
    """No HTTP client would send it."""
    shared_client.send(b'GET / HTTP/1.1\r\nHost: "><script>alert(1)</script>\r\nConnection: close\r\n\r\n')
    assert shared_client.head()[0] in (200, 400)
    assert b"<script>alert" not in shared_client.to_end()


def test_no_file_outside_of_static_is_served(shared_client: Client) -> None:
    """HTTP clients resolve the dots themselves."""
    shared_client.request("GET", "/static/../setup.cfg")
    assert shared_client.problem()[0] in (403, 404)


@pytest.mark.parametrize(
    ("method", "target", "fields", "status"),
    [
        ("GET", "/channels/a?wait=0", {}, 200),
        ("GET", "/channels/a?transport=eventsource", {}, 200),
        ("GET", "/channels", {"Authorization": f"Bearer {KEY}"}, 200),
        ("POST", "/channels/a", {"Authorization": f"Bearer {KEY}", "Content-Length": "0"}, 200),
        ("OPTIONS", "/channels/a", {}, 204),
        ("GET", "/channels/a!", {}, 400),
        ("POST", "/channels/a", {}, 401),
        ("GET", "/channels/a", {"Origin": "https://evil.example"}, 403),
        ("PUT", "/channels/a", {}, 405),
        ("GET", "/channels/a", {"Connection": "Upgrade", "Upgrade": "websocket"}, 426),
        ("GET", "/channels/a?transport=websocket", {}, 426),
    ],
)
def test_every_response_of_the_hub_forbids_sniffing(
    shared_client: Client, method: str, target: str, fields: dict[str, str], status: int
) -> None:
    shared_client.request(method, target, **fields)
    got, headers = shared_client.head()
    assert (got, headers["x-content-type-options"]) == (status, "nosniff")


@pytest.mark.options("--drain-timeout", "5")
def test_a_draining_server_is_alive_but_not_ready_and_takes_publishes(server: Server) -> None:
    with server.connect() as stuck, server.connect() as client, server.connect() as publisher:
        # Who does not answer a Close keeps the server draining for a while.
        assert stuck.upgrade("/channels/drain") == 101
        client.request("GET", "/readyz")
        assert client.response()[2] == b"ready\n"
        publisher.publish("drain")
        publisher.response()
        server.process.terminate()
        server.wait_for_log("stopping")
        client.request("GET", "/readyz")
        assert client.response()[::2] == (503, b"draining\n")
        client.request("GET", "/healthz")
        assert client.response()[::2] == (200, b"ok\n")
        publisher.publish("drain")
        assert publisher.response()[0] == 200
        assert server.process.wait(PATIENCE_S) == 0


def test_metrics_are_what_prometheus_reads(shared_client: Client) -> None:
    shared_client.publish("metrics", b"x")
    shared_client.response()
    shared_client.request("GET", "/metrics")
    status, headers, body = shared_client.response()
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    ours = "pushcompat_", "process_"
    assert all(name.startswith(ours) and family.documentation for name, family in families.items())
    assert families["pushcompat_connections"].type == "gauge"
    assert families["pushcompat_publishes"].type == "counter"
    assert families["pushcompat_delivery_pass_duration_seconds"].type == "histogram"
    assert {"pushcompat_connections", "pushcompat_retained_bytes", "pushcompat_draining"} <= families.keys()


@pytest.fixture(scope="module")
def prefixed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--prefix", "/push")


def test_under_a_prefix_everything_is_there(prefixed_server: Server) -> None:
    with prefixed_server.connect() as client:
        for _ in range(2):
            for path in ("/push/", "/push/healthz", "/push/readyz", "/push/metrics"):
                client.request("GET", path)
                assert client.response()[0] == 200
            client.request("POST", "/push/channels/chat", b"hi", Authorization=f"Bearer {KEY}")
            assert client.response()[0] == 200
            client.request("GET", "/push/channels/chat?cursor=earliest")
            assert json.loads(client.response()[2])["messages"][0]["data"] == "hi"


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/channels/chat", "/pushchannels/chat", "/push/channelsx", "/push/push/channels/chat"]
)
def test_outside_of_the_prefix_nothing_is(prefixed_server: Server, path: str) -> None:
    with prefixed_server.connect() as client:
        for _ in range(2):
            client.request("GET", path)
            assert client.problem()[0] == 404
