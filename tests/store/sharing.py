"""A process that appends to a log that others share, and says on stdout what was acknowledged:

    python -m tests.store.sharing URL STATE_DIR NAME [COUNT TOTAL]

With a COUNT it ends when it has appended so many messages and its follower has seen TOTAL, and prints all of these;
without, somebody has to kill it. It then also makes the store forget what it need not keep, all the time.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from pushcompat.limits import Retention
from pushcompat.message import Message
from pushcompat.store import open_store
from pushcompat.store.base import Publish, Receipt, Store
from pushcompat.store.sqlite import SqliteStore
from pushcompat.store.sqlite.trimmer import trim

from .contract import append_group, draft

CHANNELS = 5
KEEPING_ALL = Retention(count=1_000_000)
KEEPING_FEW = Retention(count=20)


class Acknowledged(NamedTuple):
    epoch: str
    sequence: int
    channel: str
    data: str


class Sharer:
    """Such a process. It is told what to do by the arguments above."""

    def __init__(self, url: str, state_dir: Path, name: str, *counts: int) -> None:
        command = [sys.executable, "-m", "tests.store.sharing", url, str(state_dir), name, *map(str, counts)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def wait_for_first(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def rest(self) -> list[list[object]]:
        """All further lines that are whole."""
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            lines = stdout.read().decode().splitlines(keepends=True)
        self.process.wait()
        return [json.loads(line) for line in lines if line.endswith("\n")]


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def append_for_ever(store: Store, name: str, most: int | None) -> None:
    number = 0
    for _ in count():
        group = []
        for _ in range(random.randint(1, 8)):
            channel = f"c{random.randrange(CHANNELS)}"
            group.append(
                Publish([draft(channel, f"{name}:{number + part}") for part in range(random.choice((1, 1, 3)))])
            )
            number += len(group[-1].drafts)
        for publish, outcome in zip(group, await append_group(store, group), strict=True):
            assert isinstance(outcome, Receipt), outcome
            first = outcome.sequence - len(publish.drafts) + 1
            for sequence, message in enumerate(publish.drafts, first):
                say(Acknowledged(outcome.epoch, sequence, message.channel, message.data.decode()))
        if most is not None and number >= most:
            break


async def see(store: Store, total: int) -> list[Message]:
    seen: list[Message] = []
    complete = asyncio.Event()

    def news(messages: Sequence[Message]) -> None:
        seen.extend(messages)
        if len(seen) >= total:
            complete.set()

    following = asyncio.ensure_future(store.follow(0, store.epoch, news))
    waiting = asyncio.ensure_future(complete.wait())
    await asyncio.wait([following, waiting], return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    return seen


async def trim_for_ever(store: Store) -> None:
    assert isinstance(store, SqliteStore)
    while True:
        await asyncio.to_thread(trim, store._files, store._retention, store._clocks[0], urgent=True)


async def main(url: str, state_dir: str, name: str, *counts: str) -> None:
    store = open_store(url, KEEPING_ALL if counts else KEEPING_FEW, Path(state_dir))
    await store.open()
    say(store.epoch)
    if not counts:
        await asyncio.gather(append_for_ever(store, name, None), trim_for_ever(store))
    most, total = map(int, counts)
    seeing = asyncio.ensure_future(see(store, total))
    await append_for_ever(store, name, most)
    for message in await seeing:
        say((message.sequence, message.data.decode()))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
