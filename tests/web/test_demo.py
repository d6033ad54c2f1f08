"""The chat: the application by itself under pytest-tornado, then what only a server process can show: that a comment
reaches subscribers, and its options. Its page in a browser is in test_chat_page.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tornado.httpclient import HTTPResponse
from tornado.web import Application

from pushcompat import PublishUnavailable
from pushcompat.web import demo
from pushcompat.web.app import Views, make_application
from pushcompat.web.demo import Chat, Comments

from ..harness import PATIENCE_S, Client, Server, running
from .conftest import Fetch, exposed, problem

ROOT = Path(__file__).parents[2]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
RESOURCES = ["/demo/chat", "/demo/chat/comments"]


@pytest.fixture
def prefix() -> str:
    return ""


@pytest.fixture
def comments(tmp_path: Path) -> Comments:
    return Comments(tmp_path / "demo.sqlite")


@pytest.fixture
def app(comments: Comments, prefix: str) -> Application:
    views = Views("1.2.3", prefix, exposed, lambda: False, demo=True)
    return make_application(views, *demo.routes(Chat(comments, prefix, "http://push.example", lambda: "a key")))


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The channels that the application in this process published to."""
    published: list[str] = []

    async def publish(channel: str, *, url: str, key: str, ssl_context: None) -> None:
        assert (url, key, ssl_context) == ("http://push.example", "a key", None)
        published.append(channel)

    monkeypatch.setattr(demo, "publish_async", publish)
    return published


async def post(fetch: Fetch, path: str = "/demo/chat/comments", *, headers: Any = FORM, **form: str) -> HTTPResponse:
    return await fetch(path, method="POST", headers={**FORM, **headers}, body=urlencode(form))


async def say(fetch: Fetch, text: str, name: str = "Ann") -> None:
    assert (await post(fetch, name=name, text=text)).code == 204


async def newest(fetch: Fetch) -> list[dict[str, Any]]:
    response = await fetch("/demo/chat/comments")
    assert (response.code, response.headers["Content-Type"]) == (200, "application/json; charset=UTF-8")
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    comments: list[dict[str, Any]] = json.loads(response.body)["comments"]
    return comments


async def texts(fetch: Fetch) -> list[str]:
    return [comment["text"] for comment in await newest(fetch)]


async def page(fetch: Fetch, path: str = "/demo/chat", **headers: str) -> str:
    response = await fetch(path, headers=headers)
    assert response.code == 200
    return response.body.decode()


@pytest.mark.gen_test
async def test_the_landing_page_leads_to_the_chat(fetch: Fetch) -> None:
    assert 'href="/demo/chat"' in await page(fetch, "/")


@pytest.mark.parametrize("prefix", ["/push"])
@pytest.mark.gen_test
async def test_under_a_prefix_all_addresses_have_it(fetch: Fetch, prefix: str) -> None:
    assert 'href="/push/demo/chat"' in await page(fetch, "/push/")
    response = await post(fetch, "/push/demo/chat", text="hi")
    assert (response.code, response.headers["Location"]) == (303, "/push/demo/chat")
    assert "path=/push/demo;" in response.headers["Set-Cookie"].lower()
    shown = await page(fetch, "/push/demo/chat")
    assert ">hi</p>" in shown
    for address in ("/push/demo/chat", "/push/demo/chat/comments", "/push/channels/chat", "/push/static/chat.js"):
        assert f'"{address}"' in shown
    assert (await fetch("/push/static/chat.js")).code == 200


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.gen_test
async def test_a_comment_is_saved_and_published(fetch: Fetch, published: list[str], path: str) -> None:
    assert (await post(fetch, path, name="Ann", text="hello")).code in (204, 303)
    assert published == ["chat"]
    assert [(comment["name"], comment["text"]) for comment in await newest(fetch)] == [("Ann", "hello")]


