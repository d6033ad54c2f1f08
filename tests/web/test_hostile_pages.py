"""What pages of other origins can do with a server that its users are logged in to, in a real browser: nothing.

``push.test`` is the server. ``evil.push.test`` is of the same site, so the browser sends the user's cookies along;
``evil.test`` is of another site. Both serve what an attacker writes. ``app.push.test`` is the application's origin,
which the server allows by name. The user has a cookie with a token for ``private.*``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest

from ..chromium import Page, Profile, needed
from ..harness import Server, running

pytestmark = needed

SECRET = "a secret of at least thirty-two bytes, for tests"
RULES = """
[[channel]]
pattern = "private.*"
subscribe = "token"
[[channel]]
pattern = "wall"
publish = "open"
subscribe = "open"
[[channel]]
pattern = "*"
subscribe = "open"
"""
EVIL, FAR, APP = "evil.push.test", "evil.test", "app.push.test"


class _Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>a page</title><body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def pages_port() -> Iterator[int]:
    """Of a server of blank pages, for all hosts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    file = folder / "push.toml"
    file.write_text(RULES)
    more = ("--config", str(file), "--token-cookie", "session", *options)
    for server in running(folder / "state", *more, env={"PUSHCOMPAT_TOKEN_KEY": SECRET}):
        for channel in ("private.x", "news"):
            server.publish(channel, f"in {channel}")
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pages_port: int) -> Iterator[Server]:
    """It allows the application's origin by name."""
    with serving(tmp_path_factory.mktemp("named"), "--demo", "--cors-origin", f"http://{APP}:{pages_port}") as server:
        yield server


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It allows all origins."""
    with serving(tmp_path_factory.mktemp("any"), "--cors-origin", "*") as server:
        yield server


class Attack:
    """A user who is logged in to the server, and visits pages."""

    def __init__(self, chromium: Profile, server: Server, pages_port: int) -> None:
        self._chromium = chromium
        self._port = pages_port
        self.server = server
        self.url = f"http://push.test:{server.port}"
        token = jwt.encode({"exp": time.time() + 600, "sub": "ann", "channels": ["private.*"]}, SECRET)
        self.own = chromium.open(f"{self.url}/healthz", policy=False)
        self.own.evaluate(f"document.cookie = 'session={token}; path=/'")

    def visit(self, host: str) -> Page:
        return self._chromium.open(f"http://{host}:{self._port}/")


@pytest.fixture
def attack(chromium: Profile, server: Server, pages_port: int) -> Attack:
    return Attack(chromium, server, pages_port)


@pytest.fixture
def open_attack(chromium: Profile, open_server: Server, pages_port: int) -> Attack:
    return Attack(chromium, open_server, pages_port)


def fetched(page: Page, url: str, **options: Any) -> Any:
    """Status and body of the response; the error's name if the page cannot read it."""
    return page.evaluate(
        f"""fetch({json.dumps(url)}, {json.dumps(options)}).then(
          async (response) => [response.status, await response.text()], (error) => error.name)"""
    )


def streamed(page: Page, url: str, credentials: bool) -> Any:
    """The first message that an EventSource gets, or ``error``."""
    return page.evaluate(
        f"""new Promise((resolve) => {{
          var source = new EventSource({json.dumps(url)}, {{withCredentials: {json.dumps(credentials)}}});
          source.onmessage = (event) => {{ source.close(); resolve(event.data); }};
          source.onerror = () => {{ source.close(); resolve("error"); }};
        }})"""
    )


def talked(page: Page, url: str) -> Any:
    """The first message that a WebSocket gets, or the code with which it is closed."""
    return page.evaluate(
        f"""new Promise((resolve) => {{
          var socket = new WebSocket({json.dumps(url.replace("http:", "ws:", 1))});
          socket.onmessage = (event) => {{ socket.close(); resolve(event.data); }};
          socket.onclose = (event) => resolve(event.code);
        }})"""
    )


POLL = "?transport=longpoll&cursor=earliest&wait=0"
STREAM = "?transport=eventsource&cursor=earliest&controls=0"
SOCKET = "?cursor=earliest"


def test_the_users_own_page_gets_what_its_cookie_allows(attack: Attack) -> None:
    """Without this the tests below would prove nothing."""
    assert "in private.x" in fetched(attack.own, f"{attack.url}/channels/private.x{POLL}")[1]
    assert streamed(attack.own, f"{attack.url}/channels/private.x{STREAM}", False) == "in private.x"
    assert talked(attack.own, f"{attack.url}/channels/private.x{SOCKET}") == "in private.x"


