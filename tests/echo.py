"""The production server as an echo server, so that a public conformance suite can be pointed at it.

    python -m tests.echo --port 9001

It is the whole server, with its listener, sockets and WebSocket code; only messages from clients are echoed instead of
ignored. Point Autobahn's fuzzingclient at ws://127.0.0.1:9001/channels/echo. All options of the server work.
"""

from __future__ import annotations

import sys

from websockets.frames import Frame, Opcode

from pushcompat import cli
from pushcompat.wire import websocket

_CLOSE = 0x88  # a Close frame's first byte
_OPTIONS = (
    "--heartbeat",
    "1d",
    "--websocket-message-limit",
    "64M",
    "--websocket-input-rate",
    "1G",
    "--publish-key",
    "echo",
    "--log-level",
    "error",
)


class Echo(websocket.Input):
    """Echoes each complete message."""

    __slots__ = ("_answers", "_parts")

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._parts: list[Frame] = []
        self._answers = b""

    def receive(self, data: bytes) -> None:
        for frame in self.read(data):
            self._parts.append(frame)
            if frame.fin:
                self._say_back()

    def _say_back(self) -> None:
        kind, payload = self._parts[0].opcode, b"".join(part.data for part in self._parts)
        self._parts.clear()
        if kind is Opcode.TEXT:
            self._answers += websocket.text_frame(payload)
        else:
            self._answers += Frame(Opcode.BINARY, payload).serialize(mask=False)

    def replies(self) -> bytes:
        """Pongs are sent in time, also between fragments; a Close is the last frame."""
        said = [data for data in self._protocol.data_to_send() if data]
        close = said.pop() if said and said[-1][0] == _CLOSE else b""
        answers, self._answers = self._answers, b""
        return b"".join([*said, answers, close])


if __name__ == "__main__":
    websocket.Input = Echo  # type: ignore[misc]
    sys.argv[1:1] = _OPTIONS
    cli.main()
