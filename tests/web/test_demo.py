"""The chat: its two resources over real sockets; its page in a browser is in test_chat_page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from ..harness import PATIENCE_S, Client, Server, running

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.options("--demo")


def post(client: Client, path: str = "/demo/chat/comments", **form: str) -> None:
    client.request("POST", path, urlencode(form).encode(), Content_Type="application/x-www-form-urlencoded")


def say(client: Client, text: str, name: str = "Ann") -> None:
    post(client, name=name, text=text)
    assert client.response()[0] == 204


def newest(client: Client) -> list[dict[str, Any]]:
    client.request("GET", "/demo/chat/comments")
    status, headers, body = client.response()
    assert (status, headers["content-type"]) == (200, "application/json; charset=UTF-8")
    assert headers["cache-control"] == "no-store, no-transform"
    comments: list[dict[str, Any]] = json.loads(body)["comments"]
    return comments


def texts(client: Client) -> list[str]:
    return [comment["text"] for comment in newest(client)]


def page(client: Client, path: str = "/demo/chat", **headers: str) -> str:
    client.request("GET", path, **headers)
    status, _, body = client.response()
    assert status == 200
    return body.decode()


@pytest.mark.parametrize("path", ["/demo/chat", "/demo/chat/comments"])
def test_without_the_option_there_is_no_demo(shared_client: Client, path: str) -> None:
    shared_client.request("GET", path)
    assert shared_client.problem()[0] == 404
    assert "/demo/chat" not in page(shared_client, "/")


def test_make_run_has_it_on() -> None:
    command = ["make", "--dry-run", "run", f"PYTHON={sys.executable}"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert "-m pushcompat --demo" in shown.stdout


def test_the_landing_page_leads_to_the_chat(client: Client) -> None:
    assert 'href="/demo/chat"' in page(client, "/")


@pytest.mark.options("--demo", "--prefix", "/push")
def test_under_a_prefix_all_addresses_have_it(client: Client) -> None:
    assert 'href="/push/demo/chat"' in page(client, "/push/")
    post(client, "/push/demo/chat", text="hi")
    status, headers, _ = client.response()
    assert (status, headers["location"]) == (303, "/push/demo/chat")
    assert "path=/push/demo;" in headers["set-cookie"].lower()
    shown = page(client, "/push/demo/chat")
    assert ">hi</p>" in shown
    for address in ("/push/demo/chat", "/push/demo/chat/comments", "/push/channels/chat", "/push/static/chat.js"):
        assert f'"{address}"' in shown
    client.request("GET", "/push/static/chat.js")
    assert client.response()[0] == 200


@pytest.mark.parametrize("path", ["/demo/chat", "/demo/chat/comments"])
def test_a_comment_reaches_every_subscriber_as_the_bare_signal(server: Server, client: Client, path: str) -> None:
    with server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        post(client, path, name="Ann", text="hello")
        assert client.response()[0] in (204, 303)
        assert subscriber.frame() == (0x81, b"UPDATED")
        assert [(comment["name"], comment["text"]) for comment in newest(client)] == [("Ann", "hello")]


def test_who_hears_the_signal_and_asks_finds_the_comment(server: Server, client: Client) -> None:
    with server.connect() as reader, server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        for number in range(20):
            post(client, text=str(number))
            subscriber.frame()
            assert texts(reader)[-1] == str(number)
            assert client.response()[0] == 204


def test_without_scripts_a_form_and_a_page_are_enough(client: Client) -> None:
    assert '<form id="form" method="post" action="/demo/chat">' in page(client)
    post(client, "/demo/chat", name="Zoë Ü", text="by form")
    status, headers, _ = client.response()
    assert (status, headers["location"]) == (303, "/demo/chat")
    shown = page(client, Cookie=headers["set-cookie"].partition(";")[0])
    assert ">by form</p>" in shown
    assert 'value="Zoë Ü"' in shown  # for the next one


def test_the_newest_twenty_are_shown_oldest_first(client: Client) -> None:
    for number in range(23):
        say(client, f"number {number}")
    assert texts(client) == [f"number {number}" for number in range(3, 23)]
    shown = page(client)
    places = [shown.find(f">number {number}</p>") for number in range(23)]
    assert places[:3] == [-1, -1, -1]
    assert places[3] > 0
    assert places[3:] == sorted(places[3:])


def test_comments_have_a_time_and_an_id_that_grows(client: Client) -> None:
    say(client, "one")
    say(client, "two")
    one, two = newest(client)
    assert one["id"] < two["id"]
    assert one["time"] <= two["time"]
    assert f'<time datetime="{one["time"]}">' in page(client)


def test_comments_outlive_the_server(tmp_path: Path) -> None:
    for number in range(2):
        for server in running(tmp_path, "--demo"):
            with server.connect() as client:
                say(client, str(number))
                assert texts(client) == [str(n) for n in range(number + 1)]


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    from pushcompat.web.demo import KEPT, Comments

    comments = Comments(tmp_path / "demo.sqlite")
    with comments._database() as database:
        rows = [("Ann", str(number)) for number in range(KEPT + 10)]
        database.executemany("INSERT INTO comment (name, text) VALUES (?, ?)", rows)
    comments.add("Ann", "last")
    with comments._database() as database:
        assert database.execute("SELECT count(*) FROM comment").fetchone()[0] == KEPT
    assert comments.newest()[-1]["text"] == "last"


HOSTILE = '</p><script>alert(1)</script><img src=x onerror="alert(1)">&amp;\''


def test_what_somebody_wrote_can_not_become_markup(client: Client) -> None:
    say(client, HOSTILE, name="</b><i>")
    shown = page(client, Cookie="name=%22%3E%3Cscript%3Ealert(1)")
    assert "<script>alert" not in shown
    assert "<img src=x" not in shown
    assert "<i>" not in shown
    assert texts(client) == [HOSTILE]


def test_the_page_runs_nothing_but_its_own_files(client: Client) -> None:
    client.request("GET", "/demo/chat")
    _, headers, body = client.response()
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert b"<style" not in body
    assert b" style=" not in body
    assert headers["cache-control"] == "no-store, no-transform"


@pytest.mark.parametrize(
    ("form", "detail"),
    [
        ({}, "write something first"),
        ({"text": " \r\n "}, "write something first"),
        ({"text": "x" * 1001}, "the text may have 1000 characters, not 1001"),
        ({"text": "x", "name": "y" * 41}, "the name may have 40 characters, not 41"),
    ],
)
def test_what_can_not_be_taken_is_said_and_kept_for_the_writer(
    client: Client, form: dict[str, str], detail: str
) -> None:
    post(client, **form)
    status, _, said = client.problem()
    assert (status, said) == (400, detail)
    post(client, "/demo/chat", **form)
    status, headers, body = client.response()
    assert (status, headers["content-type"]) == (400, "text/html; charset=UTF-8")
    assert f'role="alert">{detail}<' in body.decode()
    assert form.get("text", "").strip() in body.decode()
    assert newest(client) == []


def test_what_fits_in_the_page_fits_in_the_server(client: Client) -> None:
    """A browser counts a line end as one, and sends two; it counts an emoji as two."""
    say(client, "\r\n".join("x" * 500) + "y", name="")
    say(client, "😀" * 500, name="😀" * 20)
    assert [(len(comment["text"]), comment["name"]) for comment in newest(client)] == [
        (1000, "anonymous"),
        (500, "😀" * 20),
    ]


@pytest.mark.parametrize("path", ["/demo/chat", "/demo/chat/comments"])
@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, True),
        ({"Origin": "http://test"}, True),
        ({"Origin": "http://outside", "X_Forwarded_Host": "outside"}, True),
        ({"Origin": "null", "Sec_Fetch_Site": "same-origin"}, True),
        ({"Origin": "http://evil"}, False),
        ({"Origin": "http://test.evil"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://test", "Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "same-site"}, False),
    ],
)
def test_a_page_of_another_site_can_not_post(client: Client, path: str, headers: dict[str, str], taken: bool) -> None:
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    client.request("POST", path, b"text=hi", **kind, **headers)
    if taken:
        assert client.response()[0] in (204, 303)
    else:
        status, _, detail = client.problem()
        assert (status, detail) == (403, "comments are taken from the chat's own page only")
    assert len(newest(client)) == taken


@pytest.mark.parametrize("path", ["/demo/chat", "/demo/chat/comments"])
def test_it_can_be_read_and_posted_to_and_nothing_else(client: Client, path: str) -> None:
    client.request("HEAD", path)
    status, headers = client.head()
    assert (status, int(headers["content-length"]) > 0) == (200, True)
    client.request("PUT", path)
    status, headers, _ = client.problem()
    assert (status, headers["allow"]) == (405, "GET, HEAD, POST")


def test_a_server_on_a_unix_socket_tells_itself(tmp_path: Path) -> None:
    """The demo publishes by HTTP to wherever its server listens, as an application does."""
    path = tmp_path / "push.sock"
    words = ["--demo", "--unix-socket", str(path), "--state-dir", str(tmp_path), "--prefix", "/push"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pushcompat", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
def test_a_place_that_can_not_be_written_ends_the_start_with_one_line(tmp_path: Path, place: str) -> None:
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
    assert done.stderr.startswith(f"pushcompat: can not keep the demo's comments in {state_dir}/demo.sqlite: ")
    assert done.stderr.endswith("; name another --state-dir, or leave out --demo\n")
    assert done.stderr.count("\n") == 1