@pytest.mark.parametrize("channel", ["private.x", "news"])
@pytest.mark.parametrize("host", [EVIL, FAR])
def test_a_page_of_another_origin_reads_nothing_on_any_transport(attack: Attack, host: str, channel: str) -> None:
    page, url = attack.visit(host), f"{attack.url}/channels/{channel}"
    for credentials in ("include", "omit"):
        assert fetched(page, url + POLL, credentials=credentials) == "TypeError"
        assert streamed(page, url + STREAM, credentials == "include") == "error"
    assert talked(page, url + SOCKET) == 4403


def test_a_page_whose_origin_is_named_reads_with_the_users_cookie(attack: Attack) -> None:
    page, url = attack.visit(APP), f"{attack.url}/channels/private.x"
    assert "in private.x" in fetched(page, url + POLL, credentials="include")[1]
    assert streamed(page, url + STREAM, True) == "in private.x"
    assert talked(page, url + SOCKET) == "in private.x"
    assert fetched(page, url + POLL, credentials="omit")[0] == 401


@pytest.mark.parametrize("host", [EVIL, FAR])
def test_where_all_origins_are_allowed_a_page_reads_what_is_open_and_not_what_the_users_cookie_allows(
    open_attack: Attack, host: str
) -> None:
    page, url = open_attack.visit(host), f"{open_attack.url}/channels"
    assert "in news" in fetched(page, f"{url}/news{POLL}")[1]
    assert streamed(page, f"{url}/news{STREAM}", False) == "in news"
    assert talked(page, f"{url}/news{SOCKET}") == "in news"
    for channel in ("news", "private.x"):
        assert fetched(page, f"{url}/{channel}{POLL}", credentials="include") == "TypeError"
        assert streamed(page, f"{url}/{channel}{STREAM}", True) == "error"
    assert fetched(page, f"{url}/private.x{POLL}")[0] == 401
    assert talked(page, f"{url}/private.x{SOCKET}") == 4401  # browsers send cookies with every WebSocket


def test_a_frame_without_an_origin_reads_nothing(attack: Attack) -> None:
    page = attack.visit(EVIL)
    script = f"""fetch({json.dumps(f"{attack.url}/channels/news{POLL}")}, {{credentials: "include"}}).then(
      () => parent.postMessage("read", "*"), () => parent.postMessage("refused", "*"))"""
    told = page.evaluate(
        f"""new Promise((resolve) => {{
          onmessage = (event) => resolve([event.origin, event.data]);
          var frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.srcdoc = "<script>" + {json.dumps(script)} + "</" + "script>";
          document.body.appendChild(frame);
        }})"""
    )
    assert told == ["null", "refused"]


# Publishing


def posted_by_a_form(page: Page, url: str, fields: dict[str, str], encoding: str) -> None:
    """Posts a form, whose response is shown in a frame; waits for it."""
    page.evaluate(
        f"""new Promise((resolve) => {{
          var form = document.createElement("form"), frame = document.createElement("iframe");
          frame.name = form.target = "answer";
          form.method = "post";
          form.action = {json.dumps(url)};
          form.enctype = {json.dumps(encoding)};
          Object.entries({json.dumps(fields)}).forEach(([name, value]) => {{
            var input = document.createElement("input");
            input.name = name;
            input.value = value;
            form.appendChild(input);
          }});
          document.body.append(frame, form);
          frame.onload = () => {{ frame.remove(); resolve(); }};
          form.submit();
        }})"""
    )


@pytest.mark.parametrize("host", [EVIL, FAR])
@pytest.mark.parametrize("channel", ["news", "wall"])
def test_a_page_of_another_origin_publishes_nothing_not_even_where_anyone_may(
    attack: Attack, host: str, channel: str
) -> None:
    url, page = f"{attack.url}/channels/{channel}", attack.visit(host)
    before = attack.server.metric("pushcompat_publishes_total")
    for encoding in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        posted_by_a_form(page, url, {"hello": "world"}, encoding)
    for mode in ("no-cors", "cors"):
        fetched(page, url, method="POST", body="hello", mode=mode, credentials="include")
    fetched(page, url, method="POST", body="hello", headers={"Authorization": "Bearer guess"})
    page.evaluate(f"navigator.sendBeacon({json.dumps(url)}, 'hello')")
    posted_by_a_form(page, url, {"hello": "world"}, "text/plain")  # after the beacon
    assert attack.server.metric("pushcompat_publishes_total") == before
    assert "hello" not in json.dumps(fetched(attack.own, url + POLL))


@pytest.mark.parametrize(("host", "target"), [(EVIL, "push.test"), (FAR, "push.test"), ("localhost", "localhost")])
def test_a_page_of_another_origin_posts_nothing_in_the_demo(attack: Attack, host: str, target: str) -> None:
    """To localhost Chromium sends Sec-Fetch-Site: another port is ``same-site``."""
    url = f"http://{target}:{attack.server.port}/demo/chat"
    posted_by_a_form(attack.visit(host), url, {"text": "spam"}, "application/x-www-form-urlencoded")
    assert "spam" not in fetched(attack.own, f"{attack.url}/demo/chat/comments")[1]


