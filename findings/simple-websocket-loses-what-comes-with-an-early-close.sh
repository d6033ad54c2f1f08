#!/bin/sh
# simple-websocket 1.1.0 (PyPI), client: if the server's message and its close come in one piece with the answer to the
# handshake, the program gets neither: receive() raises at once, with code 1005 and no reason.
#
# A server that refuses after the handshake does just that, because the code and the reason are the only way to tell a
# browser why. The same two a moment later, or messages without a close, arrive. Until it is mended: another package where
# the server may close at once.
#
# Needs python3 with venv. Takes about 8 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check simple-websocket==1.1.0

cat >show.py <<'PY'
import re
import socket
import threading
import time
from base64 import b64encode
from contextlib import suppress
from hashlib import sha1

from simple_websocket import Client, ConnectionClosed

HEAD = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
MESSAGE, CLOSE = b"\x81\x05hello", b"\x88\x0a\x0f\xa3no token"  # 4003


def answer(listener: socket.socket, pauses_s: tuple[float, float]) -> None:
    connection, _ = listener.accept()
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)[1]
        pending = (HEAD % b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()).encode()
        for pause_s, frame in zip(pauses_s, (MESSAGE, CLOSE)):
            if pause_s:
                connection.sendall(pending)
                time.sleep(pause_s)
                pending = b""
            pending += frame
        connection.sendall(pending)
        connection.settimeout(2)
        with suppress(TimeoutError):
            connection.recv(4096)  # the client's close


with socket.create_server(("127.0.0.1", 0)) as listener:
    for how, pauses_s in {
        "all in one piece": (0, 0),
        "the close a moment later": (0, 0.3),
        "both a moment later": (0.3, 0),
    }.items():
        server = threading.Thread(target=answer, args=(listener, pauses_s))
        server.start()
        seen: list[object] = []
        try:
            client = Client("ws://127.0.0.1:%d/" % listener.getsockname()[1])
            while True:
                seen.append(client.receive(timeout=10))
        except ConnectionClosed as closed:
            seen += [int(closed.reason), closed.message]
        print(f"{how}:", seen)
        server.join()
PY
timeout 60 venv/bin/python show.py | tee seen
cat >expected <<'TXT'
all in one piece: [1005, None]
the close a moment later: ['hello', 4003, 'no token']
both a moment later: ['hello', 4003, 'no token']
TXT
diff expected seen
