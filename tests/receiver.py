"""A receiver of webhooks: an HTTP server in a thread, whose answers a test can choose."""

from __future__ import annotations

import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from standardwebhooks import Webhook

from .harness import PATIENCE_S

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # of the specification's examples


class Received(NamedTuple):
    """``status``: what it was answered."""

    status: int
    id: str
    kind: str
    channel: str
    subscribers: int
    headers: dict[str, str]
    document: dict[str, Any]


class Receiver:
    """Verifies each signature with the specification's own library. ``statuses``: of the next answers, then 204."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.answer_headers: dict[str, str] = {}
        self.received: queue.Queue[Received] = queue.Queue()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 204
                receiver._take(status, dict(self.headers.items()), body)
                self.send_response(status)
                for name, value in receiver.answer_headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hooks/presence"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)

    def next(self) -> Received:
        return self.received.get(timeout=3 * PATIENCE_S)  # two leases and a delay, where a process died

    def told(self, count: int) -> list[tuple[str, str, int]]:
        """The next ones: kind, channel, subscribers."""
        return [(one.kind, one.channel, one.subscribers) for one in (self.next() for _ in range(count))]

    def _take(self, status: int, headers: dict[str, str], body: bytes) -> None:
        document = Webhook(SECRET).verify(body, headers)
        kind = document["type"].removeprefix("channel.")
        data = document["data"]
        lower = {name.lower(): value for name, value in headers.items()}
        self.received.put(
            Received(status, lower["webhook-id"], kind, data["channel"], data["subscribers"], lower, document)
        )