@pytest.mark.gen_test
async def test_a_comment_is_kept_if_publishing_fails(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise PublishUnavailable("no server", None, "")

    monkeypatch.setattr(demo, "publish_async", fail)
    await say(fetch, "hello")
    assert await texts(fetch) == ["hello"]
    assert "comment saved, but publishing failed: no server" in caplog.text


@pytest.mark.gen_test
async def test_without_scripts_a_form_and_a_page_are_enough(fetch: Fetch) -> None:
    assert '<form id="form" method="post" action="/demo/chat">' in await page(fetch)
    response = await post(fetch, "/demo/chat", name="Zoë Ü", text="by form")
    assert (response.code, response.headers["Location"]) == (303, "/demo/chat")
    shown = await page(fetch, Cookie=response.headers["Set-Cookie"].partition(";")[0])
    assert ">by form</p>" in shown
    assert 'value="Zoë Ü"' in shown  # for the next one


@pytest.mark.gen_test
async def test_the_newest_twenty_are_shown_oldest_first(fetch: Fetch) -> None:
    for number in range(23):
        await say(fetch, f"number {number}")
    assert await texts(fetch) == [f"number {number}" for number in range(3, 23)]
    shown = await page(fetch)
    places = [shown.find(f">number {number}</p>") for number in range(23)]
    assert places[:3] == [-1, -1, -1]
    assert places[3] > 0
    assert places[3:] == sorted(places[3:])


@pytest.mark.gen_test
async def test_comments_have_a_time_and_an_id_that_grows(fetch: Fetch) -> None:
    await say(fetch, "one")
    await say(fetch, "two")
    one, two = await newest(fetch)
    assert one["id"] < two["id"]
    assert one["time"] <= two["time"]
    assert f'<time datetime="{one["time"]}">' in await page(fetch)


def test_the_file_does_not_grow_for_ever(comments: Comments) -> None:
    with comments._database() as database:
        rows = [("Ann", str(number)) for number in range(demo.KEPT + 10)]
        database.executemany("INSERT INTO comment (name, text) VALUES (?, ?)", rows)
    comments.add("Ann", "last")
    with comments._database() as database:
        assert database.execute("SELECT count(*) FROM comment").fetchone()[0] == demo.KEPT
    assert comments.newest()[-1]["text"] == "last"


HOSTILE = '</p><script>alert(1)</script><img src=x onerror="alert(1)">&amp;\''


@pytest.mark.gen_test
async def test_comments_cannot_become_markup(fetch: Fetch) -> None:
    await say(fetch, HOSTILE, name="</b><i>")
    shown = await page(fetch, Cookie="name=%22%3E%3Cscript%3Ealert(1)")
    assert "<script>alert" not in shown
    assert "<img src=x" not in shown
    assert "<i>" not in shown
    assert await texts(fetch) == [HOSTILE]


@pytest.mark.gen_test
async def test_the_page_runs_nothing_but_its_own_files(fetch: Fetch) -> None:
    response = await fetch("/demo/chat")
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert b"<style" not in response.body
    assert b" style=" not in response.body
    assert response.headers["Cache-Control"] == "no-store, no-transform"


@pytest.mark.parametrize(
    ("form", "detail"),
    [
        ({}, "write something first"),
        ({"text": " \r\n "}, "write something first"),
        ({"text": "x" * 1001}, "the text is too long: 1001 characters, maximum 1000"),
        ({"text": "x", "name": "y" * 41}, "the name is too long: 41 characters, maximum 40"),
    ],
)
@pytest.mark.gen_test
async def test_a_refused_comment_is_shown_with_its_error_and_kept_in_the_form(
    fetch: Fetch, form: dict[str, str], detail: str
) -> None:
    assert problem(await post(fetch, **form)) == (400, detail)
    response = await post(fetch, "/demo/chat", **form)
    assert (response.code, response.headers["Content-Type"]) == (400, "text/html; charset=UTF-8")
    assert f'role="alert">{detail}<' in response.body.decode()
    assert form.get("text", "").strip() in response.body.decode()
    assert await newest(fetch) == []


@pytest.mark.gen_test
async def test_a_comment_that_fits_in_the_page_is_accepted_by_the_server(fetch: Fetch) -> None:
    """A browser counts a line end as one, and sends two; it counts an emoji as two."""
    await say(fetch, "\r\n".join("x" * 500) + "y", name="")
    await say(fetch, "😀" * 500, name="😀" * 20)
    assert [(len(comment["text"]), comment["name"]) for comment in await newest(fetch)] == [
        (1000, "anonymous"),
        (500, "😀" * 20),
    ]


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, True),
        ({"Origin": "http://test"}, True),
        ({"Origin": "http://outside", "X-Forwarded-Host": "outside"}, False),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://evil"}, False),
        ({"Origin": "http://test.evil"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://test", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
@pytest.mark.gen_test
async def test_a_page_of_another_site_cannot_post(
    fetch: Fetch, path: str, headers: dict[str, str], taken: bool
) -> None:
    response = await post(fetch, path, headers={"Host": "test", **headers}, text="hi")
    if taken:
        assert response.code in (204, 303)
    else:
        assert problem(response) == (403, "cross-origin form posts are not allowed")
    assert len(await newest(fetch)) == taken


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.gen_test
async def test_the_chat_allows_only_reading_and_posting(fetch: Fetch, path: str) -> None:
    response = await fetch(path, method="HEAD")
    assert (response.code, int(response.headers["Content-Length"]) > 0) == (200, True)
    for body in (b"", b"text=hi"):
        response = await fetch(path, method="PUT", body=body)
        assert problem(response)[0] == 405
        assert response.headers["Allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.gen_test
async def test_a_form_has_at_most_16_kib(fetch: Fetch, path: str) -> None:
    fits = "text=hi&more=" + "x" * (16384 - 13)
    assert (await fetch(path, method="POST", headers=FORM, body=fits)).code in (204, 303)
    response = await fetch(path, method="POST", headers=FORM, body=fits + "x")
    assert problem(response) == (413, "send at most 16384 bytes of body, with POST")
    response = await fetch(path, method="GET", body=b"x")
    assert problem(response)[0] == 413


# In a server process


def make_run_shows() -> str:
    command = ["make", "--dry-run", "run", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S).stdout


def test_make_run_has_it_on() -> None:
    assert "-m pushcompat --demo" in make_run_shows()


@pytest.mark.parametrize("path", RESOURCES)
def test_without_the_option_there_is_no_demo(shared_client: Client, path: str) -> None:
    shared_client.request("GET", path)
    assert shared_client.problem()[0] == 404
    shared_client.request("GET", "/")
    assert b"/demo/chat" not in shared_client.response()[2]


def send(client: Client, path: str = "/demo/chat/comments", **form: str) -> None:
    client.request("POST", path, urlencode(form).encode(), Content_Type=FORM["Content-Type"])


def read(client: Client) -> list[str]:
    client.request("GET", "/demo/chat/comments")
    return [comment["text"] for comment in json.loads(client.response()[2])["comments"]]


@pytest.mark.options("--demo")
@pytest.mark.parametrize("path", RESOURCES)
def test_a_comment_reaches_every_subscriber_as_the_bare_signal(server: Server, client: Client, path: str) -> None:
    with server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        send(client, path, name="Ann", text="hello")
        assert client.response()[0] in (204, 303)
        assert subscriber.frame() == (0x81, b"UPDATED")
        assert read(client) == ["hello"]


@pytest.mark.options("--demo")
def test_a_page_that_refetches_after_the_signal_gets_the_comment(server: Server, client: Client) -> None:
    with server.connect() as reader, server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        for number in range(20):
            send(client, text=str(number))
            subscriber.frame()
            assert read(reader)[-1] == str(number)
            assert client.response()[0] == 204


@pytest.mark.options("--demo")
def test_a_form_may_come_in_any_pieces(client: Client) -> None:
    length = b"POST /demo/chat/comments HTTP/1.1\r\nHost: test\r\nContent-Type: %b\r\nContent-Length: 8\r\n\r\ntext=one"
    chunks = (
        b"POST /demo/chat/comments HTTP/1.1\r\nHost: test\r\nContent-Type: %b\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\ntex\r\n5\r\nt=two\r\n0\r\n\r\n"
    )
    for request in (length, chunks):
        data = request % FORM["Content-Type"].encode()
        for at in range(len(data)):
            client.send(data[at : at + 1])
        assert client.response()[0] == 204
    assert read(client) == ["one", "two"]


def test_comments_outlive_the_server(tmp_path: Path) -> None:
    for number in range(2):
        for server in running(tmp_path, "--demo"):
            with server.connect() as client:
                send(client, text=str(number))
                assert client.response()[0] == 204
                assert read(client) == [str(n) for n in range(number + 1)]


def test_a_server_on_a_unix_socket_tells_itself(tmp_path: Path) -> None:
    """The demo publishes by HTTP to wherever its server listens, as an application does."""
    path = tmp_path / "push.sock"
    words = ["--demo", "--unix-socket", str(path), "--state-dir", str(tmp_path), "--prefix", "/push"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pushcompat", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what comes with the first line is for communicate, which reads below any buffer
    )
    try:
        assert process.stdout is not None
        assert str(path).encode() in process.stdout.readline()
        curl = ["curl", "-s", "--max-time", str(PATIENCE_S), "--unix-socket", str(path)]
        subprocess.run([*curl, "-d", "text=hi", "http://test/push/demo/chat"], check=True, timeout=PATIENCE_S)
        kept = subprocess.run(
            [*curl, "http://test/push/channels/chat?cursor=earliest"], capture_output=True, check=True
        ).stdout
        assert [message["data"] for message in json.loads(kept)["messages"]] == ["UPDATED"]
    finally:
        process.terminate()
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert b"/push/demo/chat\n" in output
    assert b"Traceback" not in errors
    assert process.returncode == 0


@pytest.mark.parametrize("place", ["a file's child", "not a database", "a directory"])
def test_a_place_that_cannot_be_written_ends_the_start_with_one_line(tmp_path: Path, place: str) -> None:
    state_dir = tmp_path / "state"
    if place == "a file's child":
        state_dir.write_text("")
    else:
        state_dir.mkdir()
        database = state_dir / "demo.sqlite"
        database.mkdir() if place == "a directory" else database.write_text("not a database " * 100)
    words = ["--demo", "--publish-key", "k", "--port", "0", "--state-dir", str(state_dir)]
    done = subprocess.run(
        [sys.executable, "-m", "pushcompat", *words], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"pushcompat: cannot create the demo's database {state_dir}/demo.sqlite: ")
    assert done.stderr.endswith("; set another --state-dir, or omit --demo\n")
    assert done.stderr.count("\n") == 1
