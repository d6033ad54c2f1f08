"""What a server refuses on a public address, and what it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import KEY, PATIENCE_S, Server, running
from .workers import Workers

PUBLIC = ("--host", "0.0.0.0")
LONG = "k" * 32


def refusal(tmp_path: Path, *options: str, key: str | None = LONG) -> str:
    """Why the server does not start: one line, and exit code 2."""
    command = [sys.executable, "-m", "pushcompat", "--port", "0", "--state-dir", str(tmp_path), *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHCOMPAT_")}
    environment |= {"PUSHCOMPAT_LOG_LEVEL": "error"} | ({"PUSHCOMPAT_PUBLISH_KEY": key} if key else {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "is a public address" in done.stderr
    assert "or add --insecure-public" in done.stderr
    return done.stderr


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
@pytest.mark.parametrize(
    ("options", "key", "why"),
    [
        (("--demo",), LONG, "with --demo anyone can post: omit --demo"),
        (("--publish", "open"), LONG, "anyone may publish to *"),
        ((), "k" * 31, "the publish key has fewer than 32 characters"),
        (("--publish-key", LONG), None, "--publish-key shows its secret in the list of processes"),
        (("--presence-secret", "whsec_" + "A" * 32), LONG, "--presence-secret shows its secret"),
        (("--store", "redis://user:password@127.0.0.1:1"), LONG, "--store shows its secret"),
        (("--demo", "--admin-listen", "127.0.0.1:0"), LONG, "with --demo anyone can post"),
    ],
)
def test_what_is_dangerous_on_a_public_address_is_refused(
    tmp_path: Path, workers: tuple[str, ...], options: tuple[str, ...], key: str | None, why: str
) -> None:
    assert why in refusal(tmp_path, *PUBLIC, *workers, *options, key=key)


def test_a_rule_that_lets_anyone_publish_is_refused_with_its_pattern(tmp_path: Path) -> None:
    file = tmp_path / "push.toml"
    file.write_text('[[channel]]\npattern = "wall.*"\npublish = "open"\n')
    assert "anyone may publish to wall.*" in refusal(tmp_path, *PUBLIC, "--config", str(file))


def test_a_path_with_an_at_sign_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "a@b").mkdir()
    for server in running(tmp_path, *PUBLIC, "--store", f"sqlite:{tmp_path}/a@b/log"):
        assert server.process.poll() is None


def test_a_short_key_is_refused_where_publishing_is(tmp_path: Path) -> None:
    assert "fewer than 32 characters" in refusal(tmp_path, "--admin-listen", "0.0.0.0:0", key="short")


@pytest.mark.parametrize(
    "options",
    [
        (*PUBLIC, "--demo", "--publish", "open", "--insecure-public"),
        ("--demo", "--publish", "open"),
        (*PUBLIC, "--publish", "open", "--admin-listen", "127.0.0.1:0"),
        PUBLIC,
    ],
)
def test_the_flag_loopback_and_an_admin_address_on_loopback_allow_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    for server in running(tmp_path, *options):
        with server.connect() as client:
            client.request("GET", "/healthz")
            assert client.response()[0] == 200


def test_a_short_key_is_allowed_on_a_unix_socket_and_on_loopback(tmp_path: Path) -> None:
    for options in [(), (*PUBLIC, "--admin-listen", f"unix:{tmp_path}/admin")]:
        for server in running(tmp_path / "state", *options, env={"PUSHCOMPAT_PUBLISH_KEY": "short"}):
            assert server.process.poll() is None


def test_a_generated_key_is_long_enough(tmp_path: Path) -> None:
    """As in the container, which listens on 0.0.0.0 and creates its key."""
    for server in running(tmp_path, *PUBLIC, env={"PUSHCOMPAT_PUBLISH_KEY": ""}):
        assert len((tmp_path / "publish-key").read_text().strip()) >= 32
        assert server.process.poll() is None


def test_a_secret_among_the_arguments_is_logged_once(tmp_path: Path) -> None:
    for options in [(), ("--workers", "2")]:
        for server in running(tmp_path / str(len(options)), "--publish-key", KEY, *options):
            assert server.wait_for_log(" WARNING secret_visible ").endswith("option=--publish-key")
            server.publish("chat", "x")
            assert sum("secret_visible" in line for line in server.log) == 1


def test_a_listener_whose_token_is_among_its_arguments_is_told(server: Server) -> None:
    command = [sys.executable, "-m", "pushcompat", "listen", "--url", server.url, "chat", "--timeout", "0.1"]
    for words, told in [(["--token", "t"], True), ([], False)]:
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=PATIENCE_S)
        assert ("--token is visible to other users" in done.stderr) is told


def test_a_rolling_restart_does_not_either(tmp_path: Path) -> None:
    file = tmp_path / "push.toml"
    file.write_text("")
    for server in running(tmp_path / "state", *PUBLIC, "--config", str(file), kind=Workers):
        file.write_text('publish = "open"\n')
        server.process.send_signal(signal.SIGHUP)
        assert "anyone may publish to *" in server.wait_for_log(" worker_failed ")
        for _ in range(8):
            with server.connect() as client:
                client.request("POST", "/channels/chat", b"x")
                assert client.problem()[0] == 401
        server.log.clear()  # the error was meant


def test_a_reload_does_not_open_what_a_start_would_refuse(tmp_path: Path) -> None:
    from .test_reload import Reloading

    file = tmp_path / "push.toml"
    file.write_text("")
    for server in running(tmp_path / "state", *PUBLIC, "--config", str(file)):
        reloading = Reloading(server, file)
        reloading.write('publish = "open"\n')
        assert "anyone may publish to *" in reloading.reload(" ERROR reload ")
        with server.connect() as client:
            client.request("POST", "/channels/chat", b"x")
            assert client.problem()[0] == 401
        server.log.clear()  # the error was meant
