"""The client in a real browser: tabs that share a connection, the class of 2009 and its successor, the module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ..chromium import Page, Profile, needed
from ..harness import Server, running

pytestmark = needed

CLIENT = (Path(__file__).parents[2] / "static" / "pushcompat.js").read_text()
CONNECTIONS = 'pushcompat_subscriptions{transport="websocket"}'

# What a page of 2009 had: a bare WebSocket that shows what comes, compares it, and sends something against NAT.
CLASS_OF_2009 = """
function UpdateCheckSocket(host, port, resource, statusElement, callback) {
  var socket = new WebSocket("ws://" + host + ":" + port + resource);
  socket.onopen = function () { statusElement.innerHTML = "connected"; };
  socket.onclose = function () { statusElement.innerHTML = "closed"; };
  socket.onmessage = function (event) {
    statusElement.innerHTML = event.data;
    if (event.data == "UPDATED") callback();
  };
  this.send = function (text) { socket.send(text); };
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--heartbeat", "1", "--cors-origin", "*")


def page_of(server: Server, chromium: Profile, script: str) -> Page:
    """A page of the server's origin, without a policy, that has run the script."""
    page = chromium.open(f"{server.url}/healthz", policy=False)
    page.evaluate(script)
    return page


def tab(server: Server, chromium: Profile, channel: str, options: str = "") -> Page:
    page = page_of(
        server,
        chromium,
        f"""{CLIENT}
        var seen = [], subscription = PushCompat.subscribe("/channels/{channel}", {{
          {options} onMessage: function (message) {{ seen.push(message.data); }}
        }}); 0""",
    )
    page.wait_for("subscription.state == 'open' && subscription.cursor")
    return page


def has_seen(page: Page, *texts: str) -> None:
    page.wait_for(f"seen.length >= {len(texts)}")
    assert page.evaluate("seen") == list(texts)


def test_tabs_share_one_connection_and_the_next_goes_on_when_its_holder_leaves(
    server: Server, chromium: Profile
) -> None:
    before = server.metric(CONNECTIONS)
    tabs = [tab(server, chromium, "leaving") for _ in range(3)]
    assert server.metric(CONNECTIONS) == before + 1
    server.publish("leaving", "one")
    for page in tabs:
        has_seen(page, "one")
    for number in range(2):
        tabs.pop(0).call("Page.close")
        server.publish("leaving", f"while nobody leads {number}")
        server.publish("leaving", f"after {number}")
    has_seen(tabs[0], "one", *(text for n in range(2) for text in (f"while nobody leads {n}", f"after {n}")))
    server.wait_for_metric(CONNECTIONS, before + 1, before + 1)


def test_a_tab_that_has_come_to_a_halt_loses_the_lead_and_has_missed_nothing_when_it_goes_on(
    server: Server, chromium: Profile
) -> None:
    leader, follower = tab(server, chromium, "halting"), tab(server, chromium, "halting")
    leader.call("Debugger.enable")
    leader.call("Debugger.pause")
    server.publish("halting", "unheard by the leader")
    has_seen(follower, "unheard by the leader")
    leader.call("Debugger.disable")
    server.publish("halting", "heard by both")
    for page in (leader, follower):
        has_seen(page, "unheard by the leader", "heard by both")


def test_a_frozen_tab_hands_on_the_lead_and_catches_up(server: Server, chromium: Profile) -> None:
    leader, follower = tab(server, chromium, "freezing"), tab(server, chromium, "freezing")
    leader.call("Page.setWebLifecycleState", state="frozen")
    server.publish("freezing", "one")
    has_seen(follower, "one")
    leader.call("Page.setWebLifecycleState", state="active")
    has_seen(leader, "one")


def test_a_tab_that_does_not_share_has_its_own_connection(server: Server, chromium: Profile) -> None:
    before = server.metric(CONNECTIONS)
    tabs = [tab(server, chromium, "apart", "shareTabs: false,") for _ in range(2)]
    assert server.metric(CONNECTIONS) == before + 2
    server.publish("apart", "one")
    for page in tabs:
        has_seen(page, "one")


def test_many_subscriptions_of_a_page_leave_connections_for_its_own_requests(server: Server, chromium: Profile) -> None:
    connections = CONNECTIONS.replace("websocket", "eventsource")
    before = server.metric(connections)
    page = page_of(
        server,
        chromium,
        f"""{CLIENT}
        var seen = [], subscriptions = [0, 1, 2, 3, 4, 5, 6, 7].map(function (number) {{
          return PushCompat.subscribe("/channels/many" + number, {{
            transports: ["eventsource"], shareTabs: false,
            onMessage: function (message) {{ seen.push(number + message.data); }}
          }});
        }}); 0""",
    )
    page.wait_for("subscriptions.every(function (each) { return each.state == 'open' && each.cursor; })")
    assert page.evaluate("fetch('/healthz').then(function (response) { return response.status; })") == 200
    server.wait_for_metric(connections, before + 1, before + 1)
    for number in range(8):
        server.publish(f"many{number}", "x")
    has_seen(page, *(f"{number}x" for number in range(8)))


def test_tabs_without_web_locks_share_one_connection_too(server: Server, chromium: Profile) -> None:
    before = server.metric(CONNECTIONS)
    no_locks = "env: {locks: null},"
    tabs = [tab(server, chromium, "plain-http", no_locks) for _ in range(3)]
    server.wait_for_metric(CONNECTIONS, before + 1, before + 1)
    tabs.pop(0).call("Page.close")
    server.publish("plain-http", "while nobody leads")
    for page in tabs:
        has_seen(page, "while nobody leads")
    server.wait_for_metric(CONNECTIONS, before + 1, before + 1)


def test_eight_tabs_on_plain_http_without_websocket_all_load(server: Server, chromium: Profile) -> None:
    connections = CONNECTIONS.replace("websocket", "eventsource")
    before = server.metric(connections)
    url = f"http://plain.test:{server.port}/healthz"  # not localhost: no secure context
    pages = []
    for _ in range(8):
        page = chromium.open(url, before="delete window.WebSocket;", policy=False)
        assert page.evaluate("!isSecureContext && !navigator.locks")
        page.evaluate(
            f"""{CLIENT}
            var seen = [], subscription = PushCompat.subscribe("/channels/eight", {{
              onMessage: function (message) {{ seen.push(message.data); }}
            }}); 0"""
        )
        page.wait_for("subscription.state == 'open' && subscription.cursor")
        pages.append(page)
    server.wait_for_metric(connections, before + 1, before + 1)
    server.publish("eight", "one")
    for page in pages:
        has_seen(page, "one")


def test_addresses_are_those_of_the_base_in_frames_and_workers(server: Server, chromium: Profile) -> None:
    page = page_of(
        server,
        chromium,
        f"""var source = {json.dumps(CLIENT)}, states = {{}};
        onmessage = function (event) {{ states[event.data.where] = event.data.state; }};
        var follow = "PushCompat.subscribe('/channels/base', {{onState: function (change) {{" +
          "(self.parent || self).postMessage({{where: WHERE, state: change.state}}); }}}});";
        var worker = new Worker(URL.createObjectURL(new Blob(["var WHERE = 'worker';" + source + follow])));
        worker.onmessage = onmessage;
        var frame = document.createElement("iframe");
        frame.srcdoc = "<script>var WHERE = 'frame';" + source + follow + "</" + "script>";
        document.body.appendChild(frame); 0""",
    )
    page.wait_for("states.worker == 'open' && states.frame == 'open'")


def test_tabs_that_follow_different_channels_share_one_connection(server: Server, chromium: Profile) -> None:
    before = server.metric(CONNECTIONS)
    tabs = [tab(server, chromium, channel) for channel in ("left", "right")]
    server.wait_for_metric(CONNECTIONS, before + 1, before + 1)
    for channel in ("left", "right"):
        server.publish(channel, channel)
    has_seen(tabs[0], "left")
    has_seen(tabs[1], "right")


def test_a_policy_that_forbids_websockets_costs_no_wait(server: Server, chromium: Profile) -> None:
    page = page_of(
        server,
        chromium,
        f"""{CLIENT}
        var policy = document.createElement("meta");
        policy.httpEquiv = "Content-Security-Policy";
        policy.content = "connect-src http:";
        document.head.appendChild(policy);
        var subscription = PushCompat.subscribe("/channels/policy", {{
          shareTabs: false, stagger: 1e9, openTimeout: 1e9
        }}); 0""",
    )
    page.wait_for("subscription.state == 'open'")
    assert page.evaluate("subscription.transport") == "eventsource"


@pytest.fixture
def site() -> Iterator[str]:
    """A web server of another origin, on which every path is the client."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript; charset=utf-8")
            self.end_headers()
            self.wfile.write(CLIENT.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_service_worker_follows_by_polls_with_fetch(server: Server, chromium: Profile, site: str) -> None:
    page = chromium.open(f"{site}/page")
    page.evaluate("navigator.serviceWorker.register('/worker.js'); 0")
    page.wait_for("navigator.serviceWorker.ready.then(function () { return true; })")
    worker = chromium.service_worker(f"{site}/worker.js")
    worker.evaluate(
        f"""var seen = [], subscription = PushCompat.subscribe("{server.url}/channels/in-a-service-worker", {{
          transports: ["longpoll"], shareTabs: false, onMessage: function (message) {{ seen.push(message.data); }}
        }}); 0"""
    )
    worker.wait_for("subscription.state == 'open' && subscription.cursor")
    server.publish("in-a-service-worker", "one")
    has_seen(worker, "one")
    assert worker.evaluate("typeof XMLHttpRequest") == "undefined"
    worker.evaluate("subscription.close(); 0")


def updates(server: Server, chromium: Profile, channel: str, script: str) -> Page:
    """A page of 2009 on top of ``script``, with NOOPs and all."""
    return page_of(
        server,
        chromium,
        f"""{script}
        document.body.innerHTML = "<p id=status></p>";
        var calls = 0, noops = 0, updates = new UpdateCheckSocket("{server.host}", {server.port}, "/channels/{channel}",
          document.getElementById("status"), function () {{ calls++; }});
        setInterval(function () {{ updates.send("NOOP"); noops++; }}, 50); 0""",
    )


def status(page: Page, text: str) -> None:
    page.wait_for(f"document.getElementById('status').textContent == {json.dumps(text)}")


def test_the_class_of_2009_works_as_it_was(server: Server, chromium: Profile) -> None:
    page = updates(server, chromium, "as-it-was", CLASS_OF_2009)
    status(page, "connected")
    page.wait_for("noops > 5")
    server.publish("as-it-was", "some text")
    status(page, "some text")
    assert page.evaluate("calls") == 0
    server.publish("as-it-was")
    page.wait_for("calls == 1")
    status(page, "UPDATED")


@pytest.mark.parametrize(
    ("missing", "transport"),
    [("", "websocket"), ("WebSocket", "eventsource"), ("WebSocket = window.EventSource", "longpoll")],
)
def test_a_page_of_2009_needs_only_another_script_and_no_websocket(
    server: Server, chromium: Profile, missing: str, transport: str
) -> None:
    channel = f"drop-in-{transport}"
    page = updates(server, chromium, channel, (f"window.{missing} = null;" if missing else "") + CLIENT)
    status(page, f"open ({transport})")
    page.wait_for("noops > 5")
    server.publish(channel, "some text")
    status(page, "some text")
    assert page.evaluate("calls") == 0
    server.publish(channel)
    page.wait_for("calls == 1")
    status(page, "UPDATED")


def test_the_module_is_the_same_client_and_sets_no_global(server: Server, chromium: Profile) -> None:
    page = chromium.open(f"{server.url}/healthz", policy=False)
    imported = page.evaluate(
        """import("/static/pushcompat.mjs").then(function (module) {
          return [typeof module.subscribe, Object.keys(module.default), typeof PushCompat, typeof UpdateCheckSocket];
        })"""
    )
    assert imported == ["function", ["subscribe", "UpdateCheckSocket"], "undefined", "undefined"]
