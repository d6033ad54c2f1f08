"""Scripted fake server, for what the real one cannot be made to do."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .harness import CERTIFICATE, PATIENCE_S


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
        line = self.file.readline()
        if not line:
            raise ConnectionResetError("the client left")
        self.target = line.decode().split(" ")[1]
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
    """Reads a request and sends these bytes."""

    def script(talk: Talk) -> None:
        talk.request()
        for part in data:
            talk.send(part)

    return script


INFORMATIONAL = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 5\r\n\r\n"
)


def informed(script: Script, informational: bytes = INFORMATIONAL) -> Script:
    """Informational responses come before each of this script's connections' first response."""

    def informed_script(talk: Talk) -> None:
        send = talk.send

        def send_first(data: bytes) -> None:
            talk.send = send  # type: ignore[method-assign]
            send(informational + data)

        talk.send = send_first  # type: ignore[method-assign]
        script(talk)

    return informed_script


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def cut_short(status: int, body: bytes, **headers: str) -> list[Script]:
    """Responses that end before they are complete, in each way in which a body can be framed."""
    whole = answer(status, body, **headers)
    chunked = answer(status, Transfer_Encoding="chunked", **headers).replace(b"Content-Length: 0\r\n", b"")
    to_end = answer(status, **headers).replace(b"Content-Length: 0\r\n", b"")
    half = body[: len(body) // 2]
    return [
        says(whole[:-1]),
        says(whole.removesuffix(body)),
        says(chunked + chunk(half)),
        says(chunked + chunk(body)),
        says(chunked + chunk(body)[:-5]),
        says(chunked + b"-5\r\n" + body),
        says(to_end + half),
        says(to_end),
    ]


def json_says(status: int, document: object, **headers: str) -> Script:
    return says(answer(status, json.dumps(document).encode(), **headers))


def refuses(status: int, detail: str = "no", **headers: str) -> Script:
    return json_says(status, {"title": "No", "status": status, "detail": detail}, **headers)


def silent(talk: Talk) -> None:
    talk.request()
    talk.wait_for_end()
