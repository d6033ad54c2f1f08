"""A disk that is full, with the real server on it: publishers are told, subscribers go on, and so does the server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..harness import KEY, PATIENCE_S, Server, running

DISK = 'mount -t tmpfs -o size=4m tmpfs {0} && head -c 1m /dev/zero > {0}/ballast && exec "$@"'
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def can_mount(directory: Path) -> bool:
    if not shutil.which("unshare"):
        return False
    script = DISK.format(directory)
    return not subprocess.run([*UNSHARE, "sh", "-c", script, "sh", "true"], capture_output=True).returncode


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """On a file system of its own of 4 MiB, of which one is taken."""
    if not can_mount(tmp_path):
        pytest.skip("needs unshare, and the right to mount")

    class OnSmallDisk(Server):
        wrapper = (*UNSHARE, "sh", "-c", DISK.format(tmp_path), "sh")

    yield from running(tmp_path / "state", "--history", "1000", kind=OnSmallDisk)


@pytest.mark.parametrize("room", [0, 4, 8, 64])
def test_a_start_on_a_full_disk_says_to_make_room(tmp_path: Path, room: int) -> None:
    """``room``: KiB that are left. In more of it than none the start comes a few steps further."""
    if not can_mount(tmp_path):
        pytest.skip("needs unshare, and the right to mount")

    fill = f"head -c {room}k /dev/zero > {tmp_path}/room; cat /dev/zero > {tmp_path}/rest; rm {tmp_path}/room"
    script = DISK.format(tmp_path).replace("exec", f"({fill}) 2>/dev/null; exec")
    command = [*UNSHARE, "sh", "-c", script, "sh", sys.executable, "-m", "pushcompat", "--port", "0"]
    command += ["--publish-key", KEY, "--store", f"sqlite:{tmp_path}/log.sqlite"]
    started = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert started.stdout == ""
    assert "; make room on the disk, or name another file with --store" in started.stderr


def publish_on(server: Server, answered: dict[str, str]) -> None:
    for number in range(300):
        text = str(number) + "x" * 20_000
        answered[server.publish("c", text)["id"]] = text


def everything(server: Server) -> dict[str, str]:
    """What the server has retained, by id."""
    messages, cursor = {}, "earliest"
    with server.connect() as client:
        while (answer := client.poll("c", f"cursor={cursor}"))["messages"]:
            cursor = answer["cursor"]
            messages |= {message["id"]: message["data"] for message in answer["messages"]}
    return messages


def test_a_full_disk_refuses_publishes_whole_and_nothing_that_was_answered_is_lost(
    server: Server, tmp_path: Path
) -> None:
    answered: dict[str, str] = {}
    with server.connect() as subscriber:
        subscriber.request("GET", "/channels/c?transport=eventsource")
        subscriber.head()
        with pytest.raises(urllib.error.HTTPError) as refused:
            publish_on(server, answered)
        assert (refused.value.code, refused.value.headers["Retry-After"]) == (507, "10")
        refused.value.close()
        assert len(answered) > 20
        server.wait_for_log("log_trouble.*full")
        with server.connect() as other:
            other.request("GET", "/readyz")
            assert other.response()[0] == 200
        assert everything(server) == answered
        Path(f"/proc/{server.process.pid}/root{tmp_path}/ballast").unlink()
        answered[server.publish("c", "there is room")["id"]] = "there is room"
        server.wait_for_log("log_works")
        while "there is room" not in (event := subscriber.event()).get("data", ""):
            assert "reset" not in event.get("data", "")
