"""The recipes of docs/access.md, as they stand there: their files are written, and the server runs with them."""

from __future__ import annotations

import hmac
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from .harness import KEY, PATIENCE_S, Server, running
from .test_examples import free_port, wait_for_listener

ACCESS = Path(__file__).parent.parent / "docs" / "access.md"
SECRET = "0123456789abcdef" * 4


def write(heading: str, folder: Path, port: int = 8000) -> None:
    """Writes the files of a recipe; ``port`` is the application's."""
    _, found, text = ACCESS.read_text().partition(f"\n### {heading}\n")
    assert found, heading
    section = text.partition("\n### ")[0]
    for name, body in re.findall(r"```\w+\n# (\S+)\n(.*?)```", section, re.DOTALL):
        (folder / name).write_text(body.replace(":8000", f":{port}"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the commands of a recipe."""
    made = tmp_path / "recipe"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def served(folder: Path) -> Iterator[Server]:
    return running(folder / "state", "--config", "push.toml")


@contextmanager
def application(port: int, program: str) -> Iterator[str]:
    """A Python program that prints a line when it is ready to be asked for it, and serves on that port."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode().strip()
        wait_for_listener(process, port)
        yield line
    finally:
        process.kill()
        process.communicate()


def pushcompat(*words: str, url: str = "", key: str = KEY) -> subprocess.CompletedProcess[str]:
    where = ["--url", url] if url else []
    return subprocess.run(
        [sys.executable, "-m", "pushcompat", *words, *where],
        capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, "PUSHCOMPAT_PUBLISH_KEY": key},
    )  # fmt: skip


DJANGO = """
import sys
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="an example", ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "app.sqlite"}},
)
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import path
import views

urlpatterns = [path("push-access", views.push_access)]
call_command("migrate", verbosity=0)
client = Client()
client.force_login(User.objects.create_user("ann"))
print(client.cookies["sessionid"].value, flush=True)
sys.stdout = sys.stderr
call_command("runserver", sys.argv[1], use_reloader=False)
"""


def test_the_session_of_a_django_application(folder: Path) -> None:
    port = free_port()
    write("The session of a Django application", folder, port)
    with application(port, DJANGO) as session:
        for server in served(folder):
            origin = f"http://127.0.0.1:{port}"
            cookie = {"Cookie": f"sessionid={session}", "Origin": origin}
            for names, status in [("user.1.inbox", 101), ("news,user.1.x", 101)]:
                with server.connect() as client:
                    assert client.upgrade(f"/channels/{names}", **cookie) == status
            with server.connect() as client:
                client.request("GET", "/channels/user.2.inbox", **cookie)
                assert client.problem()[0] == 403
            with server.connect() as client:
                client.request("GET", "/channels/user.1.inbox", Origin=origin)
                status, headers, _ = client.problem()
                assert (status, headers["access-control-allow-credentials"]) == (401, "true")


FLASK = """
import sys
import app
from flask import session

@app.app.get("/login")
def login():
    session["user"] = "ann"
    return ""

print("ready", flush=True)
app.app.run(port=int(sys.argv[1]))
"""


def test_tokens_of_a_flask_application(folder: Path) -> None:
    port = free_port()
    write("Tokens of a Flask application", folder, port)
    (folder / "token-key").write_text(f"{SECRET}\n")
    with application(port, FLASK):
        with urlopen(f"http://127.0.0.1:{port}/login", timeout=PATIENCE_S) as answer:
            (session,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
        asking = Request(f"http://127.0.0.1:{port}/push-token", headers={"Cookie": f"session={session.coded_value}"})
        with urlopen(asking, timeout=PATIENCE_S) as answer:
            token = answer.read().decode()
        for server in served(folder):
            with server.connect() as client:
                assert client.upgrade(f"/channels/orders.7,news?token={token}") == 101
            for target, status in [(f"/channels/other?token={token}", 403), ("/channels/orders.7", 401)]:
                with server.connect() as client:
                    client.request("GET", target)
                    assert client.problem()[0] == status


def test_a_page_for_each_user(folder: Path) -> None:
    write("A page for each user", folder)
    (folder / "token-key").write_text(f"{SECRET}\n")
    (folder / "ann").write_text(pushcompat("token", "--token-key-file", "token-key", "--sub", "ann").stdout)
    for server in served(folder):
        assert pushcompat("publish", "user:ann:inbox", "You have mail", url=server.url).returncode == 0
        hers = pushcompat(
            "listen", "user:ann:inbox", "--token-file", "ann", "--earliest", "--count", "1", url=server.url
        )
        assert '"data":"You have mail"' in hers.stdout
        his = pushcompat("listen", "user:bob:inbox", "--token-file", "ann", "--count", "1", url=server.url)
        assert (his.returncode, his.stderr) == (
            1, "pushcompat: the token does not allow channel user:bob:inbox\n"
        )  # fmt: skip
        other = pushcompat("listen", "other", "--token-file", "ann", "--count", "1", url=server.url)
        assert other.returncode == 1


def test_github_to_a_page(folder: Path) -> None:
    write("GitHub to a page", folder)
    (folder / "github-secret").write_text(f"{SECRET}\n")
    body = b'{"ref": "refs/heads/main"}'
    signature = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
    for server in served(folder):
        with server.connect() as page, server.connect() as github:
            page.request("GET", "/channels/repository", Accept="text/event-stream")
            assert page.head()[0] == 200
            fields = {"Content-Type": "application/json", "X-GitHub-Event": "push"}
            github.request("POST", "/hooks/repository", body, X_Hub_Signature_256="sha256=" + "0" * 64, **fields)
            assert github.response()[0] == 401
        with server.connect() as page, server.connect() as github:
            page.request("GET", "/channels/repository", Accept="text/event-stream")
            assert page.head()[0] == 200
            github.request("POST", "/hooks/repository", body, X_Hub_Signature_256=f"sha256={signature}", **fields)
            assert 200 <= github.response()[0] < 300
            while "data" not in (event := page.event()) or "event" in event:
                pass
            assert event["data"] == "UPDATED"


def test_a_public_read_only_board(folder: Path) -> None:
    write("A public, read-only board", folder)
    for server in served(folder):
        key = pushcompat("keys", "add", "editor", "--channel", "board.*", url=server.url).stdout.strip()
        published = pushcompat("publish", "board.results", "3:1", url=server.url, key=key)
        assert published.returncode == 0, published.stderr
        refused = pushcompat("publish", "other", "x", url=server.url, key=key)
        assert (refused.returncode, "may not publish" in refused.stderr) == (1, True)
        with server.connect() as client:
            assert [message["data"] for message in client.retained("board.results")] == ["3:1"]
            client.request("GET", "/channels/other")
            assert client.problem()[0] == 403
