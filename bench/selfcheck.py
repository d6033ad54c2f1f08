"""Verifies that the load generator detects errors.

A small server that speaks the protocol over every transport, and cuts and merges its output at random places, is
first correct and then makes one mistake with one subscriber. Every mistake must show in the report, for every kind of
load that the scenarios use; without one, the report must say ``exact``.

    python bench/selfcheck.py
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, urlsplit

import load
from servers import open_files

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EPOCH = "0selfchk"
SUBSCRIBERS = 20
VICTIM = 3  # the message of its channel that goes wrong, for the first subscriber; the primer is number 0

Fault = Callable[[str], list[str]]  # what one subscriber gets instead of a payload

FAULTS: dict[str, Fault] = {
    "exact": lambda payload: [payload],
    "missing": lambda payload: [],
    "repeated": lambda payload: [payload, payload],
    "corrupt": lambda payload: [payload[:-1] + "x"],
    "wrong_subscribers": lambda payload: [f"{1_000_000:015x}{payload[15:]}"],
}

WORK = load.Load(subscribers=SUBSCRIBERS, publishers=3, rate=100, seconds=0.5)
LOADS = {
    **{transport: replace(WORK, transport=transport) for transport in ("websocket", "eventsource", "longpoll")},
    # No answer says that the server has a held poll: as in the scenarios, they get a moment before the first publish.
    "longpoll, held": replace(WORK, transport="longpoll", held=1, hold=0.3),
    "random channels": replace(WORK, channels=4, random=1),
    "fresh keys": replace(WORK, fresh_keys=1),
}


def frame(text: bytes) -> bytes:
    """An unmasked text frame, RFC 6455 §5.2."""
    size = bytes([len(text)]) if len(text) < 126 else bytes([126]) + len(text).to_bytes(2, "big")
    return b"\x81" + size + text


def event(text: bytes) -> bytes:
    return chunk(b"id: 1\ndata: " + text + b"\n\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def envelope(payload: str) -> bytes:
    return json.dumps({"id": f"{EPOCH}-{1:015d}", "channel": "chat0", "data": payload}, separators=(",", ":")).encode()


@dataclass(slots=True)
class Subscriber:
    writer: asyncio.StreamWriter
    wrap: Callable[[bytes], bytes]
    log: list[str]  # of its channel
    position: int
    fault: Fault = FAULTS["exact"]
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class FakeServer:
    def __init__(self, fault: Fault, needs_keys: bool) -> None:
        self.fault = fault
        self.needs_keys = needs_keys
        self.keys: set[str] = set()
        self.logs: defaultdict[str, list[str]] = defaultdict(list)
        self.subscribers: list[Subscriber] = []
        self.random = random.Random(1)
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.converse(reader, writer))
        self.tasks.append(task)
        await asyncio.wait([task])

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        poller: Subscriber | None = None
        while head := await self.read_head(reader):
            if head.startswith("POST"):
                await self.take(head, reader, writer)
            elif "Upgrade: websocket" in head:
                writer.write(UPGRADED + frame(b'{"control":"open","cursor":"x"}') + b"\x89\x02hi")
                await self.follow(self.subscribe(head, writer, frame))
            elif "text/event-stream" in head:
                writer.write(STREAM + chunk(b'event: control\ndata: {"control":"open","cursor":"x"}\n\n'))
                await self.follow(self.subscribe(head, writer, event))
            else:
                poller = poller or self.subscribe(head, writer, lambda text: text)
                await self.answer(poller, head)

    async def read_head(self, reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""

    def subscribe(self, head: str, writer: asyncio.StreamWriter, wrap: Callable[[bytes], bytes]) -> Subscriber:
        log = self.logs[channel_of(head)]
        subscriber = Subscriber(writer, wrap, log, position=len(log))
        if not self.subscribers:
            subscriber.fault = self.fault
        self.subscribers.append(subscriber)
        return subscriber

    async def take(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        payload = (await reader.readexactly(32)).decode()
        if self.needs_keys and not self.is_fresh(head):
            writer.write(b"HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 2\r\n\r\n{}")
            return
        self.logs[channel_of(head)].append(payload)
        for subscriber in self.subscribers:
            subscriber.wake.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def is_fresh(self, head: str) -> bool:
        key = re.search(r"\r\nIdempotency-Key: (\S+)\r\n", head)
        if not key or key[1] in self.keys:
            return False
        self.keys.add(key[1])
        return True

    async def follow(self, subscriber: Subscriber) -> None:
        while True:
            await self.send(subscriber.writer, b"".join(map(subscriber.wrap, await self.news(subscriber))))

    async def answer(self, subscriber: Subscriber, head: str) -> None:
        query = parse_qs(urlsplit(head.split()[1]).query)
        envelopes: list[bytes] = []
        if cursor := query.get("cursor"):
            subscriber.position = int(cursor[0].rpartition("-")[2])
        if "wait" in query:
            envelopes = await self.news(subscriber)
        body = b'{"cursor":"%s-%015d","messages":[' % (EPOCH.encode(), subscriber.position)
        body += b",".join(envelopes) + b"]}"
        await self.send(subscriber.writer, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async def news(self, subscriber: Subscriber) -> list[bytes]:
        """The envelopes after the subscriber's position, with what goes wrong; waits while there are none."""
        log, start = subscriber.log, subscriber.position
        while start == len(log):
            subscriber.wake.clear()
            await subscriber.wake.wait()
        subscriber.position = len(log)
        return [
            envelope(received)
            for number, payload in enumerate(log[start:], start)
            for received in (subscriber.fault(payload) if number == VICTIM else [payload])
        ]

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """In segments of random sizes, now one byte, now everything."""
        while data:
            size = self.random.choice((1, 2, 5, 40, len(data)))
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            await asyncio.sleep(0)


def channel_of(head: str) -> str:
    return urlsplit(head.split()[1]).path


async def report_of(fault: Fault, work: load.Load) -> load.Report:
    fake = FakeServer(fault, needs_keys=bool(work.fresh_keys))
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, backlog=256)
    port = server.sockets[0].getsockname()[1]
    command = [str(load.PROGRAM), "--dialect", "pushcompat", "--port", str(port), "--drain", "1", *work.arguments()]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    server.close()
    await fake.stop()
    report: load.Report = json.loads(output)
    return report


def noticed(report: load.Report, name: str, work: load.Load) -> bool:
    """The mistake is in the report; a run without one is exact, and did deliver something."""
    if name == "exact":
        each = SUBSCRIBERS / work.channels
        return bool(report["exact"] and report["delivered"] == each * report["published"] > 25 * each)
    return bool(report[name] == 1 and not report["exact"])


async def check() -> int:
    missed = 0
    for title, work in LOADS.items():
        for name, fault in FAULTS.items():
            ok = noticed(await report_of(fault, work), name, work)
            print(f"{title:16} {name:18} {'noticed' if ok else 'NOT NOTICED'}")
            missed += not ok
    return 1 if missed else 0


if __name__ == "__main__":
    open_files()
    load.build()
    sys.exit(asyncio.run(check()))
