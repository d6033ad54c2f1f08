"""Test harness: starts the server as a subprocess, and provides raw-socket clients."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

KEY = "test-publish-key-of-32-characters"
MS = float(os.environ.get("PUSHCOMPAT_TEST_MS", "0.001"))  # a slow machine can stretch all times
CERTIFICATE = Path(__file__).with_name("tls.pem")  # for localhost and 127.0.0.1, signed by itself; and its key
EXAMPLES = int(os.environ.get("PUSHCOMPAT_TEST_EXAMPLES", "1"))  # multiplies the examples of properties
PATIENCE_S = 10_000 * MS  # how long anything that must happen may take


class Server:
    """``python -m pushcompat`` as a subprocess, on a free port."""

    module = "pushcompat"
    wrapper: tuple[str, ...] = ()  # a command that runs the one behind it in its place, like ``env`` does

    def __init__(self, state_dir: Path, *options: str, env: dict[str, str] | None = None) -> None:
        command = [*self.wrapper, sys.executable, "-m", self.module, "--port", "0"]
        command += ["--state-dir", str(state_dir), *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PUSHCOMPAT_LOG_LEVEL": "debug", "PUSHCOMPAT_PUBLISH_KEY": KEY, **os.environ, **(env or {})},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        first = self.process.stdout.readline().decode()
        found = re.search(r"(?:listens on |\"url\":\")(https?)://(.*?):(\d+)([^\s,\"]*)", first)
        if found is None:
            raise AssertionError(f"the server did not start: {first}{self.process.stderr.read().decode()}")
        scheme, self.host, self.port, self.prefix = found[1], found[2], int(found[3]), found[4]
        self.url = f"{scheme}://{self.host}:{self.port}{self.prefix}"
        self.greeting = first
        self.tls = client_tls() if scheme == "https" else None
        self.log: list[str] = []  # its standard error, line by line
        self._logged = threading.Condition()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._logged:
                self.log.append(line.decode().rstrip())
                self._logged.notify_all()

    def wait_for_log(self, pattern: str) -> str:
        """The first log line that matches."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [line for line in self.log if re.search(pattern, line)]
            return bool(found)

        with self._logged:
            if not self._logged.wait_for(look, PATIENCE_S):
                raise AssertionError(f"no log line like {pattern!r} in:\n" + "\n".join(self.log))
        return found[0]

    def publish(self, channel: str, data: str | bytes = "", **headers: str) -> dict[str, Any]:
        """Publishes text (a ``?`` and parameters may follow the channel), and returns the response."""
        body = data.encode() if isinstance(data, str) else data
        fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "text/plain"}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        request = urllib.request.Request(f"{self.url}/channels/{channel}", body, fields, method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE_S, context=self.tls) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def exposition(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE_S, context=self.tls) as response:
            text: str = response.read().decode()
        return text

    def metric(self, name: str) -> float:
        """The value of a metric, labels included in ``name`` as they are written; 0 if it is missing."""
        lines = self.exposition().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)

    def wait_for_metric(self, name: str, least: float, most: float = inf) -> float:
        """Polls a metric until it is in that range. (Inside of the server there is no event to wait for.)"""
        deadline = threading.Event()
        timer = threading.Timer(PATIENCE_S, deadline.set)
        timer.start()
        try:
            while not least <= (value := self.metric(name)) <= most:
                assert not deadline.wait(20 * MS), f"{name} is {value}, not {least} to {most}"
            return value
        finally:
            timer.cancel()

    def memory(self) -> int:
        """Its resident memory in bytes."""
        shown = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self.process.pid)], capture_output=True, check=True, timeout=PATIENCE_S
        )
        return int(shown.stdout) * 1024

    def connect(self, receive_buffer: int | None = None, source: str = "") -> Client:
        """``receive_buffer``: bytes that the kernel may hold for a client that does not read. ``source``: the client's
        address, any of 127.0.0.0/8.
        """
        return Client(self.host, self.port, receive_buffer, self.tls, source)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends the process and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code

    def complaints(self) -> list[str]:
        """Log lines that no client should be able to cause."""
        return [line for line in self.log if re.search(r"Traceback|ERROR|CRITICAL|Error:|Exception", line)]


