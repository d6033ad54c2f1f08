#!/bin/sh
# ws4py 0.6.0 (PyPI), client: of the messages that come in one piece with the answer to its handshake, it delivers the
# first and loses the others.
#
# A server that has something to say when a client connects (its state, what the client missed) sends it right after the
# handshake, and the network delivers both together. The bytes after the first frame are dropped without an error; the
# same messages a moment later all arrive. websocket-client delivers them either way. Close codes 1012 to 1014, which
# were registered after RFC 6455, are answered as a protocol error. Until it is mended: another package.
#
# Needs python3 with venv. Takes about 8 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ws4py==0.6.0 websocket-client==1.9.2

cat >show.py <<'PY'
import re
import socket
import threading
import time
from base64 import b64encode
from contextlib import suppress
from hashlib import sha1

import websocket
from ws4py.client.threadedclient import WebSocketClient

HEAD = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
MESSAGES = b"".join(b"\x81%c%s" % (len(text), text) for text in (b"one", b"two", b"three"))


def frames(code: int) -> bytes:
    return MESSAGES + b"\x88\x02" + code.to_bytes(2, "big")


def answer(listener: socket.socket, rest: bytes, pause_s: float) -> None:
    connection, _ = listener.accept()
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)[1]
        head = HEAD % b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        if pause_s:
            connection.sendall(head.encode())
            time.sleep(pause_s)
            connection.sendall(rest)
        else:
            connection.sendall(head.encode() + rest)
        connection.settimeout(2)
        with suppress(TimeoutError):
            connection.recv(4096)  # the client's close


def with_ws4py(url: str) -> list[object]:
    seen: list[object] = []
    ended = threading.Event()

    class Client(WebSocketClient):
        def received_message(self, message) -> None:
            seen.append(str(message))

        def closed(self, code, reason=None) -> None:
            seen.append(code)
            ended.set()

    Client(url).connect()
    assert ended.wait(10)
    return seen


def with_websocket_client(url: str) -> list[object]:
    seen: list[object] = []
    client = websocket.create_connection(url, timeout=10)
    while True:
        kind, data = client.recv_data()
        if kind == websocket.ABNF.OPCODE_CLOSE:
            return [*seen, int.from_bytes(data[:2], "big")]
        seen.append(data.decode())


with socket.create_server(("127.0.0.1", 0)) as listener:
    url = "ws://127.0.0.1:%d/" % listener.getsockname()[1]
    for name, run in ("ws4py", with_ws4py), ("websocket-client", with_websocket_client):
        for how, pause_s, code in ("in one piece", 0, 1000), ("a moment later", 0.3, 1000), ("code 1012", 0.3, 1012):
            server = threading.Thread(target=answer, args=(listener, frames(code), pause_s))
            server.start()
            print(f"{name}, {how}:", run(url))
            server.join()
PY
timeout 60 venv/bin/python show.py 2>errors | tee seen
cat >expected <<'TXT'
ws4py, in one piece: ['one', 1006]
ws4py, a moment later: ['one', 'two', 'three', 1000]
ws4py, code 1012: ['one', 'two', 'three', 1005]
websocket-client, in one piece: ['one', 'two', 'three', 1000]
websocket-client, a moment later: ['one', 'two', 'three', 1000]
websocket-client, code 1012: ['one', 'two', 'three', 1012]
TXT
diff expected seen