def test_the_demos_own_form_posts_without_scripts(attack: Attack, chromium: Profile) -> None:
    page = chromium.open(f"{attack.url}/demo/chat", scripts=False)
    page.evaluate("document.querySelector('#text').value = 'from the form'; document.querySelector('#form').submit()")
    page.wait_for("document.body && document.body.textContent.includes('from the form')")


# A name that leads to the server


def test_a_page_whose_name_is_made_to_lead_to_the_server_has_no_cookie_and_no_key(
    attack: Attack, chromium: Profile
) -> None:
    """DNS rebinding: to the browser the server is of the attacker's origin. What is open to anyone can be read."""
    page = chromium.open(f"http://rebound.test:{attack.server.port}/healthz", policy=False)
    assert fetched(page, f"/channels/private.x{POLL}")[0] == 401
    assert talked(page, f"http://rebound.test:{attack.server.port}/channels/private.x{SOCKET}") == 4401
    assert fetched(page, "/channels/news", method="POST", body="hello")[0] == 401
    assert fetched(page, f"/channels/news{POLL}")[0] == 200


# Frames, types, scripts


def frame_urls(page: Page) -> list[str]:
    frames = page.call("Page.getFrameTree")["frameTree"].get("childFrames", [])
    return [frame["frame"]["url"] for frame in frames]


@pytest.mark.parametrize("path", ["/", "/demo/chat", "/healthz", "/nothing", "/static/favicon.svg"])
def test_no_page_can_be_framed(attack: Attack, path: str) -> None:
    page = attack.visit(EVIL)
    for url in (f"{attack.url}{path}", "/"):  # its own page can
        page.evaluate(
            f"""new Promise((resolve) => {{
              var frame = document.createElement("iframe");
              frame.onload = resolve;
              frame.src = {json.dumps(url)};
              document.body.appendChild(frame);
            }})"""
        )
    assert frame_urls(page) == ["chrome-error://chromewebdata/", page.evaluate("location.href")]


def test_what_somebody_published_is_never_a_page_or_a_script(attack: Attack, chromium: Profile) -> None:
    attack.server.publish("news", "<!doctype html><script>document.title = window.owned = 'owned'</script>")
    url = f"{attack.url}/channels/news{POLL}"
    page = chromium.open(url)
    assert page.evaluate("document.contentType") == "application/json"
    assert page.evaluate("document.title") != "owned"
    for path in (f"/channels/news{POLL}", "/metrics", "/static/chat.css", "/healthz"):
        assert embedded(attack.visit(EVIL), "script", attack.url + path) == "error", path


def embedded(page: Page, element: str, url: str) -> Any:
    return page.evaluate(
        f"""new Promise((resolve) => {{
          var element = document.createElement({json.dumps(element)});
          element.onload = () => resolve("load");
          element.onerror = () => resolve("error");
          element.src = {json.dumps(url)};
          document.body.appendChild(element);
        }})"""
    )


@pytest.mark.parametrize("host", [EVIL, FAR])
def test_pages_of_all_origins_can_load_the_client_and_no_other_file(attack: Attack, host: str) -> None:
    page = attack.visit(host)
    assert embedded(page, "script", f"{attack.url}/static/pushcompat.js") == "load"
    assert page.evaluate(f"import('{attack.url}/static/pushcompat.mjs').then((m) => typeof m.subscribe)") == "function"
    assert embedded(page, "img", f"{attack.url}/static/favicon.svg") == "error"
    assert embedded(page, "script", f"{attack.url}/static/chat.js") == "error"


WATCHING = """
var violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
"""


@pytest.mark.parametrize("path", ["/", "/demo/chat"])
def test_a_page_violates_its_own_policy_nowhere_and_runs_nothing_that_was_injected(
    attack: Attack, chromium: Profile, path: str
) -> None:
    page = chromium.open(attack.url + path, before=WATCHING)
    assert page.evaluate("getComputedStyle(document.body).marginTop") == "0px"  # its style sheet was loaded
    assert page.evaluate("violations") == []
    page.evaluate(
        """
        var script = document.createElement("script");
        script.textContent = "window.owned = 1";
        document.body.appendChild(script);
        document.body.insertAdjacentHTML("beforeend", "<img src='data:,x' onerror='window.owned = 2'>");
        document.body.insertAdjacentHTML("beforeend", "<p style='position: fixed'>x</p>");
        """
    )
    page.wait_for("violations.length >= 3")
    assert page.evaluate("window.owned") is None
    assert set(page.evaluate("violations")) >= {"script-src-elem", "style-src-attr"}
