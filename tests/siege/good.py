"""A process of good subscribers: ``python -m tests.siege.good PORT COUNT TOKEN [tls]``.

Each follows one channel, over one of the transports; half of them with a token. A message's data is the monotonic time
at which it was published. For each line on standard input it prints the figures since the one before, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections import Counter

from ..harness import client_tls, sequence
from ..parity.wires import WIRES, Event

CHANNELS = 10
_ADDRESSES = 10
_WIRES = ("websocket-json", "eventsource-json", "longpoll-json", "websocket-text", "eventsource-text")
_TIMEOUT_S = 60


def channels() -> list[str]:
    """Those of members ask for a token."""
    return [f"{'member' if number % 2 else 'good'}.{number}" for number in range(CHANNELS)]


class Subscriber:
    def __init__(self, number: int, port: int, token: str, tls: ssl.SSLContext | None, figures: Figures) -> None:
        self._tls = tls
        self._wire_name = _WIRES[number % len(_WIRES)]
        self._channel = channels()[number % CHANNELS]
        self._address = f"127.0.9.{1 + number % _ADDRESSES}"
        self._port = port
        self._token = token if number % 2 else ""
        self._figures = figures
        self.opened = asyncio.Event()
        self.cursor = ""
        self.count = 0

    async def run(self) -> None:
        """Never reconnects: a connection that ends is lost."""
        try:
            await self._follow()
        except (OSError, AssertionError, TimeoutError) as error:
            self._figures.lost[f"{self._wire_name}: {str(error)[:200] or type(error).__name__}"] += 1

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(self._address, 0), ssl=self._tls
        )
        wire = WIRES[self._wire_name]()
        try:
            if wire.transport == "longpoll":
                self.cursor = "earliest"
            writer.write(self._request(wire))
            if wire.transport == "longpoll":
                self.opened.set()  # it is held until there is a message
            while True:
                data = await asyncio.wait_for(reader.read(65536), _TIMEOUT_S)
                assert data, "ended"
                now = time.monotonic()
                for event in wire.feed(data):
                    self._take(event, now)
                self.opened.set()
                if wire.transport == "longpoll" and wire.answered:
                    wire = WIRES[self._wire_name]()
                    writer.write(self._request(wire))
        finally:
            writer.close()

    def _request(self, wire: object) -> bytes:
        params = {"transport": wire.transport, "cursor": self.cursor, "token": self._token}
        if wire.transport == "longpoll":
            params["wait"] = "20"
        return wire.request(self._channel, {name: value for name, value in params.items() if value})

    def _take(self, event: Event, now: float) -> None:
        if event.cursor:
            if event.kind == "message" and self.cursor not in ("", "earliest"):
                assert sequence(event.cursor) > sequence(self.cursor), "out of order, or twice"
            self.cursor = event.cursor
        assert event.kind in ("open", "ping", "message"), event
        if event.kind == "message":
            self.count += 1
            self._figures.latencies.append(now - float(event.data))


class Figures:
    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.lost: Counter[str] = Counter()

    def taken(self, subscribers: list[Subscriber]) -> dict[str, object]:
        latencies, self.latencies = sorted(self.latencies), []
        counts: dict[str, set[int]] = {}
        for subscriber in subscribers:
            counts.setdefault(subscriber._channel, set()).add(subscriber.count)
        return {
            "delivered": len(latencies),
            "p50_ms": _percentile(latencies, 0.5),
            "p99_ms": _percentile(latencies, 0.99),
            "worst_ms": _percentile(latencies, 1.0),
            "lost": self.lost,
            "counts": {channel: sorted(found) for channel, found in counts.items()},
            "open": sum(subscriber.opened.is_set() for subscriber in subscribers),
        }


def _percentile(latencies: list[float], share: float) -> float | None:
    return round(latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000, 2) if latencies else None


async def main() -> None:
    port, count, token = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    figures, tls = Figures(), client_tls() if sys.argv[4:] == ["tls"] else None
    subscribers = [Subscriber(number, port, token, tls, figures) for number in range(count)]
    tasks = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps(figures.taken(subscribers)), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
