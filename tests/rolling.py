"""``python -m tests.rolling [--subscribers 5000]``: a rolling restart under load, and what subscribers notice of it.

They are on all transports, stay where they are, and come back when they are told to. Exit code 1 if anybody was
refused, cut off or told ``reset``, or if a message was lost or came twice.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from .parity.wires import WIRES, LongPoll
from .soak.clients import CURSOR_WIRES, Publisher
from .soak.cluster import Node
from .soak.ledger import Ledger, Record

_CHANNELS = [f"channel-{number}" for number in range(20)]
_PATIENCE_S = 60.0
_RECEIVE_BYTES = 1 << 16


class Follower:
    def __init__(self, address: tuple[str, int], channel: str, wire: str, faults: Counter[str]) -> None:
        self.record = Record([channel])
        self.opened = False
        self._address = address
        self._wire = wire
        self._faults = faults

    async def run(self) -> None:
        while True:
            try:
                await asyncio.sleep(await self._connection())
            except Exception as error:
                self._faults[f"{self._wire}: {error!r}"] += 1
                await asyncio.sleep(0.1)

    async def _connection(self) -> float:
        """Follows until it is told to come back; returns after how many seconds."""
        loop, wire = asyncio.get_running_loop(), WIRES[self._wire]()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, self._address)
            while True:
                params = {"cursor": self.record.cursor} if self.record.cursor else {}
                await loop.sock_sendall(sock, wire.request(self.record.channels[0], params))
                answered = False
                while not answered:
                    data = await loop.sock_recv(sock, _RECEIVE_BYTES)
                    if not data:
                        raise EOFError("cut off")
                    for event in wire.feed(data):
                        self.record.take(event)
                        self.opened = True
                        if event.kind == "rotate":
                            return (event.retry or 0) / 1000
                    answered = isinstance(wire, LongPoll) and wire.answered


async def roll(folder: Path, subscribers: int, rolls: int = 1, options: Sequence[str] = ()) -> tuple[list[str], str]:
    """What went wrong, and a line about all."""
    faults: Counter[str] = Counter()
    ledger = Ledger()
    node = Node(folder, ["--store", "sqlite:", "--workers", "2", "--log-level", "warning", *options])
    await node.start()
    followers = [
        Follower(node.address, _CHANNELS[number % len(_CHANNELS)], CURSOR_WIRES[number % 3], faults)
        for number in range(subscribers)
    ]
    publishers = [Publisher(lambda: [node.address], ledger, f"p{number}", _CHANNELS, 20) for number in range(2)]
    tasks = [asyncio.ensure_future(one.run()) for one in (*followers, *publishers)]
    try:
        await _until(lambda: all(follower.opened for follower in followers))
        began = time.monotonic()
        for _ in range(rolls):
            before = set(node.processes())
            node.signal(signal.SIGHUP)
            await _until(lambda: len(before & set(node.processes())) == 1)  # noqa: B023  # the parent alone
        took_s = time.monotonic() - began
        for publisher in publishers:
            publisher.stop()
        await asyncio.wait_for(asyncio.gather(*tasks[subscribers:]), _PATIENCE_S)
        await _until(lambda: all(ledger.is_served(follower.record) for follower in followers))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await node.terminate()
    faults["publishers: no answer"] = sum(publisher.unanswered for publisher in publishers)
    verdict = ledger.judge([follower.record for follower in followers], loses=False)
    wrong = [f"{count} × {fault}" for fault, count in faults.items() if count] + node.complaints + verdict.examples[:20]
    if verdict.resets:
        wrong.append(f"{verdict.resets} resets")
    return wrong, (
        f"{subscribers} subscribers, {verdict.published} messages published and {verdict.delivered} delivered, "
        f"{rolls} rolling restarts in {took_s:.1f} s: {verdict.lost} lost, {verdict.repeated} repeated, "
        f"{verdict.resets} resets, {sum(faults.values())} refused or cut off"
    )


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rolling", description=__doc__)
    parser.add_argument("--subscribers", type=int, default=5000)
    parser.add_argument("--rolls", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pushcompat-rolling-") as folder:
        wrong, line = asyncio.run(roll(Path(folder), chosen.subscribers, chosen.rolls))
    print(line, *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
