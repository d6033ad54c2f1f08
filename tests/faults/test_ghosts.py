"""The browser client and the Python client behind a proxy that keeps streams open after their client has gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushcompat.client.dial import Endpoint
from pushcompat.client.listener import Listener
from pushcompat.client.position import Position
from pushcompat.client.transports import Subscription, Watchdog

from ..chromium import Page, Profile, needed
from ..harness import PATIENCE_S, Server, running
from ..proxy import Proxy

CLIENT = (Path(__file__).parents[2] / "static" / "pushcompat.js").read_text()
ENDED = 'pushcompat_unsubscribes_total{reason="superseded"}'


class QuickServer(Server):
    module = "tests.quick_races"


class KeepingProxy(Proxy):
    """Never tells the server that a client has gone."""

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        if source.getpeername()[1] == self.target:
            super().pump(source, sink)
            return
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass


class HoldingProxy(KeepingProxy):
    """Holds back event streams as well, as lighttpd's default does: pages fall back to long-poll."""

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        if source.getpeername()[1] != self.target:
            super().pump(source, sink)
            return
        try:
            while data := source.recv(65536):
                if b"text/event-stream" not in data and b"event: control" not in data:
                    sink.sendall(data)
        except OSError:
            pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path / "state", "--heartbeat", "1", kind=QuickServer)


def follow(page: Page, base: str, name: str, options: str) -> None:
    page.evaluate(
        f"""var seen = seen || [], states = states || [], {name} = PushCompat.subscribe("{base}/channels/ghosts", {{
          shareTabs: false, {options}
          onMessage: function (message) {{ seen.push("{name} " + message.data); }},
          onState: function (change) {{ states.push(change.state); }}
        }}); 0"""
    )
    page.wait_for(f"{name}.state == 'open' && {name}.cursor")


@needed
def test_a_page_that_connects_anew_ends_the_stream_that_the_proxy_kept(server: Server, chromium: Profile) -> None:
    page = chromium.open(f"{server.url}/healthz", policy=False)
    page.evaluate(f"{CLIENT}; 0")
    with KeepingProxy(server.port) as proxy:
        follow(page, proxy.url, "page", 'transports: ["eventsource"],')
        page.evaluate(
            "page._line._source._current._socket.close(); page._line._source.wake(true); 0"
        )  # a change of network
        server.wait_for_metric('pushcompat_subscriptions{transport="eventsource"}', 2, 2)
        assert server.publish("ghosts", "one")["channels"]["ghosts"]["subscribers"] == 1
        server.wait_for_metric('pushcompat_subscriptions{transport="eventsource"}', 1, 1)
        assert server.metric(ENDED) == 1
        server.publish("ghosts", "two")
        page.wait_for("seen.length >= 2")
        assert page.evaluate("seen") == ["page one", "page two"]
    server.wait_for_log("unsubscribe .*reason=superseded")


@needed
def test_a_websocket_that_lives_is_never_ended_for_a_stream_that_came_later(server: Server, chromium: Profile) -> None:
    page = chromium.open(f"{server.url}/healthz", policy=False)
    page.evaluate(f"{CLIENT}; 0")
    follow(page, server.url, "page", 'transports: ["websocket"],')
    with server.connect() as loser:
        name = page.evaluate("page._line._source.client")
        loser.request("GET", f"/channels/ghosts?client={name}", Accept="text/event-stream")
        loser.head()
        assert server.publish("ghosts", "one")["channels"]["ghosts"]["subscribers"] == 1
        server.wait_for_metric(ENDED, 1, 1)
        loser.to_end()
    server.publish("ghosts", "two")
    page.wait_for("seen.length >= 2")
    assert page.evaluate("states") == ["open"]


@needed
def test_streams_that_a_page_gave_up_for_polls_are_ended_and_the_page_misses_nothing(
    server: Server, chromium: Profile
) -> None:
    page = chromium.open(f"{server.url}/healthz", policy=False)
    page.evaluate(f"{CLIENT}; 0")
    with HoldingProxy(server.port) as proxy:
        follow(page, proxy.url, "page", 'transports: ["eventsource", "longpoll"], stagger: 50, upgradeAfter: [100],')
        server.wait_for_metric('pushcompat_subscriptions{transport="eventsource"}', 1)
        sent = []
        while server.metric(ENDED) < 1:  # each message makes the page poll anew
            sent.append(f"page {len(sent)}")
            answer = server.publish("ghosts", sent[-1].removeprefix("page "))
            assert answer["channels"]["ghosts"]["subscribers"] == 1
            page.wait_for(f"seen.length >= {len(sent)}")
        assert page.evaluate("seen") == sent
        assert page.evaluate("page.transport") == "longpoll"


@needed
def test_two_subscriptions_of_one_page_to_one_channel_both_stay(server: Server, chromium: Profile) -> None:
    page = chromium.open(f"{server.url}/healthz", policy=False)
    page.evaluate(f"{CLIENT}; 0")
    for name in ("one", "two"):
        follow(page, server.url, name, 'transports: ["eventsource"],')
    # A client that does change its connection, so that a check has been made after which these would have been ended
    with server.connect() as first, server.connect() as second:
        for client in (first, second):
            client.request("GET", "/channels/other?client=x", Accept="text/event-stream")
            client.head()
        server.wait_for_metric(ENDED, 1, 1)
    server.publish("ghosts", "hello")
    page.wait_for("seen.length >= 2")
    assert page.evaluate("states.filter(function (state) { return state == 'open'; }).length") == 2


def test_the_python_client_ends_its_own_ghost_and_misses_nothing(server: Server) -> None:
    with KeepingProxy(server.port) as proxy:
        endpoint = Endpoint.parse(proxy.url)
        subscription = Subscription(endpoint, ["ghosts"], Watchdog(), None, Position())
        connected = threading.Semaphore(0)

        def note(text: str) -> None:
            if "connected" in text:
                connected.release()

        listener = Listener(subscription, ["eventsource"], note)
        seen: list[bytes] = []
        arrived = threading.Semaphore(0)

        def listen() -> None:
            for document in listener.documents():
                seen.append(document)
                arrived.release()
                if len(seen) == 2:
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        assert connected.acquire(timeout=PATIENCE_S)
        server.publish("ghosts", "one")
        assert arrived.acquire(timeout=PATIENCE_S)
        proxy.hang_up_on_clients()
        assert connected.acquire(timeout=PATIENCE_S)
        server.wait_for_metric(ENDED, 1, 1)
        server.publish("ghosts", "two")
        assert arrived.acquire(timeout=PATIENCE_S)
        thread.join(PATIENCE_S)
        assert [b'"one"' in seen[0], b'"two"' in seen[1]] == [True, True]
