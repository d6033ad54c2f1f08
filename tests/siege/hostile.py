"""A process of hostile clients: ``python -m tests.siege.hostile PORT COUNT NUMBER PAUSE_S TOKEN [tls]``.

It goes on until its standard input ends, then prints what it has done as JSON. Each client does something every
``PAUSE_S``, and a connection that the server ends is opened again after that time. Each process has its own addresses,
``ADDRESSES`` of 127.0.0.0/8.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping

from .kinds import KINDS, RESET, TLS_KINDS, Kind

ADDRESSES = 40
_RECEIVE_BYTES = 4096
_STARTS_PER_S = 400
_NICE = 30  # hostile clients are elsewhere: they must not take the processor from the server


class Client:
    def __init__(self, name: str, kind: Kind, address: str) -> None:
        self.name = name
        self.kind = kind
        self.address = address
        self.socket: socket.socket | None = None
        self.received = b""
        self.turn = 0  # the number of its next action; earlier ones are void


class Hostile:
    def __init__(
        self, port: int, count: int, number: int, pause_s: float, token: str, kinds: Mapping[str, Kind]
    ) -> None:
        self._port = port
        self._pause_s = pause_s
        self._token = token
        self._poll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        self._due: list[tuple[float, int, Client]] = []
        self._order = itertools.count()
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        now = time.monotonic()
        names = list(kinds)
        for index in range(count):
            name = names[index % len(names)]
            address = f"127.0.{10 + number}.{1 + index % ADDRESSES}"
            self._at(now + index / _STARTS_PER_S, Client(name, kinds[name], address))

    def run(self) -> None:
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        while True:
            now = time.monotonic()
            wait_s = max(0.0, min(0.5, self._due[0][0] - now)) if self._due else 0.5
            for fd, events in self._poll.poll(wait_s):
                if fd == sys.stdin.fileno():
                    return
                self._ready(self._by_fd[fd], events)
            now = time.monotonic()
            for _ in range(500):
                if not self._due or self._due[0][0] > now:
                    break
                _, turn, client = heapq.heappop(self._due)
                if client.turn == turn:
                    self._act(client)

    def held(self) -> Counter[str]:
        return Counter(client.name for client in self._by_fd.values())

    def _at(self, when: float, client: Client) -> None:
        client.turn = next(self._order)
        heapq.heappush(self._due, (when, client.turn, client))

    def _act(self, client: Client) -> None:
        if client.socket is None:
            self._connect(client)
            return
        kind = client.kind
        if kind.cuts:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._close(client)
            return
        received, client.received = client.received, b""
        self._send(client, kind.again(self._token, received))

    def _connect(self, client: Client) -> None:
        sock = client.socket = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((client.address, 0))
        error = sock.connect_ex(("127.0.0.1", self._port))
        self._by_fd[sock.fileno()] = client
        if error not in (0, errno.EINPROGRESS):
            self._close(client)
            return
        self._poll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLRDHUP)

    def _ready(self, client: Client, events: int) -> None:
        if client.socket is None:
            return
        if events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self._note_refusal(client)
            self._close(client)
        elif events & select.EPOLLOUT:
            interest = select.EPOLLRDHUP | (select.EPOLLIN if client.kind.reads else 0)
            self._poll.modify(client.socket.fileno(), interest)
            self._send(client, client.kind.first(self._token))
        else:
            try:
                client.received = (client.received + client.socket.recv(65536))[-4096:]
            except OSError:
                self._close(client)

    def _note_refusal(self, client: Client) -> None:
        assert client.socket is not None
        try:
            line = (client.received + client.socket.recv(4096))[:12]
        except OSError:
            return
        if line.startswith(b"HTTP/1.1 "):
            self.refused[line[9:12].decode()] += 1

    def _send(self, client: Client, data: bytes) -> None:
        assert client.socket is not None
        try:
            if data:
                client.socket.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)
            return
        self.done[client.name] += 1
        self._at(time.monotonic() + client.kind.pauses * self._pause_s, client)

    def _close(self, client: Client) -> None:
        assert client.socket is not None
        del self._by_fd[client.socket.fileno()]
        client.socket.close()
        client.socket, client.received = None, b""
        self._at(time.monotonic() + self._pause_s, client)


_BIND_ADDRESS_NO_PORT = 24  # Linux: the port is chosen when it connects, so that addresses share ports


def main() -> None:
    os.nice(_NICE)
    port, count, number = map(int, sys.argv[1:4])
    kinds = TLS_KINDS if sys.argv[6:] == ["tls"] else KINDS
    hostile = Hostile(port, count, number, float(sys.argv[4]), sys.argv[5], kinds)
    hostile.run()
    print(json.dumps({"held": hostile.held(), "done": hostile.done, "refused": hostile.refused}))


if __name__ == "__main__":
    main()
