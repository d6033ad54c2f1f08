"""Publishers that are faster than their subscribers can be served are slowed down, and nobody misses anything.

One loop drives all sockets, so the crowd reads as fast as this process can. All subscribers of a channel are sent the
same bytes; so these are compared as they come, and read once.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ..harness import KEY, PATIENCE_S, Client, Server, running, sequence

SUBSCRIBERS = 5000
PUBLISHERS = 64
EACH = 30  # publishes
HISTORY = 100  # the default


class Subscriber:
    """Reads what all subscribers read: whatever is new is added to ``stream``, the rest is compared with it."""

    def __init__(self, sock: socket.socket, stream: bytearray) -> None:
        self.socket = sock
        self.stream = stream
        self.at = 0

    def ready(self, crowd: Crowd) -> None:
        data = self.socket.recv(1 << 20)
        assert data, "the server ended a subscription"
        end = self.at + len(data)
        known = len(self.stream)
        if end > known:
            self.stream += data[known - end :] if self.at < known else data
        assert self.stream.startswith(data, self.at), "two subscribers were told different things"
        self.at = end


class Publisher:
    """Publishes as fast as it is answered."""

    def __init__(self, sock: socket.socket, name: int) -> None:
        self.socket = sock
        self.name = name
        self.answers: list[bytes] = []
        self._buffer = b""

    def publish(self) -> None:
        body = b"%d-%d" % (self.name, len(self.answers))
        self.socket.send(
            b"POST /channels/crowd HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer %b\r\nContent-Type: text/plain\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (KEY.encode(), len(body), body)
        )

    def ready(self, crowd: Crowd) -> None:
        self._buffer += self.socket.recv(65536)
        if not self._buffer.endswith(b"}\n"):
            return
        self.answers.append(self._buffer)
        self._buffer = b""
        if len(self.answers) < EACH:
            self.publish()
        else:
            crowd.busy -= 1


class Gauge:
    """Asks for the number of retained messages, again and again."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.values: list[float] = []
        self._buffer = b""

    def ask(self) -> None:
        self.socket.send(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")

    def ready(self, crowd: Crowd) -> None:
        self._buffer += self.socket.recv(65536)
        _, found, rest = self._buffer.partition(b"\npushcompat_retained_messages ")
        if found and b"\npushcompat_draining " in rest and rest.endswith(b"\n"):
            self.values.append(float(rest.split(b"\n")[0]))
            self._buffer = b""
            self.ask()


class Crowd:
    def __init__(self, server: Server) -> None:
        self.selector = selectors.DefaultSelector()
        self.stream = bytearray()
        self.subscribers = [Subscriber(self._join(server), self.stream) for _ in range(SUBSCRIBERS)]
        self.publishers = [Publisher(self._connect(server), name) for name in range(PUBLISHERS)]
        self.gauge = Gauge(self._connect(server))
        self.busy = PUBLISHERS
        for member in (*self.subscribers, *self.publishers, self.gauge):
            member.socket.setblocking(False)
            self.selector.register(member.socket, selectors.EVENT_READ, member)

    def _connect(self, server: Server) -> socket.socket:
        return server.connect().socket

    def _join(self, server: Server) -> socket.socket:
        client: Client = server.connect()
        assert client.upgrade("/channels/crowd?format=json") == 101
        first, payload = client.frame()
        assert (first, json.loads(payload)["control"], client.buffer) == (0x81, "open", b"")
        return client.socket

    def run(self) -> None:
        """Until all publishers are through and all subscribers have read as much as any of them."""
        for publisher in self.publishers:
            publisher.publish()
        self.gauge.ask()
        deadline = time.monotonic() + 3 * PATIENCE_S
        while self.busy or any(s.at < len(self.stream) for s in self.subscribers):
            ready = self.selector.select(PATIENCE_S)
            assert ready, "nothing happens any more"
            assert time.monotonic() < deadline, f"{self.busy} publishers are still busy"
            for key, _ in ready:
                key.data.ready(self)

    def close(self) -> None:
        for key in list(self.selector.get_map().values()):
            key.data.socket.close()
        self.selector.close()


@pytest.fixture
def plenty_of_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SUBSCRIBERS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} file descriptors, may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(plenty_of_files: None, tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path, "--heartbeat", "120", "--log-level", "warning", "--drain-timeout", "0")


def test_64_publishers_at_full_speed_are_slowed_to_what_5000_subscribers_can_be_served(server: Server) -> None:
    with closing(Crowd(server)) as crowd:
        crowd.run()
        answers = [answer for publisher in crowd.publishers for answer in publisher.answers]
        assert len(answers) == PUBLISHERS * EACH
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers), "no publish was refused"

        messages = list(documents(bytes(crowd.stream)))
        assert not [m for m in messages if "control" in m], "nobody was reset"
        places = [sequence(str(m["id"])) for m in messages]
        assert places == list(range(1, PUBLISHERS * EACH + 1)), "all of it, in order"
        for publisher in crowd.publishers:
            mine = [m["data"] for m in messages if str(m["data"]).startswith(f"{publisher.name}-")]
            assert mine == [f"{publisher.name}-{n}" for n in range(EACH)]
        assert server.metric("pushcompat_resets_total") == 0
        # What waits, waits with its publisher and not in the log: that is what “slowed” means. Each publisher may have
        # been let in just before its channel was full.
        assert max(crowd.gauge.values) < 2 * HISTORY + PUBLISHERS


def documents(stream: bytes) -> Iterator[dict[str, object]]:
    """What is in these text frames, all of them shorter than 64 KiB."""
    at = 0
    while at < len(stream):
        assert stream[at] == 0x81
        size, start = stream[at + 1], at + 2
        if size == 126:
            size, start = int.from_bytes(stream[at + 2 : at + 4], "big"), at + 4
        yield json.loads(stream[start : start + size])
        at = start + size
