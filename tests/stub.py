"""A server made of scripts, for what the real one can not be made to do: it says what it is told, or nothing."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .harness import PATIENCE_S

CERTIFICATE = Path(__file__).with_name("tls.pem")  # for localhost and 127.0.0.1, signed by itself; and its key


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


class Talk:
    """One connection, seen from the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.file = sock.makefile("rb")
        self.target = ""
        self.headers: dict[str, str] = {}
        self.body = b""

    def request(self) -> None:
        """Reads one request."""
        self.target = self.file.readline().decode().split(" ")[1]
        self.headers = {}
        while line := self.file.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self.body = self.file.read(int(self.headers.get("content-length", "0")))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait_for_end(self) -> None:
        """Until the client is gone."""
        while self.file.read(1):
            pass


Script = Callable[[Talk], None]


class Stub:
    """Each connection is answered by the next script, the last one by all that come after."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.talks: list[Talk] = []
        self._scripts = scripts
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE_S)
            if self._tls:
                try:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                except OSError:
                    continue  # the client does not trust us
            script = self._scripts[min(len(self.talks), len(self._scripts) - 1)]
            talk = Talk(sock)
            self.talks.append(talk)
            with sock, talk.file:
                try:
                    script(talk)
                except OSError:
                    pass  # the client left first

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)


@contextmanager
def stub(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    server = Stub(*scripts, tls=tls)
    try:
        yield server
    finally:
        server.close()


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {fields[name]}" for name in fields)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(*data: bytes) -> Script:
    """Reads a request, and says this."""

    def script(talk: Talk) -> None:
        talk.request()
        for part in data:
            talk.send(part)

    return script


def json_says(status: int, document: object, **headers: str) -> Script:
    return says(answer(status, json.dumps(document).encode(), **headers))


def refuses(status: int, detail: str = "no", **headers: str) -> Script:
    return json_says(status, {"title": "No", "status": status, "detail": detail}, **headers)


def silent(talk: Talk) -> None:
    talk.request()
    talk.wait_for_end()
