"""One small client for every transport and format, on a blocking socket: open, read events, cut, resume by cursor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..harness import Client, Server
from .wires import CLOSED, WIRES, Event, LongPoll, Wire


@dataclass
class Scene:
    """A server, what was published to it, and who subscribes; all are gone at the end."""

    server: Server
    ids: dict[Any, str] = field(default_factory=dict)  # what was published → the publisher's answer
    subscribers: list[Subscriber] = field(default_factory=list)

    def publish(self, channels: str, *data: str, params: str = "") -> str:
        """Publishes each; returns the cursor of the last."""
        for text in data:
            self.ids[text] = self.server.publish(channels + params, text)["id"]
        return self.ids[data[-1]]

    def subscriber(self, wire: str, channels: str, **params: str) -> Subscriber:
        """One that is not there yet."""
        subscriber = Subscriber(self, wire, channels, params)
        self.subscribers.append(subscriber)
        return subscriber

    def opened(self, wire: str, channels: str, cursor: str = "", **params: str) -> Subscriber:
        subscriber = self.subscriber(wire, channels, **params)
        subscriber.open(cursor)
        return subscriber

    def close(self) -> None:
        for subscriber in self.subscribers:
            subscriber.cut()


class Subscriber:
    """``cursor`` is where it stands: what the server said last, or, where a transport does not say it, what the
    publisher was told of the last message that came.
    """

    def __init__(self, scene: Scene, wire: str, channels: str, params: dict[str, str]) -> None:
        self.cursor = ""
        self._scene = scene
        self._wire_name = wire
        self._channels = channels
        self._params = params
        self._client: Client | None = None
        self._wire: Wire = WIRES[wire]()
        self._events: deque[Event] = deque()

    # Connecting

    def open(self, cursor: str = "", *, headers: tuple[str, ...] = (), params: dict[str, str] | None = None) -> Event:
        """Connects, from that cursor on; returns the event that says so. ``headers`` or ``params`` say it otherwise."""
        self.cut()
        self.cursor = cursor
        self._wire = WIRES[self._wire_name]()
        self._client = self._scene.server.connect()
        start = {"cursor": cursor} if cursor and params is None else params or {}
        self._ask(start, headers)
        if self._wire.says_open:
            opened = self.event()
            assert opened.kind == "open"
            return opened
        if not isinstance(self._wire, LongPoll):
            self._until(lambda: bool(self._wire.status))
        elif not start:
            assert self.event().kind == "ping"  # a poll without a cursor is answered at once
        return Event("open", self.cursor or None)

    def resume(self, wire: str | None = None) -> Event:
        """Connects anew from where it stands, on the same or another transport."""
        self._wire_name = wire or self._wire_name
        return self.open(self.cursor)

    def cut(self) -> None:
        """The network is gone: what was sent and not read is lost."""
        if self._client is not None:
            self._client.reset()
        self._client = None
        self._events.clear()

    # Reading

    def event(self) -> Event:
        """The next one of any kind."""
        self._until(lambda: bool(self._events))
        event = self._events.popleft()
        if event.cursor is not None:
            self.cursor = event.cursor
        elif event.kind == "message":
            self.cursor = self._scene.ids.get(event.data, self.cursor)
        return event

    def next(self) -> Event:
        """The next one that says more than where it stands."""
        while (event := self.event()).kind == "ping":
            pass
        return event

    def message(self) -> Event:
        event = self.next()
        assert event.kind == "message", event
        return event

    def read(self, count: int) -> list[Any]:
        """The payloads of the next so many, between which nothing else may come."""
        return [self.message().data for _ in range(count)]

    def until_reset(self) -> Event:
        """The next event, which tells that history is gone; a text WebSocket only says ``UPDATED``."""
        event = self.next()
        if self._wire_name == "websocket-text":
            assert (event.kind, event.data) == ("message", "UPDATED")
        else:
            assert event.kind == "reset", event
        return event

    def until_closed(self) -> Event:
        event = self.next()
        assert event.kind == "closed", event
        return event

    @property
    def is_poll(self) -> bool:
        return isinstance(self._wire, LongPoll)

    def _until(self, done: Callable[[], bool]) -> None:
        assert self._client is not None
        while not done():
            try:
                self._client.more()
            except EOFError:
                assert self._wire.end() == CLOSED
                self._events.append(CLOSED)
                continue
            data, self._client.buffer = self._client.buffer, b""
            self._events.extend(self._wire.feed(data))
            if isinstance(self._wire, LongPoll) and self._wire.answered and self._events[-1].kind != "rotate":
                self._ask({"cursor": self._events[-1].cursor or ""}, ())

    def _ask(self, params: dict[str, str], headers: tuple[str, ...]) -> None:
        assert self._client is not None
        self._client.send(self._wire.request(self._channels, {**self._params, **params}, headers))
