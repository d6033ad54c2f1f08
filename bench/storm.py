"""The longest turn of the event loop in a storm of TLS handshakes.

    python bench/storm.py            2,000 handshakes at once
    python bench/storm.py 5000

All clients connect and send their ClientHello before the first of them goes on, so all handshakes wait in the server at
the same time. The server runs in a process of its own that measures each turn of its hub (``--server``): its CPU time,
and by the clock, in which other processes' use of the core counts too. Exit code 1 if a turn took more than 10 ms of
CPU time.
"""

from __future__ import annotations

import atexit
import json
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from encrypted import CERTIFICATE
from servers import ROOT, SERVER_CORE, free_port, on_core

MOST_MS = 10.0
DEADLINE_S = 60


class Client:
    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self.proceed()

    def proceed(self) -> bool:
        """Whether the handshake is complete."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.socket.sendall(self._outgoing.read())
        return True

    def receive(self) -> bool:
        data = self.socket.recv(1 << 16)
        if not data:
            raise SystemExit("the server ended a connection")
        self._incoming.write(data)
        return self.proceed()


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--server", "--port", str(port), "--store", "memory:"]
        command += ["--state-dir", folder, "--tls-cert", str(CERTIFICATE)]
        server = subprocess.Popen(on_core(SERVER_CORE, command), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        while "listens on" not in server.stdout.readline():
            pass
        took_s = storm(port, count)
        server.send_signal(signal.SIGTERM)
        turns = json.loads(server.communicate(timeout=DEADLINE_S)[0].splitlines()[-1])
    cpu_ms = turns["longest_cpu_ms"]
    print(
        f"{count:,} handshakes in {took_s:.1f} s and {turns['turns']:,} turns; the longest turn took {cpu_ms:.1f} ms "
        f"of CPU time, {turns['longest_ms']:.1f} ms by the clock; accepting {turns['accept_cpu_ms']:.1f} ms"
    )
    return 0 if cpu_ms <= MOST_MS else 1


def storm(port: int, count: int) -> float:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    began = time.monotonic()
    waiting = {client.socket.fileno(): client for client in (Client(port, context) for _ in range(count))}
    done = []
    with select.epoll() as epoll:
        for fd in waiting:
            epoll.register(fd, select.EPOLLIN)
        while waiting:
            for fd, _ in epoll.poll(DEADLINE_S):
                if waiting[fd].receive():
                    epoll.unregister(fd)
                    done.append(waiting.pop(fd))
    took_s = time.monotonic() - began
    for client in done:
        client.socket.close()
    return took_s


def serve() -> None:
    """The server, with its turns measured."""
    from pushcompat import cli
    from pushcompat.hub.listener import Listener
    from pushcompat.hub.loop import Loop

    found = {"turns": 0, "longest_ms": 0.0, "longest_cpu_ms": 0.0, "accept_cpu_ms": 0.0}
    turn: Any = Loop.turn
    accept: Any = Listener._accept

    def measured_turn(loop: Loop) -> bool:
        wall, cpu = time.perf_counter(), time.thread_time()
        left = turn(loop)
        found["turns"] += 1
        found["longest_cpu_ms"] = max(found["longest_cpu_ms"], (time.thread_time() - cpu) * 1e3)
        found["longest_ms"] = max(found["longest_ms"], (time.perf_counter() - wall) * 1e3)
        return bool(left)

    def measured_accept(*arguments: Any) -> None:
        cpu = time.thread_time()
        accept(*arguments)
        found["accept_cpu_ms"] = max(found["accept_cpu_ms"], (time.thread_time() - cpu) * 1e3)

    Loop.turn = measured_turn  # type: ignore[method-assign]
    Listener._accept = measured_accept  # type: ignore[method-assign]
    atexit.register(lambda: print(json.dumps(found), flush=True))
    sys.argv.remove("--server")
    cli.main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    if "--server" in sys.argv:
        serve()
    sys.exit(main())
