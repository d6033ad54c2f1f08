"""Parsers for each pair of transport and format, which produce common events. Bytes only: no sockets.

Invariants of each transport are checked here: an event stream's id is the cursor in its document, and the cursor of a
poll's response is at or after its last message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from ..harness import Chunks


@dataclass(frozen=True, slots=True)
class Event:
    """``kind`` is open, message, reset, ping, rotate, expired or closed; the rest is what came with it."""

    kind: str
    cursor: str | None = None
    data: Any = None
    channel: str | None = None
    type: str | None = None
    key: str | None = None
    channels: tuple[str, ...] = ()
    spread: int | None = None
    retry: int | None = None
    heartbeat: float | None = None
    lifetime: float | None = None


CLOSED = Event("closed")


def message(envelope: dict[str, Any]) -> Event:
    return Event(
        "message", envelope["id"], envelope["data"], envelope["channel"],
        type=envelope.get("type"), key=envelope.get("key"), spread=envelope.get("spread"),
    )  # fmt: skip


def control(said: dict[str, Any], retry: int | None = None) -> Event:
    return Event(
        said["control"], said["cursor"], channels=tuple(said.get("channels", ())), spread=said.get("spread"),
        retry=said.get("retry", retry), heartbeat=said.get("heartbeat"), lifetime=said.get("lifetime"),
    )  # fmt: skip


class Wire:
    """One connection's way of reading: bytes in, events out."""

    transport = ""
    format = ""
    says_cursor = True  # on its own; else the cursor is whatever the publisher was told
    says_open = True
    headers: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.buffer = b""
        self.status = 0  # of the answer, once its head is here

    def __init_subclass__(cls) -> None:
        WIRES[f"{cls.transport}-{cls.format}"] = cls

    def request(self, names: str, params: dict[str, str], headers: tuple[str, ...] = ()) -> bytes:
        query = urlencode({"format": self.format, **params})
        lines = [f"GET /channels/{names}?{query} HTTP/1.1", "Host: test", *self.headers, *headers]
        return "\r\n".join([*lines, "", ""]).encode()

    def feed(self, data: bytes) -> Iterator[Event]:
        self.buffer += data
        while not self.status:
            if b"\r\n\r\n" not in self.buffer:
                return
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            self.status = int(head.split()[1])
            assert self.status in (101, 200), head + self.buffer
            self.take_head(head)
        yield from self.read()

    def take_head(self, head: bytes) -> None:
        """The answer's head is here."""

    def read(self) -> Iterator[Event]:
        raise NotImplementedError

    def end(self) -> Event:
        """The connection has ended."""
        assert not self.buffer, self.buffer
        return CLOSED


WIRES: dict[str, type[Wire]] = {}


class WebSocket(Wire):
    transport = "websocket"
    format = "json"
    headers = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )

    def read(self) -> Iterator[Event]:
        while (frame := self._frame()) is not None:
            first, payload = frame
            if first == 0x88:
                yield Event("closed", data=int.from_bytes(payload[:2], "big"))
            elif first == 0x89:
                yield from self.pinged()
            else:
                assert first == 0x81
                yield self.text(payload.decode())

    def pinged(self) -> Iterator[Event]:
        return iter(())  # a ping in words follows

    def text(self, text: str) -> Event:
        said = json.loads(text)
        return control(said) if "control" in said else message(said)

    def _frame(self) -> tuple[int, bytes] | None:
        data = self.buffer
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return None
        self.buffer = data[start + size :]
        return data[0], data[start : start + size]


class TextWebSocket(WebSocket):
    format = "text"
    says_cursor = False
    says_open = False

    def pinged(self) -> Iterator[Event]:
        yield Event("ping")

    def text(self, text: str) -> Event:
        return Event("message", data=text)


class EventSource(Wire):
    """Reads as WHATWG HTML §9.2.6 says, so that a payload that could forge a line would."""

    transport = "eventsource"
    format = "json"
    headers = ("Accept: text/event-stream",)

    def __init__(self) -> None:
        super().__init__()
        self._data: list[str] = []
        self._name = ""
        self._id = ""
        self._retry: int | None = None
        self._chunks = Chunks()
        self._rotated = False

    def feed(self, data: bytes) -> Iterator[Event]:
        return super().feed(self._chunks.feed(data) if self.status else data)

    def take_head(self, head: bytes) -> None:
        assert b"\r\nTransfer-Encoding: chunked\r\n" in head + b"\r\n"
        self.buffer = self._chunks.feed(self.buffer)

    def end(self) -> Event:
        assert self._chunks.ended is self._rotated, "a planned end, and no other, has a last chunk"
        return super().end()

    def read(self) -> Iterator[Event]:
        while b"\n" in self.buffer:
            line, _, self.buffer = self.buffer.partition(b"\n")
            for part in line.removesuffix(b"\r").split(b"\r"):
                yield from self._line(part.decode())

    def _line(self, line: str) -> Iterator[Event]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id":
            self._id = value
        elif name == "retry":
            self._retry = int(value)
        else:
            assert not line, line
            if self._data:
                yield self._event("\n".join(self._data))
            self._data, self._name, self._retry = [], "", None

    def _event(self, data: str) -> Event:
        if self._name != "control":
            return self.payload(self._id, self._name, data)
        said = control(json.loads(data), self._retry)
        self._rotated = said.kind in ("rotate", "expired")
        assert said.cursor == self._id
        return said

    def payload(self, cursor: str, name: str, data: str) -> Event:
        envelope = json.loads(data)
        assert (envelope["id"], name) == (cursor, "")
        return message(envelope)


class TextEventSource(EventSource):
    format = "text"

    def payload(self, cursor: str, name: str, data: str) -> Event:
        return Event("message", cursor, data, type=name or None)


class LongPoll(Wire):
    """An answer's messages, then where it leads. ``answered`` tells that it is time for the next poll."""

    transport = "longpoll"
    format = "json"
    says_open = False

    answered = False

    def feed(self, data: bytes) -> Iterator[Event]:
        self.answered = False
        return super().feed(data)

    def read(self) -> Iterator[Event]:
        document = self._document()
        if document is None:
            return
        self.answered = True
        cursor = document["cursor"]
        for envelope in document["messages"]:
            assert envelope["id"] <= cursor
            yield message(envelope)
        if "reset" in document:
            assert document["messages"] == []
            yield Event("reset", cursor, channels=tuple(document["reset"]), spread=document.get("spread"))
        elif "retry" in document:
            yield Event("rotate", cursor, retry=document["retry"])
        else:
            yield Event("ping", cursor)

    def take_head(self, head: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        self._size = int(fields[b"Content-Length"])

    def _document(self) -> dict[str, Any] | None:
        if len(self.buffer) < self._size:
            return None
        assert len(self.buffer) == self._size, "more than the answer"
        body, self.buffer = self.buffer, b""
        self.status = 0
        document: dict[str, Any] = json.loads(body)
        return document
