from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..harness import KEY, PATIENCE_S, Client, Server, running


def test_the_landing_page_says_what_runs_here(shared_client: Client) -> None:
    shared_client.request("GET", "/")
    status, headers, body = shared_client.response()
    assert (status, headers["content-type"]) == (200, "text/html; charset=UTF-8")
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"pushcompat" in body
    assert b"/metrics" in body


def test_a_page_shows_a_hostile_host_harmlessly(shared_client: Client) -> None:
    shared_client.send(b'GET / HTTP/1.1\r\nHost: "><script>alert(1)</script>\r\nConnection: close\r\n\r\n')
    assert shared_client.head()[0] in (200, 400)
    assert b"<script>alert" not in shared_client.to_end()


@pytest.mark.parametrize(("path", "body"), [("/healthz", b"ok\n"), ("/readyz", b"ready\n")])
def test_health_is_one_word(shared_client: Client, path: str, body: bytes) -> None:
    shared_client.request("GET", path)
    status, headers, got = shared_client.response()
    assert (status, got, headers["cache-control"]) == (200, body, "no-store, no-transform")
    assert headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics"])
def test_every_page_answers_head(shared_client: Client, path: str) -> None:
    shared_client.request("HEAD", path)
    status, headers = shared_client.head()
    assert (status, int(headers["content-length"]) > 0) == (200, True)
    shared_client.request("GET", "/healthz")
    assert shared_client.response()[2] == b"ok\n"


@pytest.mark.options("--drain-time", "5")
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
    assert all(name.startswith("pushcompat_") and family.documentation for name, family in families.items())
    assert families["pushcompat_connections"].type == "gauge"
    assert families["pushcompat_publishes"].type == "counter"
    assert families["pushcompat_pass_seconds"].type == "histogram"
    assert {"pushcompat_sockets", "pushcompat_log_bytes", "pushcompat_draining"} <= families.keys()


@pytest.mark.parametrize("name", ["pushcompat.js", "pushcompat.mjs"])
def test_the_client_can_be_loaded_by_pages_of_any_origin(shared_client: Client, name: str) -> None:
    shared_client.request("GET", f"/static/{name}", Origin="https://app.example")
    status, headers, body = shared_client.response()
    assert (status, headers["access-control-allow-origin"]) == (200, "*")
    assert headers["content-type"].startswith(("text/javascript", "application/javascript"))
    assert b"PushCompat" in body
    shared_client.request("GET", f"/static/{name}", If_None_Match=headers["etag"])
    assert shared_client.response()[0] == 304


@pytest.mark.parametrize("path", ["/nothing", "/static/nothing.js", "/static/../setup.cfg", "/static/%2e%2e/setup.cfg"])
def test_what_is_not_there_is_a_problem_document(shared_client: Client, path: str) -> None:
    shared_client.request("GET", path)
    status, headers, detail = shared_client.problem()
    assert status in (403, 404)
    assert headers["server"] == "pushcompat"
    assert detail
    shared_client.request("GET", "/healthz")
    assert shared_client.response()[2] == b"ok\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_pages_can_only_be_read(shared_client: Client, method: str, path: str) -> None:
    shared_client.request(method, path)
    status, headers, _ = shared_client.problem()
    assert (status, headers["allow"]) == (405, "GET, HEAD")


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