def client_tls() -> ssl.SSLContext:
    """Trusts the tests' certificate, and no other."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))


class Client:
    """A blocking socket that speaks HTTP/1.1, read by response, by event, by frame, or to its end.

    ``buffer`` has what was received and not read yet; of a chunked body that is what its chunks carry.
    """

    def __init__(
        self,
        host: str,
        port: int,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        source: str = "",
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        try:
            self.socket.connect((host, port))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        except OSError:
            self.socket.close()
            raise
        self.buffer = b""
        self.chunks: Chunks | None = None  # of the body that is under way

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Closes with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, target: str, body: bytes = b"", **headers: str) -> None:
        """Sends a request; underscores in header names stand for hyphens."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def publish(self, channel: str, body: bytes = b"", **headers: str) -> None:
        """Sends a publish with the key; as ``request`` does."""
        self.request("POST", f"/channels/{channel}", body, **{"Authorization": f"Bearer {KEY}", **headers})

    def more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(self.buffer)
        self.buffer += data if self.chunks is None else self.chunks.feed(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self.more()
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def to_end(self) -> bytes:
        """All bytes until the server closes the connection."""
        try:
            while True:
                self.more()
        except EOFError:
            data, self.buffer = self.buffer, b""
            return data

    def head(self) -> tuple[int, dict[str, str]]:
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if fields.get("transfer-encoding") == "chunked":
            self.chunks = Chunks()
            self.buffer = self.chunks.feed(self.buffer)
        return int(lines[0].split()[1]), fields

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """A response with a Content-Length: status, headers (lower-case names), body."""
        status, headers = self.head()
        return status, headers, self.exactly(int(headers.get("content-length", "0")))

    def problem(self) -> tuple[int, dict[str, str], str]:
        """A refusal, which must be a problem document: status, headers, and the detail for the user."""
        status, headers, body = self.response()
        assert headers["content-type"] == "application/problem+json", body
        document = json.loads(body)
        assert (document["status"], bool(document["title"])) == (status, True)
        return status, headers, document["detail"]

    def poll(self, channels: str, query: str = "") -> dict[str, Any]:
        """Asks for what there is, and returns the response."""
        self.request("GET", f"/channels/{channels}?{query}&wait=0")
        status, _, body = self.response()
        assert status == 200, body
        document: dict[str, Any] = json.loads(body)
        return document

    def retained(self, channels: str) -> list[dict[str, Any]]:
        """All retained messages, as envelopes."""
        self.poll(channels)  # a publish may be answered a turn of the server's loop before its message can be seen
        messages: list[dict[str, Any]] = self.poll(channels, "cursor=earliest")["messages"]
        return messages

    def event(self) -> dict[str, str]:
        """The next block of an event stream, by field; the lines of ``data`` joined."""
        fields: dict[str, str] = {}
        for line in self.until(b"\n\n").decode().split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
        return fields

    def upgrade(self, target: str, **headers: str) -> int:
        """Does a WebSocket handshake and returns the response's status."""
        self.request(
            "GET", target, Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==", **headers,
        )  # fmt: skip
        return self.head()[0]

    def frame(self) -> tuple[int, bytes]:
        """The next WebSocket frame: its first byte (FIN, RSV, opcode) and its payload."""
        first, size = self.exactly(2)
        if size == 126:
            size = int.from_bytes(self.exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self.exactly(8), "big")
        return first, self.exactly(size)

    def send_frame(self, first: int, payload: bytes = b"", mask: bytes = b"\1\2\3\4") -> None:
        self.send(client_frame(first, payload, mask))


class Chunks:
    """Reads a chunked body (RFC 9112 §7.1). Of an event stream each chunk must carry whole events."""

    def __init__(self) -> None:
        self.ended = False  # the last chunk was read
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """What the chunks that are whole now carry."""
        self._rest += data
        carried = b""
        while (chunk := self._next()) is not None:
            assert chunk == b"" or chunk.endswith(b"\n\n"), chunk
            carried += chunk
            self.ended = not chunk
        assert not (self.ended and self._rest), self._rest
        return carried

    def _next(self) -> bytes | None:
        size, found, rest = self._rest.partition(b"\r\n")
        if not found or len(rest) < int(size, 16) + 2:
            return None
        chunk, end, self._rest = rest[: int(size, 16)], rest[int(size, 16) :][:2], rest[int(size, 16) + 2 :]
        assert end == b"\r\n", end
        return chunk


def client_frame(first: int, payload: bytes = b"", mask: bytes = b"\1\2\3\4") -> bytes:
    """A WebSocket frame as a client sends it. ``first`` is its first byte: FIN, RSV, opcode. Without mask: a protocol
    error.
    """
    size, masked = len(payload), 0x80 if mask else 0
    if size < 126:
        length = bytes([masked | size])
    elif size < 0x10000:
        length = bytes([masked | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([masked | 127]) + size.to_bytes(8, "big")
    if mask:
        stretched = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")
    return bytes([first]) + length + mask + payload


def full_pipe() -> tuple[int, int]:
    """A pipe whose next write would block: what it is read from, and written to."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write_end, True)
    return read_end, write_end


def sequence(cursor: str) -> int:
    """The sequence number in a cursor."""
    return int(cursor.partition("-")[2])


def running(
    state_dir: Path, *options: str, kind: type[Server] = Server, env: dict[str, str] | None = None
) -> Iterator[Server]:
    """For fixtures: a server process that is stopped with the test; fails if it logged warnings."""
    server = kind(state_dir, *options, env=env)
    try:
        yield server
    finally:
        code = server.stop()
    assert server.complaints() == [], "\n".join(server.log[-40:])
    assert code == 0, "\n".join(server.log[-40:])
