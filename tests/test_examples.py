"""The applications in examples/, as processes of their own: what is posted to them reaches subscribers.

Those in Python always run; PHP's does where there is a PHP with curl.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

import pushcompat

from .chromium import Profile, needed
from .harness import KEY, MS, PATIENCE_S, Server, running
from .machine import may_lack


def has_php() -> bool:
    if not shutil.which("php"):
        return False
    modules = subprocess.run(["php", "-m"], capture_output=True, text=True, timeout=PATIENCE_S)
    return "curl" in modules.stdout.split()


EXAMPLES = Path(__file__).parent.parent / "examples"
COMMANDS = {
    "flask": [sys.executable, "-m", "flask", "--app", str(EXAMPLES / "flask_chat.py"), "run", "--port", "{port}"],
    "django": [sys.executable, str(EXAMPLES / "django_chat.py"), "runserver", "--noreload", "{port}"],
    "fastapi": [sys.executable, "-m", "uvicorn", *f"--app-dir {EXAMPLES} fastapi_chat:app --port {{port}}".split()],
    "celery": [sys.executable, "-m", "flask", "--app", str(EXAMPLES / "celery_export.py"), "run", "--port", "{port}"],
    "php": ["php", "-S", "127.0.0.1:{port}", str(EXAMPLES / "chat.php")],
}
no_php = pytest.mark.skipif(not has_php() and may_lack("php-curl"), reason="there is no PHP with curl here")
names = ["flask", "django", "fastapi", pytest.param("php", marks=no_php)]


def environment(push_url: str, folder: Path) -> dict[str, str]:
    """Without pytest's variables: below it, applications publish nothing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**env, "PUSHCOMPAT_URL": push_url, "PUSHCOMPAT_PUBLISH_KEY": KEY, "TMPDIR": str(folder)}


@contextmanager
def application(name: str, port: int, push_url: str, folder: Path) -> Iterator[str]:
    """An example that serves on that port. Yields its URL."""
    with serving([word.format(port=port) for word in COMMANDS[name]], port, push_url, folder) as url:
        yield url


@contextmanager
def serving(command: list[str], port: int, push_url: str, folder: Path) -> Iterator[str]:
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(push_url, folder))
        try:
            wait_for_listener(process, port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.kill()
            process.wait(PATIENCE_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def wait_for_listener(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
            return
        except OSError:
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(20 * MS)  # a process can not tell when it listens


def post(url: str, text: str) -> str:
    """Fills in the form as a browser does, and returns the page it leads to."""
    opener = build_opener(HTTPCookieProcessor())
    hidden = re.search(
        r'name="csrfmiddlewaretoken" value="(\w+)"', opener.open(url, timeout=PATIENCE_S).read().decode()
    )
    form = {"text": text, **({"csrfmiddlewaretoken": hidden[1]} if hidden else {})}
    answer = opener.open(url, urlencode(form).encode(), PATIENCE_S)
    assert (answer.status, answer.url) == (200, url)
    page: str = answer.read().decode()
    return page


@pytest.mark.parametrize("name", names)
def test_a_comment_that_is_posted_reaches_subscribers(name: str, server: Server, tmp_path: Path) -> None:
    with server.connect() as subscriber, application(name, free_port(), server.url, tmp_path) as url:
        assert subscriber.upgrade("/channels/chat") == 101
        page = post(url, "<b>hello</b>")
        assert subscriber.frame() == (0x81, b"UPDATED")
        assert "&lt;b&gt;hello&lt;/b&gt;" in page


@pytest.mark.parametrize("name", names)
def test_without_a_push_server_comments_are_kept_all_the_same(name: str, tmp_path: Path) -> None:
    with application(name, free_port(), f"http://127.0.0.1:{free_port()}", tmp_path) as url:
        assert "<li>hello</li>" in post(url, "hello")


@needed
@pytest.mark.parametrize("name", names)
def test_open_pages_show_what_was_posted(name: str, tmp_path: Path, chromium: Profile) -> None:
    port = free_port()
    for server in running(tmp_path / "state", "--cors-origin", f"http://127.0.0.1:{port}"):
        with application(name, port, server.url, tmp_path) as url:
            page = chromium.open(url)
            server.wait_for_metric('pushcompat_subscriptions{transport="websocket"}', 1)
            post(url, "hello")
            page.wait_for("(document.querySelector('li') || {}).textContent == 'hello'")


@contextmanager
def celery_worker(push_url: str, folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "celery_export:tasks", "worker", "--concurrency", "1"]
    given = {**environment(push_url, folder), "PYTHONPATH": str(Path(pushcompat.__file__).parent.parent)}
    with (folder / "worker.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=EXAMPLES, env=given)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@needed
def test_a_page_shows_the_progress_of_a_task(tmp_path: Path, chromium: Profile) -> None:
    port = free_port()
    for server in running(tmp_path / "state", "--cors-origin", f"http://127.0.0.1:{port}"):
        with application("celery", port, server.url, tmp_path) as url:
            begun = build_opener().open(url, b"", PATIENCE_S)  # and is redirected to the page of the task
            page = chromium.open(begun.url)
            server.wait_for_metric('pushcompat_subscriptions{transport="websocket"}', 1)
            with celery_worker(server.url, tmp_path):
                page.wait_for("document.getElementById('link').href.indexOf('/exports/7') > 0")
