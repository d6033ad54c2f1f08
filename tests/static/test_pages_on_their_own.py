"""Pages in browsers that nobody drives, since a driver would change what is tested: they report by themselves."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ..harness import PATIENCE_S, Server, running
from ..machine import may_lack
from ..reach.browsers import BROWSERS

CLIENT = (Path(__file__).parents[2] / "static" / "pushcompat.js").read_text()
# In order, one request at a time, again if Firefox ends it with the page's other connections.
SAY = """
  var said = Promise.resolve(), page = Math.random(), count = 0;
  function say(what) {
    var body = JSON.stringify([page + " " + count++, what]);
    function send() { return fetch("/say", {method: "POST", body: body}).catch(send); }
    said = said.then(send);
  }"""
CONNECTIONS = 'pushcompat_subscriptions{{transport="{}"}}'


class Site(ThreadingHTTPServer):
    """``pages`` by path; what they say; and ``/wait``, which is answered when ``go`` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.pages: dict[str, str] = {}
        self.said: queue.Queue[Any] = queue.Queue()
        self.heard: set[str] = set()  # which of it
        self.go = threading.Event()

    def hear(self) -> Any:
        return self.said.get(timeout=PATIENCE_S)


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_POST(self) -> None:
        which, what = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if which not in self.server.heard:
            self.server.heard.add(which)
            self.server.said.put(what)
        self.answer("")

    def do_GET(self) -> None:
        if self.path == "/wait":
            self.server.go.wait(PATIENCE_S)
        if self.path == "/file":
            self.answer("a file", ("Content-Disposition", "attachment; filename=file.bin"))
        elif self.path.endswith(".js"):
            self.answer(self.server.pages[self.path], ("Content-Type", "text/javascript"))
        else:
            page = self.server.pages.get(self.path, "")
            self.answer("<!doctype html>" + page, ("Content-Type", "text/html; charset=utf-8"))

    def answer(self, body: str, *fields: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in (*fields, ("Content-Length", str(len(body.encode())))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield site
        site.go.set()
        site.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--cors-origin", "*")


@contextmanager
def opened(name: str, url: str, folder: Path, preferences: str = "", flags: Sequence[str] = ()) -> Iterator[None]:
    browser = next(each for each in BROWSERS if each.name == name)
    if package := browser.missing():
        assert may_lack(package), f"{package} has to be installed"
        pytest.skip(f"needs {package}")
    program, *arguments = browser.command(folder, url, None)
    with (folder / "user.js").open("a") as file:
        file.write(preferences)
    process = subprocess.Popen([program, *flags, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_a_page_that_chromium_prerenders_connects_when_it_is_shown(server: Server, site: Site, tmp_path: Path) -> None:
    rules = json.dumps({"prerender": [{"source": "list", "urls": ["/page"], "eagerness": "immediate"}]})
    site.pages["/"] = f"""<script type="speculationrules">{rules}</script>
        <script>fetch("/wait").then(function () {{ location.href = "/page"; }});</script>"""
    site.pages["/page"] = f"""<script>{CLIENT} {SAY}
        PushCompat.subscribe("{server.url}/channels/early", {{
          transports: ["eventsource"], shareTabs: false,
          onState: function (change) {{ say([change.state, document.prerendering]); }}
        }});
        new EventSource("{server.url}/channels/beside?transport=eventsource").onopen = function () {{
          say(["the page's own stream", document.prerendering]);
        }};</script>"""
    with opened("Chromium", f"{site.url}/", tmp_path):
        assert site.hear() == ["the page's own stream", True]
        assert server.metric(CONNECTIONS.format("eventsource")) == 1
        site.go.set()
        assert site.hear() == ["open", False]


@pytest.mark.parametrize("transport", ["eventsource", "websocket", "longpoll"])
def test_a_link_to_a_download_makes_no_page_in_firefox_deaf(
    server: Server, site: Site, tmp_path: Path, transport: str
) -> None:
    site.pages["/"] = f"""<script>{CLIENT} {SAY}
        var subscription = PushCompat.subscribe("{server.url}/channels/{transport}", {{
          transports: ["{transport}"],
          onMessage: function (message) {{ say(message.data); }},
          onState: function (change) {{ say(change.state); }}
        }});
        fetch("/wait").then(function () {{ location.href = "/file"; }});</script>"""
    with opened("Firefox", f"{site.url}/", tmp_path):
        assert site.hear() == "open"
        site.go.set()
        assert site.hear() == "waiting"
        server.publish(transport, "after the download")
        assert [site.hear() for _ in range(3)] == ["connecting", "open", "after the download"]


def test_a_service_worker_of_firefox_that_passes_requests_on_costs_no_message(
    server: Server, site: Site, tmp_path: Path
) -> None:
    """Firefox ends the worker, and what it has passed on, 30 s after its last event, or when this preference says."""
    site.pages["/worker.js"] = """
        self.addEventListener("install", function () { self.skipWaiting(); });
        self.addEventListener("activate", function (event) { event.waitUntil(clients.claim()); });
        self.addEventListener("fetch", function (event) { event.respondWith(fetch(event.request)); });"""
    site.pages["/"] = f"""<script>{CLIENT} {SAY}
        navigator.serviceWorker.addEventListener("controllerchange", function () {{
          PushCompat.subscribe("{server.url}/channels/worker", {{
            transports: ["eventsource"], shareTabs: false,
            onMessage: function (message) {{ say(message.data); }},
            onState: function (change) {{ say(change.state); }}
          }});
        }});
        navigator.serviceWorker.register("/worker.js");</script>"""
    idle = "".join(
        f'user_pref("dom.serviceWorkers.{name}", 500);\n' for name in ("idle_timeout", "idle_extended_timeout")
    )
    with opened("Firefox", f"{site.url}/", tmp_path, idle):
        assert site.hear() == "open"
        assert site.hear() == "waiting"
        server.publish("worker", "while nobody listens")
        heard = [site.hear()]
        while heard[-1] != "while nobody listens":
            heard.append(site.hear())
        assert heard[:2] == ["connecting", "open"]


def test_a_page_that_chromium_keeps_from_the_local_network_is_told_so(
    server: Server, site: Site, tmp_path: Path
) -> None:
    page = f"http://page.test:{site.server_port}"
    site.pages["/"] = f"""<script>{CLIENT} {SAY}
        PushCompat.subscribe("{server.url}/channels/local", {{
          shareTabs: false, onState: function (change) {{ say([change.state, change.reason]); }}
        }});</script>"""
    flags = [
        f"--ip-address-space-overrides=127.0.0.1:{site.server_port}=public",
        "--host-resolver-rules=MAP page.test 127.0.0.1",
    ]
    with opened("Chromium", f"{page}/", tmp_path, flags=flags):
        assert site.hear() == ["waiting", "the browser does not let this page reach the local network"]


def test_eight_pages_of_firefox_on_plain_http_share_one_event_stream(
    server: Server, site: Site, tmp_path: Path
) -> None:
    site.pages["/"] = '<iframe src="/page"></iframe>' * 8
    site.pages["/page"] = f"""<script>{CLIENT} {SAY}
        PushCompat.subscribe("{server.url}/channels/plain", {{
          transports: ["eventsource"],
          onMessage: function (message) {{ say(message.data); }},
          onState: function (change) {{ say([change.state, isSecureContext || "locks" in navigator]); }}
        }});</script>"""
    before = server.metric(CONNECTIONS.format("eventsource"))
    names = 'user_pref("network.dns.localDomains", "plain.test");\n'
    with opened("Firefox", f"http://plain.test:{site.server_port}/", tmp_path, names):
        assert [site.hear() for _ in range(8)] == [["open", False]] * 8
        server.wait_for_metric(CONNECTIONS.format("eventsource"), before + 1, before + 1)
        server.publish("plain", "for all")
        assert [site.hear() for _ in range(8)] == ["for all"] * 8
